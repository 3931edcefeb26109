"""Writing a file whole or not at all, so that a killed or failed save leaves the old file as it was."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptycho.errors import InputError, RunError
from ptycho.io.targets import check_replaceable


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; after a clean exit it replaces `path`.

    The temporary file is synced to disk first. Its name keeps the suffix of `path`, because many writers
    choose their format by it. The parent folder is made. Whatever goes wrong, the temporary file is removed
    and an older `path` stays as it was. Raises InputError when `path` is a folder, a link, a pipe or a
    device, RunError when the disk is full or not writable.
    """
    target = Path(path)
    check_replaceable(target)
    # a name may have 255 bytes; what is added to it must not make it too long
    stem = os.fsdecode(os.fsencode(target.stem)[:200])
    temporary = target.with_name(f".{stem}.{secrets.token_hex(6)}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise _as_run_error(error, target) from error
    finally:
        with contextlib.suppress(OSError):  # the error that led here says more
            temporary.unlink(missing_ok=True)


def _as_run_error(error: OSError, target: Path) -> Exception:
    """The same failure in one line; errors of this package that happen to be OSErrors pass through."""
    if isinstance(error, InputError):
        return error
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(f"cannot write {target}: the disk is full; free some space or choose another folder")
    if error.errno == errno.EFBIG:
        return RunError(
            f"cannot write {target}: a file may not be as large here; raise the limit (ulimit -f) or choose "
            "another disk"
        )
    reason = error.strerror or str(error)
    return RunError(f"cannot write {target}: {reason}; check the path and its permissions")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable where the system lets a folder be opened (not on Windows)."""
    if os.name == "posix":
        _sync(folder)

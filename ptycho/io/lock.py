"""One writer a folder: a lock that says who holds it, and that ends with the process that held it.

The lock is the system's own (POSIX record lock), on a small file in the folder. However a process ends, its
lock is gone; the file that it left is taken over by the next. Processes that are forked do not share it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from ptycho.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: folders are not locked there
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)
LOCK_NAME = ".ptycho.lock"
_HELD = (errno.EACCES, errno.EAGAIN)


class FolderLock:
    """The lock of an existing folder, held until `release`.

    Raises InputError, naming the owner, where another process writes there. Where the file system knows no
    locks, a warning is logged and nothing is locked.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK_NAME
        self._descriptor: int | None = None
        if fcntl is not None:
            self._take(folder)

    def _take(self, folder: Path) -> None:
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                owner = os.read(descriptor, 1000).decode("utf-8", "replace").strip()
                os.close(descriptor)
                if error.errno in _HELD:
                    who = owner or "another process"
                    raise InputError(
                        f"{folder} is being written by {who}; wait for it, or choose another folder"
                    ) from None
                log.warning("%s: this file system knows no locks (%s)", folder, error.strerror)
                return
            if self._is_current(descriptor):
                break
            os.close(descriptor)  # the former owner removed the file between opening and locking
        os.ftruncate(descriptor, 0)
        os.write(descriptor, _owner().encode())
        self._descriptor = descriptor

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Remove the file and let go; a second call does nothing."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        with contextlib.suppress(OSError):
            if self._is_current(descriptor):
                self.path.unlink()
        os.close(descriptor)


def _owner() -> str:
    words = [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else ["python"]
    since = datetime.now(UTC).isoformat(timespec="seconds")
    command = " ".join(words).encode("utf-8", "replace").decode()
    return f"process {os.getpid()} on {platform.node()} since {since}: {command[:300]}\n"

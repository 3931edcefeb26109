"""What may be opened for reading: an ordinary file. A pipe would wait for ever, a device has no end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from ptycho.errors import InputError

_ODD = {
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_REASONS = {
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "its links lead round in a circle",
    errno.EACCES: "its folder may not be read",
}


def odd_kind(path: str | os.PathLike[str]) -> str | None:
    """'a pipe (FIFO)', 'a socket' or 'a device', links followed; None for a file, a folder or nothing.

    Raises InputError for a name that the system cannot look up.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise InputError(f"{short(path)}: {reason}; check the path") from None
    except ValueError:
        raise InputError(f"{short(path)}: the name holds a NUL character; check the path") from None
    return _ODD.get(stat.S_IFMT(mode))


def check_input(path: str | os.PathLike[str]) -> Path:
    """The path, where it is a file, a folder or nothing; InputError at once for anything that cannot be read
    as a file."""
    kind = odd_kind(path)
    if kind is not None:
        raise InputError(f"{path} is {kind}, not a file; write it to a file first and give that")
    return Path(path)


def short(path: str | os.PathLike[str]) -> str:
    """A path for a message: the middle of a very long one left out."""
    text = str(path)
    return text if len(text) <= 200 else f"{text[:90]}...{text[-90:]}"

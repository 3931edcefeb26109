"""The end of a failed command: any exception becomes one line and an exit code."""

from __future__ import annotations

import errno
import re

from ptycho.errors import InputError, MissingDependencyError, PtychoError
from ptycho.io.inputs import short

_FAILED, _REFUSED = 1, 2
# errors that the user can correct with another name or folder
_OF_THE_NAME = (
    errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR,
    errno.ENOENT, errno.EEXIST, errno.EINVAL,
)  # fmt: skip
_FULL = (errno.ENOSPC, errno.EDQUOT)
# how numpy, torch (CPU, GPU) and TensorFlow report the size of a failed allocation
_WANTED = re.compile(
    r"(?:allocate|tried to allocate|of size|allocating)\s+([\d.,]+\s*(?:[KMGTPE]i?B|bytes)?)", re.IGNORECASE
)
_ALLOCATION = (
    "can't allocate memory",
    "not enough memory",
    "OOM when allocating",
    "failed to allocate memory",
)
_LESS = "lower batch_size or n_subsample, or say patterns = 'disk'"


def end_of(error: Exception, *, debug: bool = False) -> tuple[str, int]:
    """(the line, the exit code) of an exception."""
    if isinstance(error, (InputError, MissingDependencyError)):
        return str(error), _REFUSED
    if isinstance(error, PtychoError):
        return str(error), _FAILED
    wanted = out_of_memory(error)
    if wanted is not None:
        return f"out of memory{f' ({wanted} more were needed)' if wanted else ''}; {_LESS}", _FAILED
    if isinstance(error, OSError) and error.errno is not None:
        return _of_system(error)
    if isinstance(error, UnicodeError):
        return f"a name or a text is not valid in {error.encoding}; rename it", _REFUSED  # type: ignore[attr-defined]
    if isinstance(error, RecursionError):
        return "the input is nested too deeply; files of this package are not", _REFUSED
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"{what}{'' if debug else '; rerun with --debug for the traceback'}", _FAILED


def out_of_memory(error: BaseException) -> str | None:
    """The size of a failed allocation, '' if the error does not state it; None for any other error."""
    text = str(error)
    kinds = {cls.__name__ for cls in type(error).__mro__}
    if not (
        isinstance(error, MemoryError)
        or kinds & {"OutOfMemoryError", "ResourceExhaustedError"}
        or any(words in text for words in _ALLOCATION)
    ):
        return None
    found = _WANTED.search(text)
    return _size(found[1]) if found else ""


def _size(text: str) -> str:
    """'3.00 GiB' as it is; a bare number of bytes in a unit that can be read."""
    number, _, unit = text.strip().partition(" ")
    if unit and unit.lower() != "bytes":
        return text.strip()
    try:
        return f"{float(number.rstrip('.,').replace(',', '')) / 2**30:.3g} GiB"
    except ValueError:
        return text.strip()


def _of_system(error: OSError) -> tuple[str, int]:
    name = f"{short(error.filename)}: " if error.filename is not None else ""
    reason = (error.strerror or str(error)).lower()
    if error.errno in _FULL:
        return f"{name}the disk is full; free some space, or choose another folder", _FAILED
    if error.errno in _OF_THE_NAME and error.filename is not None:
        return f"{name}{reason}; check the path and its permissions", _REFUSED
    return f"{name}{reason}; check the disk and its permissions", _FAILED

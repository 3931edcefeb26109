"""Reading what others wrote: whatever a damaged file makes its reader raise is one line of DataError.

What a file says to be larger than the memory is refused before anything is allocated.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator
from contextlib import contextmanager

from ptycho.errors import DataError, PtychoError
from ptycho.io import resources
from ptycho.io.inputs import short

_AGAIN = "write or copy the file again"
_OF_THE_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM)


@contextmanager
def damage(what: str, remedy: str = _AGAIN) -> Iterator[None]:
    """Turn whatever a reader raises into DataError `<what> is damaged (<why>); <remedy>`.

    Readers of file formats raise anything on damaged bytes: SyntaxError, TypeError, OverflowError, and so on.
    Errors of this package and those of the machine (a full disk) pass; too little memory becomes a DataError
    of its own.
    """
    try:
        yield
    except PtychoError:
        raise
    except MemoryError as error:
        raise DataError(f"{what} does not fit in memory ({one_line(error)})") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            raise
        raise DataError(f"{what} is damaged ({one_line(error)}); {remedy}") from error


def check_fits(shape: tuple[int, ...], itemsize: int, what: str, remedy: str = "") -> None:
    """DataError where an array of this shape is larger than the memory that is available."""
    if any(not isinstance(side, int) or side < 0 for side in shape):
        raise DataError(f"{what} says to have the shape {short(str(shape))}, which no array has; {_AGAIN}")
    check_memory(math.prod(shape) * itemsize, f"{what}, {short(str(shape))},", remedy)


def check_memory(needed: int, what: str, remedy: str = "") -> None:
    """DataError where that many bytes are not available; a system that does not say has enough."""
    available = resources.available_memory_bytes()
    if available is not None and needed > available:
        more = f"; {remedy}" if remedy else ""
        raise DataError(
            f"{what} does not fit in memory: it needs {_gb(needed)} GB, {_gb(available)} GB are "
            f"available{more}"
        )


def _gb(n_bytes: int) -> str:
    try:
        return f"{n_bytes / 1e9:.3g}"
    except OverflowError:  # a header may name any number
        return "more than 1e300"


def one_line(error: BaseException) -> str:
    """An exception's message without line breaks, or its kind."""
    text = " ".join(str(error).split())[:300]
    return text or type(error).__name__

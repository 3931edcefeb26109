"""Gives memory that was freed back to the system, for work that its memory hardly holds.

glibc takes small arrays from one heap, and after a large array was freed it takes arrays of up to 32 MiB
from there too. Only the end of the heap goes back to the system; holes between arrays that are in use stay.
Under a limit of memory the next array may then find no room although enough was freed. Here arrays from 4 MiB
on get pages of their own, which go back when they are freed. This costs page faults, so it is done only where
the patterns are on disk. Only the command line does this, for its own process; library code never does.
"""

from __future__ import annotations

import ctypes
import os
import sys

#: parameters of glibc's `mallopt`, from malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_OWN_PAGES_FROM_BYTES = 2**22


def give_back_at_once() -> bool:
    """From now on arrays of 4 MiB or more go back to the system when they are freed; False without glibc."""
    libc = _glibc()
    if libc is None:
        return False
    own = libc.mallopt(_MMAP_THRESHOLD, _OWN_PAGES_FROM_BYTES)
    return bool(own and libc.mallopt(_TRIM_THRESHOLD, _OWN_PAGES_FROM_BYTES))


def give_back_holes() -> bool:
    """Give the free pages of the heap back now, also those between arrays; False if there were none."""
    libc = _glibc()
    return libc is not None and bool(libc.malloc_trim(0))


def _glibc() -> ctypes.CDLL | None:
    """The C library of this process if it is glibc."""
    if sys.platform != "linux":
        return None
    try:
        if not (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"):
            return None
        return ctypes.CDLL(None)
    except (OSError, ValueError):
        return None

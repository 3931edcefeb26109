"""Arrays that do not fit in memory: a temporary file that is written by rows and then memory-mapped.

The file is unlinked as soon as it is open, so nothing is left behind however the process ends. It is written
by ordinary writes and not through the map. A full disk then gives an error from the write; through the map it
would kill the process (SIGBUS).
"""

from __future__ import annotations

import errno
import logging
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ptycho.errors import ConfigError, InputError, RunError
from ptycho.io import resources

log = logging.getLogger(__name__)

#: where patterns are stored: chosen by their size, in memory, in a scratch file
PLACES = ("auto", "memory", "disk")
#: 'auto' keeps patterns in memory up to this share of what is available; the work needs the rest
_SHARE = 0.5
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REMEDY = "free some space, or choose another disk by the output folder or by TMPDIR"


def goes_to_disk(n_bytes: int, place: str) -> bool:
    """Whether patterns of this size are stored in a scratch file; `place` is one of PLACES.

    'auto': yes if they need more than half of the available memory, see `ptycho.io.resources`. Where the
    system does not say how much that is, there is taken to be enough. Raises ConfigError for an unknown
    place.
    """
    if place not in PLACES:
        raise ConfigError(f"patterns = {place!r}: must be one of 'auto', 'memory', 'disk'")
    if place != "auto":
        return place == "disk"
    available = resources.available_memory_bytes()
    return available is not None and n_bytes > _SHARE * available


def folder_for(output_dir: Path | str | None) -> Path:
    """The folder for scratch files: the output folder, or its nearest parent that exists, or the system's."""
    if output_dir is not None and Path(output_dir) != Path():
        wanted = Path(output_dir).absolute()
        for folder in (wanted, *wanted.parents):
            if folder.is_dir():
                if os.access(folder, os.W_OK):
                    return folder
                break
    return Path(tempfile.gettempdir())


class ScratchArray:
    """An array on disk, written by rows and mapped when it is complete. The file vanishes with the last
    reference.

    Raises InputError before anything is written where the disk has too little room, RunError where a write
    fails. Disk: the array; memory: nothing.
    """

    def __init__(self, shape: tuple[int, ...], dtype: DTypeLike, folder: Path | str | None = None) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        where = Path(folder) if folder is not None else folder_for(None)
        needed = math.prod(shape) * self.dtype.itemsize
        try:
            free = shutil.disk_usage(where).free
            if needed > free:
                raise InputError(
                    f"{where}: the patterns need a scratch file of {needed / 1e9:.1f} GB, and there are "
                    f"{free / 1e9:.1f} GB free: {_REMEDY}"
                )
            self._file = tempfile.TemporaryFile(dir=where, prefix=".patterns")  # noqa: SIM115
            self._file.truncate(needed)
        except OSError as error:
            raise _as_run_error(error, where) from error
        self._where = where
        log.info("%.2f GB of patterns go to a scratch file in %s", needed / 1e9, where)

    def write(self, row: int, block: NDArray[Any]) -> None:
        """Put `block` (k, ...) into the rows from `row` on, in any order."""
        if row < 0 or row + len(block) > self.shape[0] or block.shape[1:] != self.shape[1:]:
            raise ValueError(f"rows {row} to {row + len(block)} {block.shape}: the array is {self.shape}")
        data = np.ascontiguousarray(block, self.dtype)
        try:
            self._file.seek(row * math.prod(self.shape[1:]) * self.dtype.itemsize)
            self._file.write(data.data)
            self._file.flush()
        except OSError as error:
            raise _as_run_error(error, self._where) from error

    def map(self, *, writable: bool = False) -> np.memmap[Any, Any]:
        """The array as a memory map; what was not written is zero. Write nothing after this.

        `writable` is for readers that insist on it, such as torch; they must not write.
        """
        return np.memmap(self._file, self.dtype, mode="r+" if writable else "r", shape=self.shape)


def _as_run_error(error: OSError, where: Path) -> Exception:
    if isinstance(error, InputError):
        return error
    if error.errno in _FULL:
        return RunError(f"cannot write the scratch file in {where}: the disk or quota is full; {_REMEDY}")
    reason = error.strerror or str(error)
    return RunError(f"cannot write the scratch file in {where}: {reason}; {_REMEDY}")

"""A file that takes every write of the HDF5 library, and says afterwards which one the disk refused.

The library cannot close a file whose last writes fail (a full disk): it stops half way, and the process
crashes when it ends. So it is never told: the first failure is kept, later writes are dropped, and the caller
asks.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class GuardedDisk:
    """A new file for the driver of h5py that writes to Python objects. No method raises after the start.

    error: the first failure, None while all is well.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115 - close() closes it
        self._place = self._size = 0
        self.error: BaseException | None = None

    def check(self) -> None:
        """Raise the first failure, if there was one."""
        if self.error is not None:
            raise self.error.with_traceback(None)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, counted from the beginning or from the end."""
        self._place = offset + (self._size if whence == os.SEEK_END else 0)
        return self._place

    def tell(self) -> int:
        """The place where the file stands."""
        return self._place

    def write(self, data: Any) -> int:
        """Write all of `data`; after a failure nothing."""
        left = memoryview(data).cast("B")
        count = len(left)
        try:
            if self.error is None:
                self._file.seek(self._place)
                while len(left):
                    left = left[self._file.write(left) or 0 :]
        except BaseException as error:
            self.error = error
        self._place += count
        self._size = max(self._size, self._place)
        return count

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`; with zeros where nothing was written."""
        view = memoryview(buffer).cast("B")
        done = 0
        try:
            self._file.seek(self._place)
            while done < len(view) and (got := self._file.readinto(view[done:])):
                done += got
        except BaseException as error:
            self.error = self.error or error
        view[done:] = bytes(len(view) - done)
        self._place += len(view)
        return len(view)

    def truncate(self, size: int) -> int:
        """Set the length of the file."""
        try:
            if self.error is None:
                self._file.truncate(size)
        except BaseException as error:
            self.error = error
        self._size = size
        return size

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Close the file; a failure that the system tells only now is kept as well."""
        try:
            self._file.close()
        except OSError as error:
            self.error = self.error or error


@contextmanager
def signals_later() -> Iterator[Callable[[], None]]:
    """Inside, handlers of signals wait. The function yielded calls those that are due; so does the end.

    A handler that raises (Ctrl-C) would otherwise do so inside the library's own calls of a `GuardedDisk`.
    Outside the main thread nothing changes: no handler runs there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    due: list[int] = []
    waiting: dict[int, Callable[..., Any]] = {}

    def deliver() -> None:
        while due:
            number = due.pop(0)
            waiting[number](number, None)

    for number in map(int, signal.valid_signals()):
        handler = signal.getsignal(number)
        if callable(handler):
            waiting[number] = handler
            signal.signal(number, lambda n, frame: due.append(n))
    try:
        yield deliver
    finally:
        for number, handler in waiting.items():
            signal.signal(number, handler)
        deliver()

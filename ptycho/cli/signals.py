"""SIGTERM is handled like Ctrl-C: a run that a scheduler stops ends in order and is recorded.

SLURM, Docker and systemd send SIGTERM first and SIGKILL some time later. The signal becomes an exception in
the main thread, as Ctrl-C does; the exit code is 128 plus the signal's number.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGXCPU") if hasattr(signal, name))


class Terminated(KeyboardInterrupt):
    """A signal asked the process to end; code that handles Ctrl-C handles this exception too."""


class Stop:
    """Which signal asked this command to end, if one did."""

    def __init__(self) -> None:
        self.signal: int | None = None

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number; that of Ctrl-C where no other signal came."""
        return 128 + (self.signal or signal.SIGINT)

    def check(self) -> None:
        """Raise again if the first exception was lost, for example in a destructor."""
        if self.signal is not None:
            raise Terminated(signal.Signals(self.signal).name)


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Inside a `with` block, signals that end a process raise `Terminated`; earlier handlers are restored.

    A signal that is ignored (nohup) stays ignored, and a handler that another library installed stays
    installed. Outside the main thread nothing changes.
    """
    stop, owner = Stop(), os.getpid()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked worker: it ends as if there were no handler
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if stop.signal is None:  # a second signal must not disturb the end of the run
            stop.signal = number
            raise Terminated(signal.Signals(number).name)

    taken = [number for number in _STOPPING if signal.getsignal(number) == signal.SIG_DFL]
    for number in taken:
        signal.signal(number, end)
    try:
        yield stop
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)

"""One command in several processes on this machine: `--devices K` starts them as `torchrun` would.

The first process (rank 0) prints and writes files. The others only compute; they print only their own errors.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

from ptycho.cli.console import Console
from ptycho.cli.threads import usable_cores
from ptycho.errors import InputError, RunError

#: seconds between two checks of the launcher that all its processes are alive
_LOOK_EVERY_S = 0.2
#: seconds that a process with an input error waits for the first process
_WAIT_FOR_FIRST_S = 20.0
#: the same where the processes have found each other: the first one then waits in the next sum
_WAIT_IN_TEAM_S = 5.0


def rank() -> int:
    """Number of this process among those of its run, 0 where it is alone."""
    from ptycho.ops import team

    return team.rank()


def first_process_ends() -> bool:
    """Wait a short time for the first process to end, which stops this one too; False if it does not end.

    False at once in the first process. Without the wait, a process with an input error could stop the first
    one before it has printed the reason.
    """
    if rank() == 0:
        return False
    if "RANK" not in os.environ:  # Lightning's launcher: the first process has started this one
        return True
    try:
        time.sleep(_WAIT_FOR_FIRST_S)
    except KeyboardInterrupt:  # SIGTERM of the launcher
        return True
    return False


@contextmanager
def the_team() -> Iterator[Any]:
    """The processes of this run for the time of a `with`: a `Processes` of torch's, or None for one alone.

    RunError with the number of the process where a file or disk is wrong for one that is not the first. It
    waits some seconds before: if the first one has the same error, it ends and tells it.
    """
    if "RANK" not in os.environ:
        yield None
        return
    from ptycho_torch.processes import team_of_environment

    with team_of_environment() as team:
        try:
            yield team
        except InputError as error:
            if rank() == 0:
                raise
            time.sleep(_WAIT_IN_TEAM_S)
            raise RunError(f"process {rank()} of {os.environ['WORLD_SIZE']}: {error}") from error


def run_together(words: Sequence[str], devices: int, console: Console) -> int | None:
    """Run `ptycho` with these words in `devices` processes, and return the exit code of the run.

    None where there is nothing to start: one device, or this process is one of several already. A process
    that dies is named, and the others are stopped within a second. Each gets its share of the cores.
    """
    if devices < 2 or "RANK" in os.environ:
        return None
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        run_id=f"ptycho-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=_LOOK_EVERY_S,
    )
    # torch logs every signal that it sends; the lines below are enough for the user
    log = logging.getLogger("torch.distributed")
    level = log.level
    with _shared_cores(devices, os.environ):
        log.setLevel(logging.CRITICAL)
        try:
            elastic_launch(config, sys.executable)("-m", "ptycho", *words)
        except SignalException as stop:
            # all processes got the signal; the first one printed which files remain
            return 128 + int(stop.sigval)
        except ChildFailedError as error:
            first, failure = error.get_first_failure()
            code = int(failure.exitcode)
            if code < 0:
                name = signal.Signals(-code).name
                console.error(f"process {first} of {devices} was ended by {name}; the others were stopped")
                return 1
            return code
        finally:
            log.setLevel(level)
    return 0


@contextmanager
def _shared_cores(devices: int, environment: MutableMapping[str, str]) -> Iterator[None]:
    """Threads of each process while several are started: their share of the cores, at least one."""
    names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: environment.get(name) for name in names}
    share = str(max(1, usable_cores(environment) // devices))
    try:
        for name in names:
            environment[name] = share
        yield
    finally:
        for name, value in before.items():
            if value is None:
                environment.pop(name, None)
            else:
                environment[name] = value

"""One command by several processes of this machine: `--devices K` starts them as `torchrun` would.

The first process (rank 0) speaks and writes; the others work, and say only what the first cannot know.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

from ptycho.cli.console import Console
from ptycho.cli.threads import usable_cores

#: how often the launcher looks whether all its processes live, seconds
_LOOK_EVERY_S = 0.2


def rank(environment: Mapping[str, str] = os.environ) -> int:
    """Which process of the run this is: 0 where it is the only one."""
    found = environment.get("RANK") or environment.get("LOCAL_RANK") or "0"
    return int(found) if found.isdigit() else 0


@contextmanager
def the_team() -> Iterator[Any]:
    """The processes of this run for the time of a `with`: a `Processes` of torch's, or None for one alone."""
    if "RANK" not in os.environ:
        yield None
        return
    from ptycho_torch.processes import team_of_environment

    with team_of_environment() as team:
        yield team


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
    # its log speaks of the launcher's own signals; what matters is said below
    log = logging.getLogger("torch.distributed")
    level = log.level
    with _shared_cores(devices, os.environ):
        log.setLevel(logging.CRITICAL)
        try:
            elastic_launch(config, sys.executable)("-m", "ptycho", *words)
        except SignalException as stop:
            return 128 + int(stop.sigval)  # the processes got the signal too: the first has said what is kept
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

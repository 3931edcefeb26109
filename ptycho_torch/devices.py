"""Which device a run computes on."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

import torch

from ptycho.config.settings import PyTorchExecutionConfig
from ptycho.errors import ConfigError
from ptycho.ops.team import processes

log = logging.getLogger(__name__)


def resolve_accelerator(execution: PyTorchExecutionConfig) -> tuple[str, str]:
    """(accelerator, strategy): the one asked for, or the CPU with a warning where it is missing.

    One device always runs in this process, so that callbacks handed in by a client stay alive.
    """
    check_devices(execution)
    accelerator = execution.accelerator
    wants_gpu = accelerator in ("gpu", "cuda")
    if wants_gpu and not torch.cuda.is_available():
        log.warning("accelerator %s: no CUDA device here, training on the CPU", accelerator)
        accelerator = "cpu"
    if accelerator == "auto" and not torch.cuda.is_available():
        accelerator = "cpu"
    return accelerator, "auto" if execution.devices == 1 else execution.strategy


def of_this_machine(
    execution: PyTorchExecutionConfig, environment: Mapping[str, str] = os.environ
) -> tuple[int, int]:
    """(devices of this machine, machines) of a run: torchrun's, or all devices on one machine.

    >>> eight = PyTorchExecutionConfig(devices=8)
    >>> of_this_machine(eight, {})
    (8, 1)
    >>> of_this_machine(eight, {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"})
    (4, 2)
    """
    local = environment.get("LOCAL_WORLD_SIZE", "")
    if processes(environment) != execution.devices or not local.isdigit():
        return execution.devices, 1
    return int(local), execution.devices // int(local)


def accumulation(execution: PyTorchExecutionConfig) -> int:
    """Batches of each device before a step. Raises ConfigError if the devices would take unequal numbers.

    >>> accumulation(PyTorchExecutionConfig(devices=2, accum_steps=4))
    2
    """
    devices, batches = execution.devices, execution.accum_steps
    if batches == 1 or batches % devices == 0:
        return max(1, batches // devices)
    raise ConfigError(
        f"accum_steps = {batches} with {devices} devices: all must take the same number of batches before a "
        f"step; set a multiple of {devices}, or leave it out for one each"
    )


def check_devices(execution: PyTorchExecutionConfig) -> None:
    """Raise ConfigError for devices that are not there or do not work together."""
    if execution.accelerator == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("accelerator = 'mps': no Apple GPU here - use auto or cpu")
    there = torch.cuda.device_count() if execution.accelerator in ("auto", "cuda", "gpu") else 0
    here, _ = of_this_machine(execution)
    if there and here > there:
        raise ConfigError(f"devices = {here}: this machine has {there} GPUs")
    accumulation(execution)
    if execution.devices > 1 and execution.strategy in ("ddp_spawn", "ddp_fork", "ddp_notebook"):
        raise ConfigError(
            f"strategy = {execution.strategy!r} with {execution.devices} devices: history and callbacks "
            "would stay in the spawned processes - use ddp"
        )

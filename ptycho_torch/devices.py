"""Which device a run computes on."""

from __future__ import annotations

import logging

import torch

from ptycho.config.settings import PyTorchExecutionConfig
from ptycho.errors import ConfigError

log = logging.getLogger(__name__)


def resolve_accelerator(execution: PyTorchExecutionConfig) -> tuple[str, str]:
    """(accelerator, strategy): what was asked for if it is there, else the CPU with a word about it.

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


def check_devices(execution: PyTorchExecutionConfig) -> None:
    """Raise ConfigError for devices that are not there or do not work together."""
    if execution.accelerator == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("accelerator = 'mps': no Apple GPU here - use auto or cpu")
    if execution.devices > 1 and execution.strategy in ("ddp_spawn", "ddp_fork", "ddp_notebook"):
        raise ConfigError(
            f"strategy = {execution.strategy!r} with {execution.devices} devices: history and callbacks "
            "would stay in the spawned processes - use ddp"
        )

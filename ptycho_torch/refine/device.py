"""The device of the engine: the requested one, or the best available one."""

from __future__ import annotations

import torch

from ptycho.errors import InputError

ACCELERATORS = ("auto", "cpu", "gpu")


def device_for(accelerator: str) -> tuple[str, str]:
    """(torch's name of the device, what it is) for 'auto', 'cpu' or 'gpu'.

    auto: a CUDA device where there is one, else the CPU. InputError for a GPU that is not there.

    >>> device_for("cpu")
    ('cpu', 'CPU')
    """
    if accelerator == "cpu":
        return "cpu", "CPU"
    if torch.cuda.is_available():
        return "cuda", torch.cuda.get_device_name()
    if accelerator == "auto":
        return "cpu", "CPU"
    if torch.backends.mps.is_available():
        return "mps", "Apple GPU"
    raise InputError("--accelerator gpu: no GPU is seen here; use auto or cpu (see ptycho info)")

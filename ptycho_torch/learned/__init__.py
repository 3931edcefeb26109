"""The trainer of the learned tools around a scan: frames, codec, registration, positions.

A tool is a `Task`: a network, its batches, losses, evaluation and export. `fit`
trains it with the callbacks, checkpoints, observers and logs of `ptycho_torch.fit` and `ptycho.run`.
"""

from __future__ import annotations

from ptycho_torch.learned.fit import Fit, fit
from ptycho_torch.learned.task import Task

__all__ = ["Fit", "Task", "fit"]

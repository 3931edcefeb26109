"""Training of the learned tools by name. They run on PyTorch only."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ptycho.config.learned import LearnedSettings

if TYPE_CHECKING:
    from ptycho_torch.learned import Fit, Task

Progress = Callable[[int, int, dict[str, float]], None]


def _codec(settings: Any) -> Task[Any]:
    from ptycho_torch.codec.task import CodecTask

    return CodecTask(settings)


def _positions(settings: Any) -> Task[Any]:
    from ptycho_torch.positions.task import PositionsTask

    return PositionsTask(settings)


def _triage(settings: Any) -> Task[Any]:
    from ptycho_torch.triage.task import TriageTask

    return TriageTask(settings)


def _warp(settings: Any) -> Task[Any]:
    from ptycho_torch.warp.task import WarpTask

    return WarpTask(settings)


#: the tool's name -> its task, made from its settings
TASKS: dict[str, Callable[[Any], Task[Any]]] = {
    "codec": _codec,
    "positions": _positions,
    "triage": _triage,
    "warp": _warp,
}


def train_tool(tool: str, settings: LearnedSettings, progress: Progress | None = None) -> Fit:
    """Train a learned tool into `settings.output_dir`; see `ptycho_torch.learned.fit.fit`."""
    from ptycho_torch.learned import fit

    return fit(TASKS[tool](settings), settings, progress)

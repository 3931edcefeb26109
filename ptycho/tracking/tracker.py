"""The interface of a log. Each kind of log stores what it can."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptycho.tracking.histograms import Histogram

#: how a run ends
STATES = ("done", "failed", "interrupted")


class Tracker:
    """One log of one run. A kind that cannot store something ignores it, so every method here does nothing.

    The calls come in this order: `begin`, then any number of `log_*`, `close`. `log_artifact` and `log_model`
    also come after `close`, when the results are written.
    """

    #: as in `--logger`
    name = ""

    def begin(self, first_epoch: int, first_step: int, params: Mapping[str, Any]) -> None:
        """Open the log of a run that starts at this epoch and optimiser step; `params` are its settings by
        name.

        Zero starts a new log; an earlier one in the same place is moved aside. Otherwise the log is
        continued, and entries of this epoch and later, from before the run was killed, are removed.
        """

    def log_metrics(self, values: Mapping[str, float], step: int, epoch: int) -> None:
        """The metrics at the end of an epoch, whose last optimiser step is `step`; both count from zero."""

    def log_figure(self, path: Path, step: int) -> None:
        """A PNG picture."""

    def log_histograms(self, values: Mapping[str, Histogram], step: int) -> None:
        """Histograms of tensors by name."""

    def log_artifact(self, path: Path) -> None:
        """Any file of the run."""

    def log_model(self, bundle: Path) -> None:
        """The trained model, as `wts.h5.zip`."""

    def close(self, state: str) -> None:
        """Write what is held back; `state` is one of `STATES`."""

"""One run, reported to all its trackers. The callbacks of both backends only call this.

If a log fails during a run, there is one warning and that log is dropped; the training goes on. If a log
cannot be opened, the run ends before its first step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ptycho.errors import PtychoError, RunError
from ptycho.tracking.histograms import Histogram
from ptycho.tracking.names import public
from ptycho.tracking.tracker import Tracker

log = logging.getLogger(__name__)

#: files of a run's folder that say what it was
_SETTINGS = ("config.yaml",)
#: files that are there when the command has ended
_PRODUCTS = ("history.json", "metrics.json", "provenance.json")


class Recorder:
    """The trackers of one run and the folder whose pictures they are shown; used by rank zero only.

    Before `begin` and without trackers every call does nothing.
    """

    def __init__(self, trackers: Sequence[Tracker], output_dir: Path, params: Mapping[str, Any]) -> None:
        self._made, self._folder, self._params = tuple(trackers), output_dir, dict(params)
        self._active: list[Tracker] = []
        self._seen: dict[Path, int] = {}
        self._open = False
        self._step = 0

    def begin(self, first_epoch: int, first_step: int) -> None:
        """Open every log; zero is a new run, else it is one that goes on. Raises RunError."""
        for tracker in self._made:
            try:
                tracker.begin(first_epoch, first_step, self._params)
            except PtychoError:
                raise
            except Exception as error:  # whatever a server or a database throws
                raise RunError(
                    f"--logger {tracker.name}: cannot begin ({_line(error)}); see to it or leave it out"
                ) from error
        self._active, self._open = list(self._made), True
        self._seen = self._figures()
        self._files(_SETTINGS)

    def epoch(self, values: Mapping[str, Any], step: int, epoch: int) -> None:
        """The metrics at the end of an epoch, and the pictures drawn in it; internal names are left out."""
        row, self._step = public(values), step
        self._each(lambda tracker: tracker.log_metrics(row, step, epoch))
        self._new_figures()

    def histograms(self, values: Mapping[str, Histogram], step: int) -> None:
        """Histograms of tensors by name, for the logs that can show them."""
        self._each(lambda tracker: tracker.log_histograms(values, step))

    def end(self, state: str) -> None:
        """Close every log; a second call does nothing."""
        if self._open:
            self._new_figures()
            self._each(lambda tracker: tracker.close(state))
            self._open = False

    def add_bundle(self, bundle: Path) -> None:
        """The model that training left, after the end as well."""
        self._each(lambda tracker: tracker.log_model(bundle))

    def add_outputs(self) -> None:
        """The pictures and numbers in the run's folder when the command has ended."""
        for path in sorted(self._folder.glob("*.png")):
            self._each(lambda tracker, path=path: tracker.log_figure(path, self._step))  # type: ignore[misc]
        self._files(_PRODUCTS)

    def _files(self, names: Sequence[str]) -> None:
        for path in (self._folder / name for name in names):
            if path.is_file():
                self._each(lambda tracker, path=path: tracker.log_artifact(path))  # type: ignore[misc]

    def _figures(self) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in sorted((self._folder / "figures").glob("*.png"))}

    def _new_figures(self) -> None:
        now = self._figures()
        for path, changed in now.items():
            if self._seen.get(path) != changed:
                self._each(lambda tracker, path=path: tracker.log_figure(path, self._step))  # type: ignore[misc]
        self._seen = now

    def _each(self, told: Callable[[Tracker], None]) -> None:
        for tracker in tuple(self._active):
            try:
                told(tracker)
            except Exception as error:  # a log must not end a run, whatever goes wrong in it
                self._active.remove(tracker)
                log.warning("--logger %s failed and is switched off: %s", tracker.name, _line(error))


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:240]

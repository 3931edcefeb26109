"""Where the numbers of a run go: csv, TensorBoard, MLflow; several at once, the same for both backends.

`make_trackers` opens nothing: a missing package is found before any work, files and runs are made by `begin`.
A backend feeds a `Recorder`, which feeds every tracker; only the process of rank zero may call it.
"""

from __future__ import annotations

from ptycho.tracking.kinds import make_recorder, make_trackers
from ptycho.tracking.recorder import Recorder
from ptycho.tracking.tracker import Tracker

__all__ = ["Recorder", "Tracker", "make_recorder", "make_trackers"]

"""The routes of `ptycho watch OUT --page`: the present state of a run's folder, and its newest picture."""

from __future__ import annotations

import json
import math
from importlib import resources
from pathlib import Path

from ptycho.errors import PtychoError
from ptycho.viewer.following import Sight, look
from ptycho.viewer.server import Absent, Answer, Routes

_LABELS = {"r_factor": "R", "train_loss": "training loss", "val_loss": "validation loss"}
#: a curve has at most so many points: every k-th, and the last
_POINTS = 500


def live_routes(folder: Path, every_s: float) -> Routes:
    """The routes of the page. `now` reads the folder again; `picture/N` is its newest PNG for every N.

    every_s: how often the page asks. Only the pictures that `ptycho.viewer.following` knows are read.
    """

    def picture(_: int) -> Answer:
        newest = look(folder).picture
        if newest is None:
            raise Absent("no picture yet")
        try:
            return Answer("image/png", newest.read_bytes())
        except OSError:  # replaced or removed since
            raise Absent("no picture now") from None

    def now() -> Answer:
        return Answer("application/json", json.dumps(told(folder, every_s)).encode())

    pages = {"": ("watch.html", "text/html"), "watch.js": ("watch.js", "text/javascript"),
             "page.css": ("page.css", "text/css")}  # fmt: skip
    get = {route: (lambda name=name, kind=kind: _file(name, kind)) for route, (name, kind) in pages.items()}
    return Routes({**get, "now": now}, {"picture": picture}, {})


def told(folder: Path, every_s: float) -> dict[str, object]:
    """The run as the page needs it: name, state, error, curves of (step, value), the newest picture."""
    try:
        seen = look(folder)
    except PtychoError as error:
        seen = Sight("", str(error), {}, None, 0.0)
    return {
        "name": folder.resolve().name,
        "state": seen.state,
        "error": seen.error,
        "ended": seen.ended,
        "left_out": list(seen.left_out),
        "every_ms": round(1000 * every_s),
        "step": "sweep" if "r_factor" in seen.losses else "epoch",
        "curves": [
            {"label": _LABELS.get(name, name), "points": _points(values)}
            for name, values in seen.losses.items()
        ],
        "picture": None if seen.picture is None else seen.picture.name,
        "written_ms": round(1000 * seen.written),
    }


def _points(values: list[float]) -> list[tuple[int, float]]:
    """(step from 1, value), thinned, without what is not finite."""
    stride = max(math.ceil(len(values) / _POINTS), 1)
    steps = sorted({*range(1, len(values) + 1, stride), len(values)} - {0})
    return [(step, values[step - 1]) for step in steps if math.isfinite(values[step - 1])]


def _file(name: str, kind: str) -> Answer:
    text = resources.files("ptycho.viewer").joinpath(name).read_text(encoding="utf-8")
    return Answer(f"{kind}; charset=utf-8", text.encode())

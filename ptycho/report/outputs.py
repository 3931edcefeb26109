"""What a run leaves on disk: arrays, pictures, numbers. The same for both backends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ptycho.io.atomic import atomic_write
from ptycho.io.npz import write_npz

PRODUCT = "reconstruction.npz"
_ARRAYS = ("object", "coverage", "origin_xy", "probe", "positions_px", "r_per_pattern")
_NUMBERS = ("r_factor", "groups_per_s", "intensity_scale", "backend")


def save_outputs(amplitude: Any, phase: Any, results: dict[str, Any], prefix: str | Path) -> list[Path]:
    """Write a reconstruction under the folder `prefix` and return the files; no image, only losses.

    `reconstruction.npz` (amplitude, phase, object, coverage, origin_xy, probe), `reconstruction.png`,
    `probe.png`, `history.png`, `history.json`, `metrics.json`. Each is written to a temporary name and
    renamed.
    """
    from ptycho.report import figures

    folder = Path(prefix)
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []

    def note(name: str) -> Path:
        written.append(folder / name)
        return written[-1]

    if amplitude is not None:
        obj = results.get("object", np.asarray(amplitude) * np.exp(1j * np.asarray(phase)))
        arrays = {name: np.asarray(results[name]) for name in _ARRAYS if results.get(name) is not None}
        arrays |= {"object": obj, "amplitude": np.asarray(amplitude), "phase": np.asarray(phase)}
        write_npz(note(PRODUCT), arrays)
        figures.reconstruction_figure(note("reconstruction.png"), obj, coverage=results.get("coverage"))
        if results.get("probe") is not None:
            figures.probe_figure(note("probe.png"), np.asarray(results["probe"]))
    history = results.get("history")
    if history:
        _write_json(note("history.json"), history)
        figures.history_figure(note("history.png"), history)
    numbers = {name: results[name] for name in _NUMBERS if results.get(name) is not None}
    if numbers:
        _write_json(note("metrics.json"), numbers)
    return written


def _write_json(path: Path, values: Any) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1, default=float) + "\n")

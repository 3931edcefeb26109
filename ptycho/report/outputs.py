"""The output files of a run: arrays, pictures, numbers. The same for both backends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ptycho.io.atomic import atomic_write
from ptycho.io.npz import write_npz
from ptycho.run.reconstruction import Reconstruction

PRODUCT = "reconstruction.npz"
_ARRAYS = ("object", "coverage", "origin_xy", "probe", "positions_px", "r_per_pattern", "object_pixel_size_m")
_NUMBERS = ("r_factor", "groups_per_s", "intensity_scale", "backend", "object_pixel_size_m")


def save_outputs(amplitude: Any, phase: Any, results: dict[str, Any], prefix: str | Path) -> list[Path]:
    """Write a reconstruction under the folder `prefix` and return the files; without an image, only the
    losses.

    `reconstruction.npz` (amplitude, phase, object, coverage, origin_xy, probe, object_pixel_size_m),
    `reconstruction.png`, `probe.png`, `history.png`, `history.json`, `metrics.json`. Each is written to a
    temporary name and renamed.
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
        size = results.get("object_pixel_size_m")
        figures.reconstruction_figure(
            note("reconstruction.png"), obj, coverage=results.get("coverage"), pixel_size_m=size
        )
        if results.get("probe") is not None:
            figures.probe_figure(note("probe.png"), np.asarray(results["probe"]), pixel_size_m=size)
    history = results.get("history")
    if history:
        written += write_history(history, folder)
    numbers = {name: results[name] for name in _NUMBERS if results.get(name) is not None}
    if numbers:
        _write_json(note("metrics.json"), numbers)
    return written


def write_history(history: Mapping[str, Any], folder: Path) -> list[Path]:
    """`history.json` and `history.png`: lists by metric name."""
    from ptycho.report import figures

    _write_json(folder / "history.json", history)
    figures.history_figure(folder / "history.png", dict(history))
    return [folder / "history.json", folder / "history.png"]


def save_reconstruction(
    made: Reconstruction, folder: Path, *, backend: str, object_pixel_size_m: float | None = None
) -> list[Path]:
    """Write an image and its numbers as `save_outputs` does, and return the files."""
    more = {"backend": backend, "object_pixel_size_m": object_pixel_size_m}
    return save_outputs(abs(made.object), np.angle(made.object), _named(made) | more, folder)


def save_run(
    image: Reconstruction | None,
    history: Mapping[str, list[float]],
    folder: Path,
    *,
    backend: str,
    scale: float,
) -> list[Path]:
    """Write the files of a training run: history, numbers, and the image if there is one."""
    named: dict[str, Any] = {} if image is None else _named(image)
    amplitude = phase = None
    if image is not None:
        amplitude, phase = abs(image.object), np.angle(image.object)
    more = {"history": dict(history), "intensity_scale": scale, "backend": backend}
    return save_outputs(amplitude, phase, named | more, folder)


def metrics_of(made: Reconstruction) -> dict[str, float]:
    """`groups_per_s`, and `r_factor` if R was computed."""
    found = {} if made.agreement is None else {"r_factor": float(made.agreement.whole)}
    return {**found, "groups_per_s": float(made.groups_per_s)}


def _named(made: Reconstruction) -> dict[str, Any]:
    """The arrays of a reconstruction by their names in the file."""
    arrays = {
        "object": made.object,
        "coverage": made.image.coverage,
        "origin_xy": made.origin_xy,
        "probe": made.probe,
        "positions_px": made.positions_px,
        **metrics_of(made),
    }
    return arrays if made.agreement is None else arrays | {"r_per_pattern": made.agreement.per_pattern}


def _write_json(path: Path, values: Any) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1, default=float) + "\n")

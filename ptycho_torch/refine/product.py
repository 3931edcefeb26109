"""The files of a refinement: those of a network's image, and the further unknowns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ptycho_torch.refine.result import RefineResult


def as_outputs(result: RefineResult) -> tuple[Any, Any, dict[str, Any]]:
    """(amplitude, phase, results) under the names that `ptycho.report.outputs.save_outputs` takes."""
    amplitude, phase = np.abs(result.object), np.angle(result.object)
    results: dict[str, Any] = {
        "recon_amp": amplitude,
        "recon_phase": phase,
        "object": result.object,
        "coverage": result.coverage,
        "origin_xy": np.asarray(result.origin_xy),
        "probe": result.probe,
        "positions_px": result.positions_xy,
        "r_factor": result.r,
        "r_per_pattern": result.r_map,
        "backend": "pytorch",
    }
    if result.history:
        rows = result.history
        results["history"] = {
            "r_factor": [row["r"] for row in rows],
            "strength": [row["strength"] for row in rows],
            "seconds": [row["seconds"] for row in rows],
        }
    return amplitude, phase, results


def save_result(
    result: RefineResult,
    folder: str | Path,
    *,
    object_pixel_size_m: float | None = None,
    start_positions_xy: np.ndarray | None = None,
) -> list[Path]:
    """Write `reconstruction.npz`, figures, history and metrics, `r_map.png`, and `unknowns.npz` if any.

    start_positions_xy: the first positions (M, 2) px, if positions were solved for; `positions.png` shows
    them with the final ones. unknowns.npz: intensity (M,) amplitude factors, background (N, N)
    counts, positions_unsure (M,) bool. Each file is whole or absent.
    """
    from ptycho.io.npz import write_npz
    from ptycho.report.figures import moved_figure, r_map_figure
    from ptycho.report.outputs import save_outputs

    amplitude, phase, named = as_outputs(result)
    named["object_pixel_size_m"] = object_pixel_size_m
    written = save_outputs(amplitude, phase, named, folder)
    written.append(Path(folder) / "r_map.png")
    r_map_figure(written[-1], result.positions_xy, result.r_map, result.r, pixel_size_m=object_pixel_size_m)
    if start_positions_xy is not None:
        written.append(Path(folder) / "positions.png")
        moved_figure(written[-1], start_positions_xy, result.positions_xy, object_pixel_size_m)
    more = {"intensity": result.intensity, "background": result.background}
    more["positions_unsure"] = result.unsure
    known = {name: value for name, value in more.items() if value is not None}
    if known:
        written.append(Path(folder) / "unknowns.npz")
        write_npz(written[-1], known)
    return written

"""Corrects positions with a reference image. Each round reconstructs quickly, registers the image with the
reference, and moves the positions; rounds end when the moves are small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho import backends
from ptycho.errors import InputError, RunError
from ptycho.report.compare import same_pixel
from ptycho.warp.score import FAILURES
from ptycho.warp.settings import PairSettings

Floats = NDArray[np.float64]
#: sweeps of each quick reconstruction; largest number of rounds; rms move that ends them, px
SWEEPS, ROUNDS, STILL_PX = 15, 4, 0.05


class Corrected(NamedTuple):
    """positions_px (M, 2); rows, one for each round: rms_px of the moves, scores before and after, stages."""

    positions_px: Floats
    rows: list[dict[str, Any]]


def positions_by_reference(
    raw: Any,
    reference: ArrayLike,
    *,
    coverage: ArrayLike | None = None,
    origin_xy: tuple[float, float] | None = None,
    pixel_size_m: float | None = None,
    settings: PairSettings | None = None,
    sweeps: int = SWEEPS,
    rounds: int = ROUNDS,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Corrected:
    """The positions of a scan, corrected with an image of the same area that has the right geometry.

    raw: the scan; reference (H, W) complex, or real for a micrograph, in object pixels of the same size;
    coverage (H, W); origin_xy: position of reference[0, 0] in the scan's px, None: centre on centre;
    pixel_size_m of the reference, None: not known. Wrong positions blur the image, so one round finds only a
    mean of neighbouring errors; it is repeated with the moved positions, at most `rounds` times. Only smooth
    errors are visible in an image. Errors that differ between neighbours (jitter, lines scanned in both
    directions with hysteresis) are left to the position search of the engine. Raises InputError; RunError if
    the images do not match. Time: `rounds` times `sweeps` sweeps and a registration; memory that of a
    reconstruction.
    """
    from ptycho.warp.prepare import make_pair
    from ptycho_torch.warp import register

    positions = np.asarray(raw.positions_px, np.float64)
    rows: list[dict[str, Any]] = []
    for number in range(rounds):
        if progress is not None:
            progress(number, rounds)
        made = backends.engine().reconstruct(raw.moved_to(positions), epochs=sweeps, seed=seed, device=device)
        _check_pixel(made.object_pixel_size_m, pixel_size_m)
        place = None
        if origin_xy is not None:
            place = made.origin_xy[0] - origin_xy[0], made.origin_xy[1] - origin_xy[1]
        pair = make_pair(
            reference, made.object, fixed_coverage=coverage, moving_coverage=made.coverage, origin_xy=place
        )
        found = register(pair, settings, seed=seed)
        if found.score.failures:
            if number:
                break
            words = "; ".join(FAILURES[name] for name in found.score.failures)
            raise RunError(
                f"the reference does not fit the scan: {words}; check that both show the same place"
            )
        new = pair.moved_positions(positions, made.origin_xy, found.warp)
        move = float(np.sqrt(((new - positions) ** 2).sum(1).mean()))
        positions = new
        rows.append({"rms_px": move, **found.as_dict()})
        if move < STILL_PX:
            break
    if progress is not None:
        progress(rounds, rounds)
    return Corrected(positions, rows)


def _check_pixel(ours: float | None, theirs: float | None) -> None:
    if ours is not None and theirs is not None and not same_pixel(ours, theirs):
        raise InputError(
            f"the reference has pixels of {theirs:.6g} m, the scan's image {ours:.6g} m; resample it first"
        )

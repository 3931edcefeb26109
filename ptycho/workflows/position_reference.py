"""Corrects positions with a reference image.

Each look reconstructs quickly, registers the image with the reference, and moves the positions. Then the
positions are fitted to the patterns, with the reference as the known object: an image averages errors over
the probe, a pattern does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho import backends
from ptycho.errors import DataError, InputError, RunError
from ptycho.report.compare import same_pixel
from ptycho.warp.score import FAILURES
from ptycho.warp.settings import PairSettings

Floats = NDArray[np.float64]
#: sweeps of each quick reconstruction; largest number of looks; rms move that ends them, px
SWEEPS, ROUNDS, STILL_PX = 15, 3, 0.05
#: standard errors by which the fit to the patterns must predict held-out patterns better than the looks did
SURE = 4.0
#: least coverage of the reference, relative to its median, for a pixel to be taken as known
_KNOWN = 0.05


class Corrected(NamedTuple):
    """positions_px (M, 2); rows, one for each look: rms_px of the moves, scores before and after, stages;
    fit: of the fit to the patterns (kept, better: standard errors, rows of each round), None if there was
    none."""

    positions_px: Floats
    rows: list[dict[str, Any]]
    fit: dict[str, Any] | None = None


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
    pixel_size_m of the reference, None: not known. Wrong positions blur the image, so one look finds only a
    mean of neighbouring errors; it is repeated with the moved positions, at most `rounds` times. A complex
    reference is then held as the object of a fit to the patterns; the fit is kept if it predicts held-out
    patterns better. Only smooth errors are corrected. Errors that differ between neighbours (jitter, lines
    scanned in both directions with hysteresis) are left to the position search of the engine. Raises
    InputError; RunError if the images do not match. Time: `rounds` times `sweeps` sweeps and a registration,
    and some 150 forward models a pattern; memory that of a reconstruction.
    """
    from ptycho.warp.prepare import make_pair
    from ptycho_torch.warp import register

    positions = np.asarray(raw.positions_px, np.float64)
    rows: list[dict[str, Any]] = []
    last: tuple[Any, ...] | None = None
    for number in range(rounds):
        if progress is not None:
            progress(number, rounds + 1)
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
        last = made, pair, found.warp, pair.places_on_fixed(positions, made.origin_xy, found.warp)
        new = pair.moved_positions(positions, made.origin_xy, found.warp)
        move = float(np.sqrt(((new - positions) ** 2).sum(1).mean()))
        positions = new
        rows.append({"rms_px": move, **found.as_dict()})
        if move < STILL_PX:
            break
    fit = None
    if last is not None and last[1].part == "complex":
        if progress is not None:
            progress(rounds, rounds + 1)
        fitted, fit = _fit_patterns(raw, reference, coverage, last, seed, device)
        if fit["kept"]:
            positions = fitted + positions.mean(0) - fitted.mean(0)
    if progress is not None:
        progress(rounds + 1, rounds + 1)
    return Corrected(positions, rows, fit)


def _fit_patterns(
    raw: Any, reference: ArrayLike, coverage: ArrayLike | None, last: tuple[Any, ...], seed: int, device: str
) -> tuple[Floats, dict[str, Any]]:
    """Positions (M, 2) in the reference's px by a fit to the patterns with the reference held, and its
    report."""
    from ptycho.evaluation.gauge import remove_gauge
    from ptycho.image.registration import phase_ramp
    from ptycho.warp.prepare import relative_coverage, warp_image
    from ptycho_torch.refine.scan import scan_from_raw
    from ptycho_torch.warp.held_object import fit_held_object

    made, pair, warp, places = last
    image = np.asarray(reference, np.complex128)
    # `places` are where the last look put the patterns; the image it saw gives the probe
    known = relative_coverage(coverage, image.shape) > _KNOWN
    height, width = pair.shape
    drawn = warp_image(made.object, pair, warp)
    gauge = remove_gauge(drawn, pair.fixed, (0, height, 0, width), allow_twin=False)
    n = made.probe.shape[-1]
    # what the image has and the reference lacks belongs to the probe
    ramp = phase_ramp((n, n), (gauge.ramp_cycles[0] / height, gauge.ramp_cycles[1] / width))
    scan = scan_from_raw(raw, device=device)
    written = np.asarray(raw.positions_px, np.float64)
    try:
        found = fit_held_object(scan, image, known, places, written, made.probe * ramp, seed=seed)
    except DataError:  # the reference is too small for a whole pattern
        return written, {"kept": False, "better": 0.0, "patterns": 0, "rounds": []}
    told = {
        "kept": found.better > SURE,
        "better": found.better,
        "patterns": int(found.used.sum()),
        "rounds": found.rows,
    }
    return found.places_px, told


def _check_pixel(ours: float | None, theirs: float | None) -> None:
    if ours is not None and theirs is not None and not same_pixel(ours, theirs):
        raise InputError(
            f"the reference has pixels of {theirs:.6g} m, the scan's image {ours:.6g} m; resample it first"
        )

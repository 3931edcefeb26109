"""All numbers and arrays of one run for a report: measured, reconstructed, and their agreement.

A missing part (a moved scan, a damaged product) is None, and a note gives the reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho.errors import DataError, PtychoError
from ptycho.evaluation.anchors import poisson_misfit, poisson_noise_r
from ptycho.evaluation.dispersion import measure_dispersion, quanta_per_count
from ptycho.evaluation.judge import Evaluation
from ptycho.evaluation.rfactor import predicted_amplitudes, r_factor
from ptycho.io.lazy import Patterns
from ptycho.io.masks import read_mask
from ptycho.io.npz import open_npz, read_array
from ptycho.report.compare import compare
from ptycho.report.products import Product, find_truth, open_product
from ptycho.report.record import skipped_frames
from ptycho.report.runs import Run
from ptycho.report.verdict import HeldOut
from ptycho.run.provenance import sha256
from ptycho.scan.report import ScanReport, by_rows, describe_scan

#: number of patterns for the estimate of the noise floor of R
_SAMPLE = 64
_SHOWN_PATTERNS = 3


class Limits(NamedTuple):
    """R of an object of ones under the product's probe, and R of the noise alone; None if neither the counts
    nor the noise of the patterns are known. mean: R if every pattern is predicted as the mean pattern; it
    does not depend on the probe. even: share of the structure explained pixel by pixel. sigma: standard
    errors between `mean` and noise around the mean pattern. per_count: variance of a count, 1 for counted
    photons.
    """

    flat: float
    noise: float | None
    mean: float = math.inf
    even: float | None = None
    sigma: float | None = None
    per_count: float | None = None

    @property
    def without_structure(self) -> float:
        """R of an image without structure: the lesser of the two."""
        return min(self.flat, self.mean)


@dataclass
class ScanSummary:
    """A summary of a scan: the report of `ptycho validate`, the mean pattern (N, N) in counts, positions (M,
    2) px.
    """

    report: ScanReport
    mean_counts: NDArray[np.float64]
    positions_xy: NDArray[np.float64]
    object_pixel_size_m: float | None = None


@dataclass
class Evidence:
    """The evidence about one run; None for a missing part.

    shown: indices (K,) of example patterns; measured_shown, predicted_shown: (K, N, N) amplitude.
    """

    run: Run
    product: Product | None = None
    probe: NDArray[Any] | None = None
    positions_xy: NDArray[np.float64] | None = None
    r_per_pattern: NDArray[np.float64] | None = None
    r: float | None = None
    measured: ScanSummary | None = None
    limits: Limits | None = None
    shown: NDArray[np.int64] | None = None
    measured_shown: NDArray[np.float32] | None = None
    predicted_shown: NDArray[np.float32] | None = None
    truth: Product | None = None
    evaluation: Evaluation | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """Open problems of the scan: as it is now, or, if it cannot be read, as recorded by the run."""
        if self.measured is not None:
            return self.measured.report.problems
        kept = (self.run.provenance or {}).get("findings") or ()
        return [
            f"{one.get('what')}: {one.get('remedy')}"
            for one in kept
            if isinstance(one, dict) and one.get("severity") in ("error", "problem")
        ]

    @property
    def held_out(self) -> HeldOut | None:
        """The run's results on patterns held out from a short reconstruction."""
        known = self.run.metrics
        if "held_out_r" not in known or "held_out_flat" not in known:
            return None
        other = known.get("held_out_r_elsewhere")
        return HeldOut(
            known["held_out_r"],
            known["held_out_flat"],
            known.get("held_out_noise"),
            known.get("held_out_sigma", 0.0),
            near_field=known.get("near_field_sigma"),
            elsewhere=None if other is None else (other, known.get("held_out_r_as_given", math.nan)),
        )


def collect_evidence(run: Run, pixel_size_m: float | None = None) -> Evidence:
    """Read the product and the scan of a run, and compare them with each other and with the truth.

    Time: one read of the scan, 64 patterns predicted (the whole scan where the product has no R), and one
    judgement if there is a truth. Memory: the scan's amplitudes.
    """
    found = Evidence(run, notes=list(run.notes))
    _read_product(found)
    _read_scan(found)
    if found.product is not None and found.truth is not None:
        _judge(found, pixel_size_m)
    return found


def r_limits(
    amplitude: Patterns,
    obj: ArrayLike,
    probe: ArrayLike,
    positions_xy: NDArray[np.float64],
    origin_xy: tuple[float, float],
    *,
    counts_known: bool,
    bad_pixels: NDArray[np.bool_] | None = None,
) -> Limits:
    """The anchors of R for a scan of amplitudes (M, N, N), an object (H, W) and its probe.

    flat: an object of ones gives the probe's own diffraction at every position, so its R needs no prediction
    of the scan. mean: the same for the mean measured pattern. noise: the expected R of Poisson counts with
    the predicted intensities as means, scaled to the measured total, with one fitted scale of amplitudes as
    in R; over at most 64 positions. If the noise of the patterns (`ptycho.evaluation.dispersion`) is not
    photon noise, equivalent counts with the same noise are used. So it is known also for amplitudes that are
    not square roots of counts. Time: two passes over the amplitudes. Memory:
    64 patterns.
    """
    M = len(amplitude)
    good = np.ones(amplitude.shape[1:], np.bool_) if bad_pixels is None else ~bad_pixels
    modes = np.asarray(probe)[None] if np.ndim(probe) == 2 else np.asarray(probe)
    waves = np.fft.fftshift(np.fft.fft2(modes, norm="ortho"), axes=(-2, -1))
    beam = np.sqrt(np.sum(np.abs(waves) ** 2, axis=0)) * good
    total = _sum(amplitude, good)
    power = float((total.squares * good).sum())
    if power <= 0:
        return Limits(0.0, None)
    # min over a of sum (a B - A)^2 = sum A^2 - (sum A B)^2 / (M sum B^2)
    usual = np.sqrt(total.squares / M)
    flat, mean = (
        float(np.sqrt(max(power - float((total.values * b).sum()) ** 2 / max(M * float((b**2).sum()),
        1e-300), 0)
                      / power))
        for b in (beam, usual)
    )  # fmt: skip
    some = np.unique(np.linspace(0, M - 1, min(M, _SAMPLE)).round().astype(int))
    x, y = positions_xy[some].T
    predicted = predicted_amplitudes(obj, modes, x, y, origin_xy).astype(np.float64) * good
    seen = (amplitude[some] * good).astype(np.float64)
    counts = float((seen**2).sum())
    per_count = quanta_per_count(measure_dispersion(seen**2, bad_pixels), counts_known)
    noise = sigma = None
    each_noise = np.zeros(good.shape)
    if per_count is not None and counts > 0:
        # equivalent photons with the same noise; R and its anchors depend only on the ratio
        expected = predicted**2 * (counts / per_count / max(float((predicted**2).sum()), 1e-300))
        noise = poisson_noise_r(expected)
        # from the data alone: structure of the patterns beyond noise around their mean
        photons = usual**2 / per_count
        spread = np.sqrt(M * np.minimum(photons, 0.125).sum()) * per_count / power
        sigma = float((mean**2 - poisson_noise_r(photons) ** 2) / max(spread, 1e-300))
        light = expected.mean(axis=0)
        cross = light - 0.5 * poisson_misfit(expected).mean(axis=0)
        each_noise = (light - cross**2 / np.maximum(light, 1e-300)) * per_count
    missed, structure = (_misfit_of_pixels(model, seen) for model in (predicted, usual[None]))
    # a pixel with only a few counts in total shows noise, not structure
    enough = good if per_count is None else good & ((seen**2).sum(axis=0) > 20 * per_count)
    return Limits(flat, noise, mean, _even_share(structure, missed, each_noise, enough), sigma, per_count)


def _misfit_of_pixels(model: NDArray[np.float64], seen: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean squared misfit (N,N) of amplitudes (K,N,N), with one fitted scale for each pixel."""
    model = np.broadcast_to(model, seen.shape)
    scale = (model * seen).sum(axis=0) / np.maximum((model**2).sum(axis=0), 1e-300)
    return np.asarray(((scale * model - seen) ** 2).mean(axis=0))


def _even_share(
    structure: NDArray[np.float64],
    missed: NDArray[np.float64],
    noise: NDArray[np.float64],
    good: NDArray[np.bool_],
) -> float | None:
    """Explained share of the structure, by pixel, with weights limited to the 95th percentile.

    Only pixels with more structure than noise count; None if there are few. Arrays (N,N), means per pattern.
    """
    parts = [np.where(good, a, 0.0).reshape(-1) for a in (structure, missed, noise)]
    signal = parts[0] - parts[2]
    lit = signal > parts[2] + 1e-3 * signal.max()
    if lit.sum() < 32:
        return None
    limit = float(np.percentile(signal[lit], 95))
    weight = np.minimum(signal[lit], limit)
    share = (parts[0][lit] - parts[1][lit]) / signal[lit]
    return float((weight * np.clip(share, -1.0, 1.0)).sum() / weight.sum())


class _Sums(NamedTuple):
    """Sums over patterns of amplitudes and of their squares, (N,N) float64."""

    values: NDArray[np.float64]
    squares: NDArray[np.float64]


def _sum(amplitude: Patterns, good: NDArray[np.bool_]) -> _Sums:
    values, squares = np.zeros(good.shape), np.zeros(good.shape)
    for begin in range(0, len(amplitude), 64):
        part = np.where(good, amplitude[begin : begin + 64], 0.0).astype(np.float64)
        values += part.sum(axis=0)
        squares += (part**2).sum(axis=0)
    return _Sums(values, squares)


def _read_product(found: Evidence) -> None:
    path = found.run.product
    if path is None:
        return
    try:
        found.product = open_product(path)
        with open_npz(path) as archive:
            arrays = {
                name: read_array(archive, name, path)
                for name in ("probe", "positions_px", "r_per_pattern")
                if name in archive.files
            }
    except PtychoError as error:
        found.notes.append(f"{error}")
        return
    probe, positions = arrays.get("probe"), arrays.get("positions_px")
    if probe is not None and probe.ndim in (2, 3) and probe.shape[-1] == probe.shape[-2]:
        found.probe = probe[None] if probe.ndim == 2 else probe
    if positions is not None and positions.ndim == 2 and positions.shape[1] == 2:
        found.positions_xy = positions.astype(np.float64)
        values = arrays.get("r_per_pattern")
        if values is not None and values.shape == positions.shape[:1]:
            found.r_per_pattern = values.astype(np.float64)
    found.r = found.run.metrics.get("r_factor")


def _read_scan(found: Evidence) -> None:
    path = found.run.scan
    if path is None:
        return
    from ptycho.scan.raw_data import RawData

    try:
        mask = _mask_of(found.run)
        raw = by_rows(RawData.from_file, path, bad_pixels=mask, make_probe=True)
        raw = raw.without(
            [n for n in skipped_frames(found.run.provenance, str(path.resolve())) if n < len(raw.diff3d)]
        )
        report = describe_scan(raw, path) if found.run.described is None else found.run.described
        amplitude = raw.amplitude_by_rows()
        found.truth = find_truth(path)
    except PtychoError as error:
        found.notes.append(f"the scan cannot be read: {error}")
        return
    _note_change(found, path)
    mean = np.zeros(amplitude.shape[1:])
    for begin in range(0, len(amplitude), 64):
        mean += np.square(amplitude[begin : begin + 64], dtype=np.float64).sum(axis=0)
    mean /= len(amplitude)
    if raw.bad_pixels is not None:
        mean[raw.bad_pixels] = np.nan
    positions = np.asarray(raw.positions_px, np.float64)
    found.measured = ScanSummary(report, mean, positions, raw.object_pixel_size_m)
    if found.product is None or found.probe is None or found.probe.shape[-1] != raw.N:
        return
    index, places = _matched(found.positions_xy, positions)
    try:
        _hold_against(found, amplitude.select(index), places, report.nphotons_known, raw.bad_pixels)
    except PtychoError as error:
        found.notes.append(f"product and scan do not fit together: {error}")


def _mask_of(run: Run) -> NDArray[np.bool_] | None:
    """The additional mask of the run, if it still exists, and the mask for this report."""
    mask = run.bad_pixels
    for given in (run.provenance or {}).get("inputs") or ():
        if isinstance(given, dict) and given.get("role") == "bad_pixels" and Path(given["path"]).is_file():
            known = read_mask(given["path"])
            if mask is not None and mask.shape != known.shape:
                raise DataError(f"--bad_pixels has shape {mask.shape}, the run's own mask {known.shape}")
            return known if mask is None else known | mask
    return mask


def _hold_against(
    found: Evidence,
    amplitude: Patterns,
    places: NDArray[np.float64],
    counts_known: bool,
    bad_pixels: NDArray[np.bool_] | None,
) -> None:
    """R, its anchors and a few patterns, measured and predicted."""
    assert found.product is not None and found.probe is not None
    obj, origin = _filled(found.product), found.product.origin_xy or (0.0, 0.0)
    if found.r is None or found.r_per_pattern is None:
        made = r_factor(obj, found.probe, places[:, 0], places[:, 1], amplitude, origin, bad_pixels)
        found.r, found.r_per_pattern, found.positions_xy = made.whole, made.per_pattern, places
    found.limits = r_limits(
        amplitude, obj, found.probe, places, origin, counts_known=counts_known, bad_pixels=bad_pixels
    )
    if (found.limits.per_count or 1.0) > 1 and found.limits.noise is not None:
        # some signal was taken as noise: no image can explain the patterns better than their noise allows
        found.limits = found.limits._replace(noise=min(found.limits.noise, found.r))
    order = (
        np.argsort(found.r_per_pattern) if len(found.r_per_pattern) == len(places) else np.arange(len(places))
    )
    # The best, the middle and the worst pattern.
    picks = np.unique(np.linspace(0, len(order) - 1, _SHOWN_PATTERNS).round().astype(int))
    found.shown = order[picks]
    seen = np.array(amplitude[found.shown])
    x, y = places[found.shown].T
    model = predicted_amplitudes(obj, found.probe, x, y, origin)
    good = np.ones(seen.shape[1:], np.bool_) if bad_pixels is None else ~bad_pixels
    model = model * ((model * seen * good).sum() / max(float((model**2 * good).sum()), 1e-30))
    found.measured_shown, found.predicted_shown = seen, model.astype(np.float32)


def _matched(
    places: NDArray[np.float64] | None, scan: NDArray[np.float64]
) -> tuple[Any, NDArray[np.float64]]:
    """The patterns of the scan that a product was made from, and their final positions."""
    if places is None:
        return slice(None), scan
    if len(places) == len(scan):
        return slice(None), places
    from scipy.spatial import cKDTree

    return np.asarray(cKDTree(scan).query(places)[1]), places


def _filled(product: Product) -> NDArray[Any]:
    """The object, with its mean in pixels that no patch covers."""
    obj = np.asarray(product.object)
    seen = np.isfinite(obj) if product.coverage is None else np.isfinite(obj) & (product.coverage > 0)
    return np.where(seen, obj, obj[seen].mean() if seen.any() else 1.0)


def _note_change(found: Evidence, path: Path) -> None:
    for given in (found.run.provenance or {}).get("inputs") or ():
        if isinstance(given, dict) and given.get("path") == str(path.resolve()) and given.get("sha256"):
            if given.get("bytes") != path.stat().st_size or given["sha256"] != sha256(path):
                found.notes.append(f"{path} has changed since the run: what is shown as measured may differ")
            return


def _judge(found: Evidence, pixel_size_m: float | None) -> None:
    assert found.product is not None and found.truth is not None
    reference = found.truth.object
    if not np.isfinite(reference).all() or np.std(reference) <= 1e-6 * np.abs(reference).mean():
        found.notes.append(f"{found.truth.key} of the scan has no structure, so it is not taken as a truth")
        found.truth = None
        return
    try:
        found.evaluation = compare(found.product, found.truth, pixel_size_m=pixel_size_m).evaluation
    except PtychoError as error:
        found.notes.append(f"the image cannot be judged against {found.truth.key}: {error}")

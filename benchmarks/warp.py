"""Registration on simulated cases with a known answer.

    python benchmarks/warp.py [level | scans | references | noise | cases | start | terms | picture]...

Without a word: all.

level: noise of an object pixel by dose, from two halves of the photons of one scan (`_NOISE` has its mean).
cases: lens, drift and random flows of 8 px at most, images with the noise of 1e3 to 1e5 photons a pattern.
noise: pairs that differ by noise only, and pairs of noise only. scans: scans of 484 patterns (N = 64) with
drift and hysteresis, corrected by another scan's image of the same object. references: the correction of the
positions alone, of more scans, one of which has right positions. start: with and without the network's start.
terms: the terms of the loss. picture: docs/images/warp.png and warp_corrected.png. Every line has its seed;
px rms against the truth, CPU seconds of this process.
"""

from __future__ import annotations

import copy
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe
from numpy.typing import NDArray
from scipy import ndimage

from ptycho.evaluation.judge import evaluate
from ptycho.report import style
from ptycho.report.warp import draw_registration
from ptycho.simulation import Scenario, Simulated, get_object, simulate
from ptycho.warp.distortions import drift_and_hysteresis, random_warp
from ptycho.warp.prepare import Pair, make_pair
from ptycho.warp.settings import PairSettings
from ptycho.warp.warp import Warp, identity
from ptycho.workflows.position_reference import positions_by_reference
from ptycho_torch.refine import reconstruct
from ptycho_torch.warp import register
from ptycho_torch.warp.losses import local_factor
from ptycho_torch.warp.predict import predict_warp

_SIDE, _PAD = 160, 32
#: patterns nearer to the edge of a scan than this are its border
_BORDER_PX = 10.0
_IMAGES = Path(__file__).parents[1] / "docs" / "images"
#: noise of an object pixel (both parts together) over the mean amplitude by photons a pattern: white noise
#: that after the fit's Gaussian of 1 px is what `level` measures where the scan covers fully
_NOISE = {1e3: 0.17, 1e4: 0.066, 1e5: 0.027}
_OBJECTS = ("two_photographs", "lines", "gaussian_random_field", "siemens_star", "cat_and_coins")


def pair_of(name: str, seed: int, warp: Warp, noise: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """fixed(p) = moving(p + u(p)) of one object, both with noise, the moving image in another gauge."""
    rng = np.random.default_rng([seed, 99])
    whole = get_object(name)((_SIDE + 2 * _PAD,) * 2, seed).astype(np.complex128)
    whole = ndimage.gaussian_filter(whole.real, 0.6) + 1j * ndimage.gaussian_filter(whole.imag, 0.6)
    there = np.moveaxis(np.indices(warp.shape), 0, -1) + warp.field()[..., ::-1] + _PAD
    there = np.moveaxis(there, -1, 0)
    fixed = sum(
        unit * ndimage.map_coordinates(part, there, order=3)
        for unit, part in ((1, whole.real), (1j, whole.imag))
    )
    inner = np.s_[_PAD:-_PAD, _PAD:-_PAD]
    made = []
    for image, free in ((fixed, 1.0), (whole[inner], 1.4 * np.exp(0.8j))):
        white = rng.standard_normal((2, *image.shape)) * noise * np.abs(image).mean() / 2**0.5
        made.append(free * (image + white[0] + 1j * white[1]))
    return made[0], made[1]


def error_px(pair: Pair, found: Warp, true: Warp) -> float:
    """px rms of the displacement, less 8 px at the border, which the moving image does not show."""
    y0, y1, x0, x1 = pair.box
    start = np.array(pair.corner_xy) - np.array([x0, y0])
    off = (found.field() + start - true.field()[y0:y1, x0:x1])[8:-8, 8:-8]
    return float(np.sqrt((off**2).sum(-1).mean()))


def kinds(seed: int) -> dict[str, Warp]:
    """A lens, a drift and a random flow, 8 px at most."""
    rng = np.random.default_rng([seed, 5])
    whole = identity((_SIDE, _SIDE)).replaced(lens=0.07 * rng.choice([-1, 1]), lens_x=rng.uniform(-0.2, 0.2))
    lens = whole.replaced(lens=whole.values[6] * 8.0 / whole.as_dict()["largest_px"])
    across, down = rng.uniform(-0.5, 0.5), rng.choice([-1.0, 1.0])
    time_of = 1 - np.exp(-np.linspace(0, 1, 8) / 0.5)
    points = np.stack([np.tile((time_of * scale)[:, None], (1, 8)) for scale in (across, down)])
    points -= points.mean((1, 2), keepdims=True)
    drift = Warp((_SIDE, _SIDE), np.zeros(10), points)
    drift = Warp((_SIDE, _SIDE), np.zeros(10), points * 8.0 / drift.as_dict()["largest_px"])
    return {"lens": lens, "drift": drift, "flow": random_warp((_SIDE, _SIDE), 8.0, rng)}


def cases(photons: tuple[float, ...] = (1e3, 1e5), numbers: range = range(3)) -> None:
    """One line a kind of distortion and dose: every case."""
    print("distortion  photons  px rms of each case           folds  kept kinds            CPU s a pair")
    for kind in ("lens", "drift", "flow"):
        for dose in photons:
            errors, folds, kept, spent = [], 0, [], []
            for number in numbers:
                true = kinds(number)[kind]
                pair = make_pair(*pair_of(_OBJECTS[number % len(_OBJECTS)], number, true, _NOISE[dose]))
                found = register(pair)
                errors.append(error_px(pair, found.warp, true))
                folds += int(found.warp.determinant().min() <= 0)
                kept.append([row["stage"] for row in found.stages if row["kept"]][-2:-1])
                spent.append(found.seconds)
            told = " ".join(f"{error:.3f}" for error in errors)
            names = ", ".join(sorted({name for names in kept for name in names}))
            print(
                f"{kind:<11} {dose:7.0e}  {told:<28}  {folds}      {names:<20}  {np.mean(spent):.1f}",
                flush=True,
            )


def noise(numbers: range = range(3)) -> None:
    """Displacement that is found where there is none: of 16 pairs, then of pairs without an object."""
    print("pair                        photons  px rms found          failures named")
    pairs = [(_OBJECTS[k], 20 + k) for k in range(3)] + [(_OBJECTS[n % 5], n) for n in range(225, 230)]
    still = identity((_SIDE, _SIDE))
    for dose in (1e3, 1e5):
        found, moved = [], []
        for name, seed in pairs:
            pair = make_pair(*pair_of(name, seed, still, _NOISE[dose]))
            found.append(register(pair))
            # with the whole pixels by which the pair was placed
            moved.append(error_px(pair, found[-1].warp, still))
        told = " ".join(f"{one:.3f}" for one in moved)
        print(
            f"same object, other noise    {dose:7.0e}  {told:<20}  {[one.score.failures for one in found]}",
            flush=True,
        )
    found = []
    for number in numbers:
        rng = np.random.default_rng([number, 6])
        both = 1 + 0.1 * (
            rng.standard_normal((2, _SIDE, _SIDE)) + 1j * rng.standard_normal((2, _SIDE, _SIDE))
        )
        found.append(register(make_pair(*both)))
    told = " ".join(f"{one.warp.as_dict()['rms_px']:.3f}" for one in found)
    print(
        f"no object                         -  {told:<20}  {[one.score.failures for one in found]}",
        flush=True,
    )


def level(names: tuple[tuple[str, int], ...] = (("two_photographs", 51), ("lines", 52))) -> None:
    """White noise that after a Gaussian of 1 px is as strong as that of a reconstruction."""
    print("object            seed  photons   noise, full coverage  30 to 70 %")
    for dose in _NOISE:
        for name, seed in names:
            chosen = Scenario(object=name, seed=seed, photons=2 * dose, n_positions=484, jitter_px=1.5)
            raw = simulate(chosen).raw
            first = np.random.default_rng([seed, 77]).binomial(raw.diff3d, 0.5).astype(raw.diff3d.dtype)
            made = []
            for counts in (first, raw.diff3d - first):
                half = copy.copy(raw)
                half.diff3d = counts
                made.append(reconstruct(half, epochs=25))
            pair = make_pair(
                made[0].object, made[1].object, fixed_coverage=made[0].coverage,
                moving_coverage=made[1].coverage, origin_xy=(0, 0),
            )  # fmt: skip
            images = [ndimage.gaussian_filter(image, 1.0) for image in (pair.fixed, pair.moving)]
            seen = np.minimum(pair.fixed_weight, pair.moving_weight)
            factor = local_factor(*(torch.from_numpy(v) for v in (*images, seen)), 48).numpy()
            off = np.abs(images[0] - factor * images[1]) ** 2 / 2
            white = np.sqrt(4 * np.pi) / np.abs(pair.fixed).mean()
            told = [np.sqrt(off[k].mean()) * white for k in (seen > 0.95, (seen > 0.3) & (seen < 0.7))]
            print(f"{name:<17} {seed:>4}  {dose:7.0e}   {told[0]:>20.4f}  {told[1]:.4f}", flush=True)


def two_scans(name: str, seed: int) -> tuple[Simulated, Simulated]:
    """A scan, and another one of the same object: other positions, other photons, a third of the dose."""
    chosen = Scenario(
        object=name,
        seed=seed,
        photons=1e5,
        n_positions=484,
        step_px=5.0,
        jitter_px=1.5,
        object_shape=(190, 190),
    )
    return simulate(chosen), simulate(
        replace(chosen, photons=3e4, n_positions=529, step_px=4.8, jitter_px=2.0)
    )


def scans(names: tuple[tuple[str, int], ...] = (("two_photographs", 31), ("lines", 32))) -> None:
    """Positions and image before and after, against what the engine's own search does."""
    print(f"{'object':<17} seed  {'way':<24} positions px rms  inside   cNRMSE  phase SSIM  CPU s")
    for name, seed in names:
        made, other = two_scans(name, seed)
        true = made.raw.positions_px
        errors = drift_and_hysteresis(true, (4.0, 8.0), (-5.0, 0.0), settle=0.8)
        bad = made.raw.moved_to(true + errors)
        print(f"longest error {np.hypot(*errors.T).max():.2f} px")
        trusted = reconstruct(other.raw, epochs=25)
        spent = time.process_time()
        found = positions_by_reference(
            bad, trusted.object, coverage=trusted.coverage, origin_xy=trusted.origin_xy
        )
        spent = time.process_time() - spent
        moved = bad.moved_to(found.positions_px)
        ways = (
            ("true positions", made.raw, {}, 0.0),
            ("as written", bad, {}, 0.0),
            ("own search", bad, {"positions": "free", "position_search_px": 8.0}, 0.0),
            ("reference", moved, {}, spent),
            ("reference, then free", moved, {"positions": "free"}, spent),
        )
        for way, raw, options, before in ways:
            begun = time.process_time()
            result = reconstruct(raw, epochs=40, **options)
            begun = time.process_time() - begun + before
            off = result.positions_xy - true
            off = off - off.mean(0)
            edge = np.minimum(true - true.min(0), true.max(0) - true).min(1)
            rms = [np.sqrt((off[k] ** 2).sum(1).mean()) for k in (edge >= 0, edge >= _BORDER_PX)]
            judged = evaluate(
                result.object,
                made.object_true,
                made.roi,
                origin_xy=result.origin_xy,
                coverage=result.coverage,
            )
            print(
                f"{name:<17} {seed:>4}  {way:<24} {rms[0]:>16.3f}  {rms[1]:>6.3f}"
                f"   {judged.nrmse:>9.4f}"
                f"  {judged.phase_ssim:>9.3f}  {begun:6.1f}",
                flush=True,
            )


def references(
    cases: tuple[tuple[str, int, float], ...] = (
        ("two_photographs", 31, 1.0),
        ("lines", 32, 1.0),
        ("gaussian_random_field", 33, 1.0),
        ("cat_and_coins", 34, 1.0),
        ("gaussian_random_field", 133, 1.0),
        ("two_photographs", 131, 1.0),
        ("two_photographs", 31, 0.0),
    ),
) -> None:
    """Positions before and after the correction by a reference; the third number of a case scales errors."""
    print("object                 seed  before px rms   after  fit kept  model                 CPU s")
    for name, seed, size in cases:
        made, other = two_scans(name, seed)
        true = made.raw.positions_px
        errors = size * drift_and_hysteresis(true, (4.0, 8.0), (-5.0, 0.0), settle=0.8)
        trusted = reconstruct(other.raw, epochs=25)
        spent = time.process_time()
        found = positions_by_reference(
            made.raw.moved_to(true + errors), trusted.object,
            coverage=trusted.coverage, origin_xy=trusted.origin_xy,
        )  # fmt: skip
        spent = time.process_time() - spent
        off = found.positions_px - true
        before, after = (float(np.sqrt(((one - one.mean(0)) ** 2).sum(1).mean())) for one in (errors, off))
        fit = found.fit or {"kept": False, "rounds": []}
        model = fit["rounds"][-1]["model"] if fit["rounds"] else "none"
        print(
            f"{name:<22} {seed:>4}  {before:>13.3f}  {after:>6.3f}  {fit['kept']!s:<8}  {model:<20}"
            f"  {spent:5.1f}",
            flush=True,
        )


def picture(seed: int = 31) -> None:
    """The registration of a drifted scan, and its image before and after correction, as pictures."""
    made, other = two_scans("two_photographs", seed)
    true = made.raw.positions_px
    bad = made.raw.moved_to(true + drift_and_hysteresis(true, (4.0, 8.0), (-5.0, 0.0), settle=0.8))
    trusted, before = reconstruct(other.raw, epochs=25), reconstruct(bad, epochs=40)
    place = before.origin_xy[0] - trusted.origin_xy[0], before.origin_xy[1] - trusted.origin_xy[1]
    pair = make_pair(
        trusted.object, before.object, fixed_coverage=trusted.coverage, moving_coverage=before.coverage,
        origin_xy=place,
    )  # fmt: skip
    found = register(pair)
    names = ("drifted scan", "trusted scan")
    style.save(draw_registration(pair, found.warp, found.start, found.score, names), _IMAGES / "warp.png")
    positions = positions_by_reference(
        bad, trusted.object, coverage=trusted.coverage, origin_xy=trusted.origin_xy
    )
    after = reconstruct(bad.moved_to(positions.positions_px), epochs=40, positions="free")
    figure = style.new_figure(11.4, 4.2)
    for axis, result, name in zip(
        figure.subplots(1, 2), (before, after), ("as written", "corrected"), strict=True
    ):
        judged = evaluate(
            result.object, made.object_true, made.roi, origin_xy=result.origin_xy, coverage=result.coverage
        )
        axis.imshow(np.abs(judged.aligned.recon), cmap=style.AMPLITUDE_MAP, vmin=0.65, vmax=1.05)
        style.dress(axis, f"{name}: cNRMSE {judged.nrmse:.3f}", "x / px", "y / px")
    style.save(figure, _IMAGES / "warp_corrected.png")


def start(numbers: range = range(100, 104)) -> None:
    """The fit with the network's start and without, and the network alone."""
    print(
        "seed  object                 network alone px rms    fit px rms  CPU s    with start px rms  CPU s"
    )
    for number in numbers:
        true = random_warp((_SIDE, _SIDE), 8.0, np.random.default_rng([number, 8]))
        name = _OBJECTS[number % len(_OBJECTS)]
        pair = make_pair(*pair_of(name, number, true, _NOISE[1e5]))
        begun = time.process_time()
        guess = predict_warp(pair)
        begun = time.process_time() - begun
        plain, helped = register(pair), register(pair, start=guess)
        print(
            f"{number:>4}  {name:<22} {error_px(pair, guess, true):>10.3f} ({begun:.2f} s)     "
            f"{error_px(pair, plain.warp, true):>9.3f}  {plain.seconds:>5.1f}  "
            f"{error_px(pair, helped.warp, true):>12.3f}  {helped.seconds:>8.1f}",
            flush=True,
        )


def terms(numbers: range = range(40, 43)) -> None:
    """Terms beside the misfit, one at a time."""
    print("terms beside the misfit    px rms of each case")
    for name, weight in (("none", 0.0), ("ssim", 1.0), ("edges", 0.05), ("orientation", 1.0)):
        errors = []
        for number in numbers:
            true = kinds(number)["flow"]
            pair = make_pair(*pair_of(_OBJECTS[number % len(_OBJECTS)], number, true, _NOISE[1e4]))
            found = register(pair, PairSettings(weights={} if name == "none" else {name: weight}))
            errors.append(error_px(pair, found.warp, true))
        print(f"{name:<12} {weight:<12} " + " ".join(f"{error:.3f}" for error in errors), flush=True)


def main(words: list[str]) -> None:
    """The command of the module docstring."""
    torch.set_num_threads(1)
    print(describe(0), flush=True)
    parts = {
        "level": level, "scans": scans, "references": references, "noise": noise, "cases": cases,
        "start": start, "terms": terms, "picture": picture,
    }  # fmt: skip
    for word in words or parts:
        parts[word]()


if __name__ == "__main__":
    main(sys.argv[1:])

"""The differentiable model on plain arrays at interior points: sums by hand, bright bad pixels, odd sides."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ptycho import physics as oracle
from ptycho.forward import diffraction, fields, losses, merging, penalties, region

RNG = np.random.default_rng


def field(*shape: int, seed: int = 0) -> np.ndarray:
    rng = RNG(seed)
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def test_likelihoods_by_hand_and_without_bad_pixels():
    rng = RNG(0)
    rate = rng.uniform(0.5, 9, (3, 2, 4, 4))
    counts = rng.poisson(rate).astype(float)
    good = np.ones((4, 4), bool)
    good[1:3, 2] = False
    dirty = np.where(good, counts, 1e6)
    r, n = rate[..., good], counts[..., good]
    assert losses.poisson_nll(rate, dirty, good) == pytest.approx((r - n * np.log(r)).mean())
    floor = n - n * np.log(np.maximum(n, 1e-300))
    assert losses.poisson_deviance(rate, dirty, good) == pytest.approx((r - n * np.log(r) - floor).mean())
    read = 2.5
    shifted = (r + read) - (n + read) * np.log(r + read) - ((n + read) - (n + read) * np.log(n + read))
    assert losses.shifted_poisson(rate, dirty, good, read) == pytest.approx(shifted.mean())
    a, b = np.sqrt(r), np.sqrt(n)
    assert losses.amplitude_mae(np.sqrt(rate), np.sqrt(dirty), good) == pytest.approx(np.abs(a - b).mean())
    smooth = np.sqrt((a - b) ** 2 + 0.3**2) - 0.3
    found = losses.amplitude_charbonnier(np.sqrt(rate), np.sqrt(dirty), good, 0.3)
    assert found == pytest.approx(smooth.mean())
    assert fields.masked_mean(rate, np.zeros((4, 4), bool)) == 0


def test_penalties_by_hand():
    z = field(2, 3, 5, 6)
    rows, columns = np.diff(z, axis=-2)[..., :-1], np.diff(z, axis=-1)[..., :-1, :]
    tv = np.sqrt(np.abs(rows) ** 2 + np.abs(columns) ** 2).mean()
    assert losses.total_variation(z) == pytest.approx(tv)
    curved = (np.abs(np.diff(z, n=2, axis=-2)) ** 2).mean() + (np.abs(np.diff(z, n=2, axis=-1)) ** 2).mean()
    assert penalties.smoothness(z) == pytest.approx(curved)
    weight, other = RNG(1).uniform(size=(5, 6)), field(2, 3, 5, 6, seed=2)

    def mean(values: np.ndarray) -> float:
        return float((values * weight).sum() / (weight.sum() * 6))

    assert penalties.overlap_consistency(z, other, weight) == pytest.approx(mean(np.abs(z - other) ** 2))
    assert losses.realspace_mae(z, other, weight) == pytest.approx(mean(np.abs(z - other)))
    turned = np.abs(np.angle(z * other.conj())) / math.pi
    assert losses.supervised(z, other, weight) == pytest.approx(
        mean(np.abs(np.abs(z) - np.abs(other)) + turned)
    )
    probe, inside = field(2, 6, 6), RNG(3).uniform(size=(6, 6))
    lit = np.abs(probe) ** 2
    assert penalties.probe_power(probe, 50.0) == pytest.approx((lit.sum() / 50 - 1) ** 2)
    assert penalties.probe_support(probe, inside) == pytest.approx((lit * (1 - inside)).sum() / lit.sum())


def test_diffraction_is_the_oracles():
    patches, probe = field(2, 3, 8, 8), field(2, 8, 8, seed=1)
    intensity = diffraction.diffract(patches, probe)
    assert intensity == pytest.approx(oracle.diffract(patches, probe))
    assert diffraction.rate(intensity, 3.0) == pytest.approx(9 * intensity + 1e-6)
    assert diffraction.amplitude(np.array([4.0])) == pytest.approx([2.0])


@pytest.mark.parametrize("kind", ["central", "probe", "uniform"])
def test_group_views_are_the_oracles_under_each_window(kind):
    """Positions far from the origin and sub-pixel; the window relative to its largest value."""
    light = RNG(1).uniform(0.1, 7, (8, 8))
    window = {"central": oracle.central_window(8), "uniform": np.ones((8, 8)), "probe": light / light.max()}[
        kind
    ]
    patches = field(3, 4, 8, 8)
    places = 300 + RNG(2).uniform(-3, 3, (3, 4, 2))
    made = merging.group_views(patches, places, kind, light)
    for group in range(3):
        relative = places[group] - places[group].mean(0)
        canvas = oracle.merge(patches[group], relative, window)
        assert made[group] == pytest.approx(oracle.extract_group(canvas, relative, 8), abs=1e-9)
    assert merging.group_views(patches[:, :1], places[:, :1], kind, light) is not None


def test_one_patch_a_group_is_looked_at_from_every_position():
    patch, relative = field(1, 1, 8, 8), np.array([[[1.5, 0.0], [-1.5, 0.5], [0.0, -0.5]]])
    made = merging.merge_and_extract(patch, relative, np.ones((8, 8)))
    for k, r in enumerate(relative[0]):
        assert made[0, k] == pytest.approx(oracle.shift_bilinear(patch[0, 0], -r))


def test_region_views_are_the_weighted_mean_of_every_patch_there():
    """One canvas for all groups, the window by its own largest value, positions far from the origin."""
    window = RNG(1).uniform(0.5, 7, (8, 8))
    places = 1000 + RNG(2).uniform(0, 9, (3, 2, 2))
    patches = field(3, 2, 8, 8)
    weight = window / window.max() + oracle.MERGE_EPSILON
    side, origin = 32, 990.0
    total, light = np.zeros((side, side), complex), np.zeros((side, side))
    flat, at = patches.reshape(-1, 8, 8), places.reshape(-1, 2) - origin
    for patch, place in zip(flat, at, strict=True):
        moved = [
            oracle.shift_bilinear(oracle.pad_centre(values + 0j, side), place - side // 2)
            for values in (weight * patch, weight)
        ]
        total, light = total + moved[0], light + moved[1].real
    canvas = np.where(light > 0, total / np.where(light > 0, light, 1), 0)
    made = region.region_views(patches, places, places, window).reshape(-1, 8, 8)
    wanted = oracle.extract(canvas, at[:, 0], at[:, 1], 8)
    assert np.abs(made - wanted).max() < 1e-9
    shared = region.block_views(patches[:, :1], places, window)
    assert shared.shape == (3, 2, 8, 8)
    centre = region.region_views(patches[:, :1], places.mean(1, keepdims=True), places, window)
    assert shared == pytest.approx(centre)

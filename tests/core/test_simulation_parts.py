"""Objects, probes, scans and the detector: each against its own definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptycho.errors import ConfigError
from ptycho.simulation import OBJECTS, PROBES, SCANS, get_object, get_probe, get_scan
from ptycho.simulation.detector import count_photons, dead_pixels
from ptycho.simulation.probes import with_modes


@pytest.mark.parametrize("name", sorted(OBJECTS))
@pytest.mark.parametrize("shape", [(96, 96), (70, 121)])
def test_objects_have_the_asked_shape_range_and_repeat(name: str, shape: tuple[int, int]) -> None:
    obj = get_object(name)(shape, seed=3, amp_range=(0.6, 0.9), phase_range_rad=(-0.5, 0.8))
    assert obj.shape == shape and obj.dtype == np.complex64
    assert np.abs(obj).min() >= 0.6 - 1e-5 and np.abs(obj).max() <= 0.9 + 1e-5
    assert np.angle(obj).min() >= -0.5 - 1e-5 and np.angle(obj).max() <= 0.8 + 1e-5
    if name != "flat":
        assert np.ptp(np.abs(obj)) > 0.2 and np.ptp(np.angle(obj)) > 0.8
    again = get_object(name)(shape, seed=3, amp_range=(0.6, 0.9), phase_range_rad=(-0.5, 0.8))
    assert obj.tobytes() == again.tobytes()


@pytest.mark.parametrize("name", ["lines", "gaussian_random_field", "siemens_star", "two_photographs"])
def test_another_seed_is_another_object(name: str) -> None:
    a, b = (OBJECTS[name]((80, 80), seed=seed) for seed in (1, 4))
    assert np.linalg.norm(a - b) > 0.05 * np.linalg.norm(a)


def test_the_photographs_are_the_object_of_the_bench(shared_dir: Path) -> None:
    with np.load(shared_dir / "bench" / "scan_subpixel.npz") as scan:
        truth = scan["object_true"]
    np.testing.assert_allclose(OBJECTS["two_photographs"](truth.shape, seed=0), truth, atol=2e-3)


def test_the_zone_plate_is_the_probe_of_the_bench(shared_dir: Path) -> None:
    with np.load(shared_dir / "bench" / "scan_subpixel.npz") as scan:
        truth = scan["probe_true"]
    np.testing.assert_allclose(PROBES["zone_plate"](64, photons=1e5), truth, atol=1e-3 * np.abs(truth).max())


def test_the_global_random_state_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    for make in OBJECTS.values():
        make((48, 48), seed=5)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize(
    "getter, wrong, nearest",
    [
        (get_object, "siemens", "siemens_star"),
        (get_probe, "zoneplate", "zone_plate"),
        (get_scan, "fermatt", "fermat"),
    ],
)
def test_an_unknown_name_gets_the_nearest(getter, wrong: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=nearest) as caught:
        getter(wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(PROBES))
@pytest.mark.parametrize("N", [32, 64, 128])
def test_probes_hold_the_asked_photons_and_sit_in_the_middle(name: str, N: int) -> None:
    probe = PROBES[name](N, photons=1234.0)
    assert probe.shape == (N, N) and probe.dtype == np.complex64
    power = np.abs(probe.astype(complex)) ** 2
    assert power.sum() == pytest.approx(1234.0, rel=1e-5)
    rows, columns = np.indices((N, N))
    assert (power * rows).sum() / power.sum() == pytest.approx(N // 2, abs=0.1)
    assert (power * columns).sum() / power.sum() == pytest.approx(N // 2, abs=0.1)
    edge = power[[0, -1]].sum() + power[:, [0, -1]].sum()
    assert edge < 1e-2 * power.sum()


def test_modes_are_orthogonal_and_share_the_power() -> None:
    probe = PROBES["zone_plate"](64, photons=500.0)
    modes = with_modes(probe, 4, decay=0.5).astype(complex).reshape(4, -1)
    gram = modes.conj() @ modes.T
    power = gram.diagonal().real
    assert power.sum() == pytest.approx(500.0, rel=1e-5)
    np.testing.assert_allclose(power[1:] / power[:-1], 0.5, rtol=1e-4)
    assert np.abs(gram - np.diag(gram.diagonal())).max() < 1e-4 * power.max()
    assert with_modes(probe, 1, decay=0.5).shape == (1, 64, 64)


@pytest.mark.parametrize("name", sorted(SCANS))
@pytest.mark.parametrize("n, aspect", [(100, 1.0), (97, 1.0), (120, 2.0), (1, 1.0)])
def test_scans_have_every_position_at_the_asked_density(name: str, n: int, aspect: float) -> None:
    positions = SCANS[name](n, step_px=5.0, aspect=aspect, jitter_px=1.0, seed=2)
    assert positions.shape == (n, 2) and positions.dtype == np.float64
    assert len(np.unique(positions, axis=0)) == n
    if n > 1:
        width, height = np.ptp(positions, axis=0)
        assert width / height == pytest.approx(aspect, rel=0.35)
        assert np.sqrt(width * height / n) == pytest.approx(5.0, rel=0.25)


def test_the_raster_steps_along_x_first() -> None:
    positions = SCANS["raster"](6, step_px=4.0, aspect=1.5)
    np.testing.assert_array_equal(positions - positions[0], [[0, 0], [4, 0], [8, 0], [0, 4], [4, 4], [8, 4]])


def test_counts_follow_poisson() -> None:
    counts = count_photons(np.full((400, 400), 7.0), np.random.default_rng(0))
    assert counts.dtype == np.int32
    assert counts.mean() == pytest.approx(7.0, rel=0.01) and counts.var() == pytest.approx(7.0, rel=0.02)


def test_dead_pixels_are_the_asked_share() -> None:
    mask = dead_pixels(64, 0.05, seed=1)
    assert mask.dtype == bool and mask.sum() == round(0.05 * 64 * 64)
    assert np.array_equal(mask, dead_pixels(64, 0.05, seed=1))
    assert not dead_pixels(64, 0.0, seed=1).any()

"""The simulated scan: geometry, intensity, photons, determinism, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptycho.errors import ConfigError, InputError
from ptycho.scan.raw_data import RawData
from ptycho.simulation import Scenario, diffract_scan, read_truth, simulate

SMALL = dict(N=32, n_positions=25, step_px=3.0, photons=1e4)


def test_the_simulated_scan_fits_its_object() -> None:
    made = simulate(Scenario(**SMALL, seed=4))
    raw, (height, width) = made.raw, made.object_true.shape
    assert (
        raw.diff3d.shape == (25, 32, 32) and raw.diff3d.dtype == np.int32 and raw.diffraction_unit == "counts"
    )
    assert raw.xcoords.min() >= 16 and raw.xcoords.max() <= width - 16
    assert raw.ycoords.min() >= 16 and raw.ycoords.max() <= height - 16
    y0, y1, x0, x1 = made.roi
    assert 0 < y0 < y1 < height and 0 < x0 < x1 < width
    assert made.probe_true.shape == (1, 32, 32)
    assert raw.diff3d.max() < 2**16


def test_the_same_seed_gives_the_same_bytes_and_another_does_not() -> None:
    a, b, c = (simulate(Scenario(**SMALL, seed=seed)) for seed in (7, 7, 8))
    assert a.raw.diff3d.tobytes() == b.raw.diff3d.tobytes()
    assert a.raw.xcoords.tobytes() == b.raw.xcoords.tobytes()
    assert a.raw.diff3d.tobytes() != c.raw.diff3d.tobytes()


def test_patterns_of_a_flat_object_are_those_of_the_probe() -> None:
    made = simulate(Scenario(**{**SMALL, "photons": 1e9}, object="flat", amp_range=(1.0, 1.0)))
    expected = np.abs(np.fft.fftshift(np.fft.fft2(made.probe_true[0], norm="ortho"))) ** 2
    bright = expected > 1e4
    assert bright.sum() > 50
    np.testing.assert_allclose(made.raw.diff3d.mean(0)[bright], expected[bright], rtol=0.02)
    assert made.raw.diff3d.sum((1, 2)).mean() == pytest.approx(1e9, rel=1e-3)


def test_a_delta_lands_where_the_position_says() -> None:
    """One bright object pixel lets through the probe pixel on it, whose power tells which one it was."""
    rng = np.random.default_rng(0)
    obj = np.zeros((60, 70), complex)
    obj[23, 41] = 1.0
    probe = (rng.random((1, 32, 32)) + 0.5).astype(complex)
    for x, y in [(41, 23), (45, 20), (36, 30)]:
        (wave,) = diffract_scan(obj, probe, np.array([[x, y]], float))
        row, column = 23 - (y - 16), 41 - (x - 16)
        assert wave.sum() == pytest.approx(abs(probe[0, row, column]) ** 2, rel=1e-6)


def test_sub_pixel_positions_move_the_probe_exactly() -> None:
    """Moving position and band-limited object together by the same fraction leaves the pattern alone."""
    from ptycho.physics import shift_fourier

    rng = np.random.default_rng(1)
    size, N = 64, 32
    low = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size))) < 0.1
    obj = np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) * low) + 1
    y, x = np.indices((N, N)) - N // 2
    probe = np.exp(-(x**2 + y**2) / (2 * 2.5**2)).astype(complex)[None]
    base = diffract_scan(obj, probe, np.array([[32.0, 30.0]]))
    moved = diffract_scan(shift_fourier(obj, (0.3, -0.4)), probe, np.array([[32.3, 29.6]]))
    np.testing.assert_allclose(moved, base, atol=1e-6 * base.max())


def test_modes_add_as_intensities() -> None:
    made = simulate(Scenario(**SMALL, n_modes=3))
    assert made.probe_true.shape == (3, 32, 32) and made.raw.probe_modes.shape == (3, 32, 32)
    positions = made.raw.positions_px
    whole = diffract_scan(made.object_true, made.probe_true, positions)
    parts = sum(diffract_scan(made.object_true, mode[None], positions) for mode in made.probe_true)
    np.testing.assert_allclose(whole, parts, rtol=1e-6)


def test_the_guess_is_wrong_by_the_asked_amount_and_scaled_to_the_counts() -> None:
    right, wrong = (simulate(Scenario(**SMALL, probe_error=error)) for error in (0.0, 0.25))
    for made in (right, wrong):
        power = np.sum(np.abs(made.raw.probe_modes) ** 2)
        assert power == pytest.approx(made.raw.diff3d.sum((1, 2)).mean(), rel=1e-4)

    def error(made) -> float:
        guess, true = made.raw.probe_modes[0].ravel(), made.probe_true[0].ravel()
        return float(1 - abs(np.vdot(guess, true)) / np.linalg.norm(guess) / np.linalg.norm(true))

    assert error(right) < 1e-5 < 0.01 < error(wrong)


def test_dead_pixels_count_nothing_and_are_marked() -> None:
    made = simulate(Scenario(**SMALL, dead_fraction=0.03))
    assert made.raw.bad_pixels is not None and made.raw.bad_pixels.sum() == round(0.03 * 32 * 32)
    assert made.raw.diff3d[:, made.raw.bad_pixels].sum() == 0


@pytest.mark.parametrize("scan", ["raster", "jittered", "fermat", "concentric"])
def test_rectangular_scans_make_rectangular_objects(scan: str) -> None:
    made = simulate(Scenario(**{**SMALL, "n_positions": 60}, scan=scan, aspect=2.0))
    height, width = made.object_true.shape
    assert width > height + 8


def test_the_file_gives_scan_and_truth_back(tmp_path: Path) -> None:
    made = simulate(Scenario(**SMALL, n_modes=2, dead_fraction=0.01))
    made.to_npz(tmp_path / "scan.npz")
    raw, truth = RawData.from_file(tmp_path / "scan.npz"), read_truth(tmp_path / "scan.npz")
    np.testing.assert_array_equal(raw.diff3d, made.raw.diff3d)
    np.testing.assert_array_equal(truth.object_true, made.object_true)
    np.testing.assert_array_equal(truth.probe_true, made.probe_true)
    assert truth.roi == made.roi


def test_a_file_without_truth_says_so(tmp_path: Path) -> None:
    simulate(Scenario(**SMALL)).raw.to_file(tmp_path / "scan.npz")
    with pytest.raises(InputError, match="object_true"):
        read_truth(tmp_path / "scan.npz")


def test_progress_reaches_the_end() -> None:
    seen: list[tuple[int, int]] = []
    simulate(Scenario(**SMALL), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (25, 25)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(object="star"), "siemens_star"),
        (dict(probe="disc"), "disk"),
        (dict(scan="spiral"), "fermat"),
        (dict(N=33), "N"),
        (dict(N=16), "N"),
        (dict(n_positions=0), "n_positions"),
        (dict(step_px=0.0), "step_px"),
        (dict(jitter_px=-1.0), "jitter_px"),
        (dict(photons=0.0), "photons"),
        (dict(photons=float("nan")), "photons"),
        (dict(photons=1e11), "photons"),
        (dict(n_modes=0), "n_modes"),
        (dict(n_modes=40), "n_modes"),
        (dict(dead_fraction=1.0), "dead_fraction"),
        (dict(probe_error=-2.0), "probe_error"),
        (dict(seed=-1), "seed"),
        (dict(aspect=0.0), "aspect"),
        (dict(object_shape=(40, 40)), "object_shape"),
        (dict(amp_range=(0.9, 0.2)), "amp_range"),
        (dict(phase_range_rad=(1.0, float("inf"))), "phase_range_rad"),
        (dict(n_positions=2.5), "n_positions"),
        (dict(mode_decay=0.0), "mode_decay"),
    ],
)
def test_a_bad_field_is_refused_by_name_in_one_line(change: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        simulate(Scenario(**{**SMALL, **change}))
    assert "\n" not in str(caught.value)

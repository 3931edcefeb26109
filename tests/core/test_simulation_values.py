"""Simulated scans: each setting changes what it should, and formulas hold at interior points."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from ptycho.physics import shift_fourier
from ptycho.simulation import Scenario, diffract_scan, get_object, get_probe, get_scan, simulate, with_modes
from ptycho.simulation.detector import dead_pixels
from ptycho.simulation.scans import concentric, fermat, jittered, raster

SMALL = Scenario(N=32, n_positions=20, step_px=3.0, photons=1e4, object="gaussian_random_field")


def changed(**settings):
    return simulate(dataclasses.replace(SMALL, **settings))


def test_every_seed_makes_scan_object_and_counts_anew():
    made = [changed(seed=seed) for seed in (0, 1, 0)]
    assert (made[0].raw.diff3d == made[2].raw.diff3d).all()
    assert (made[0].raw.xcoords != made[1].raw.xcoords).any()
    assert (made[0].object_true[:30, :30] != made[1].object_true[:30, :30]).any()
    still = [changed(seed=seed, jitter_px=0.0, object="flat", scan="raster") for seed in (0, 1)]
    assert (still[0].raw.xcoords == still[1].raw.xcoords).all()
    assert (still[0].raw.diff3d != still[1].raw.diff3d).any()  # the photons alone


def test_guess_differs_from_the_truth_by_defocus_and_aperture():
    exact, wrong = changed(probe_error=0.0), changed(probe_error=0.5)
    make = get_probe(SMALL.probe)
    photons = float(wrong.raw.diff3d.sum()) / SMALL.n_positions
    wanted = make(32, photons, aperture_factor=1 - 2 / 11 * 0.5, defocus_factor=1.5)
    assert wrong.raw.probeGuess == pytest.approx(wanted, abs=1e-4)
    assert wrong.probe_true == pytest.approx(with_modes(make(32, 1e4), 1), abs=1e-4)
    aligned = exact.raw.probeGuess / np.linalg.norm(exact.raw.probeGuess)
    true = exact.probe_true[0] / np.linalg.norm(exact.probe_true[0])
    assert abs(np.vdot(aligned, true)) == pytest.approx(1.0, abs=1e-5)


def test_modes_of_the_guess_decay_as_the_truth():
    made = changed(n_modes=3, mode_decay=0.5)
    for modes in (made.raw.probeGuess, made.probe_true):
        power = (np.abs(modes) ** 2).sum((1, 2))
        assert power / power[0] == pytest.approx([1, 0.5, 0.25], rel=1e-4)


def test_dead_pixels_count_nothing_and_are_told():
    made = changed(dead_fraction=0.05)
    bad = made.raw.bad_pixels
    assert bad.sum() == round(0.05 * 32 * 32) and not made.raw.diff3d[:, bad].any()
    assert made.raw.diff3d[:, ~bad].any()
    assert dead_pixels(32, 0.1).sum() == 102
    assert (dead_pixels(32, 0.1, seed=0) != dead_pixels(32, 0.1, seed=1)).any()


def test_geometry_margin_and_box():
    made = changed(aspect=2.0, n_positions=40)
    x, y = made.raw.xcoords, made.raw.ycoords
    assert (x.min(), y.min()) == (16 + 4, 16 + 4)
    assert made.roi == (math.ceil(y.min()), math.floor(y.max()), math.ceil(x.min()), math.floor(x.max()))
    height, width = made.object_true.shape
    assert (
        width - x.max() >= 16 + 4 - 1
        and width > height
        and made.object_true.shape == made.raw.objectGuess.shape
    )


def test_scans_by_their_formulas():
    assert raster(12, 2.0, aspect=3.0)[:, 0].max() == 2.0 * 5  # two rows of six
    assert raster(12, 2.0)[-1].tolist() == [2.0 * 3, 2.0 * 2]  # three rows of four
    jitter = jittered(2000, 5.0, jitter_px=1.5, seed=0) - raster(2000, 5.0)
    assert 1.45 < jitter.max() <= 1.5 and -1.5 <= jitter.min() < -1.45
    assert (jittered(9, 5.0, jitter_px=1.0, seed=0) != jittered(9, 5.0, jitter_px=1.0, seed=1)).any()
    spiral = fermat(40, 3.0, aspect=4.0)
    index, turn = 17.5, math.pi * (3 - math.sqrt(5))
    radius = 3.0 * math.sqrt(index / math.pi)
    assert spiral[17] == pytest.approx(
        [2 * radius * math.cos(index * turn), 0.5 * radius * math.sin(index * turn)]
    )
    rings = np.hypot(*concentric(1 + 6 + 13 + 19, 2.0).T)
    assert np.bincount(np.round(rings / 2.0).astype(int)).tolist() == [1, 6, 13, 19]
    assert np.unique(np.round(rings, 9)).tolist() == [0.0, 2.0, 4.0, 6.0]


def test_probes_by_their_formulas():
    N = 48
    r = np.hypot(*np.meshgrid(np.arange(N) - N // 2, np.arange(N) - N // 2))
    for aperture, defocus in ((1.0, 1.0), (0.8, 1.7)):
        settings = {"photons": 500.0, "aperture_factor": aperture, "defocus_factor": defocus}
        disk = np.exp(2j * defocus * (r / 8) ** 2) / (1 + np.exp(np.clip((r - 8 * aperture) / 0.5, -50, 50)))
        gauss = np.exp((1j * defocus - 0.5 / aperture**2) * (r / 4.8) ** 2)
        for name, wave in (("disk", disk), ("gaussian", gauss)):
            made = get_probe(name)(N, **settings)
            assert (np.abs(made) ** 2).sum() == pytest.approx(500.0, rel=1e-5)
            wanted = wave * math.sqrt(500 / (np.abs(wave) ** 2).sum())
            assert np.abs(made - wanted).max() < 1e-5 * np.abs(wanted).max()
    plate = np.fft.fft2(np.fft.ifftshift(get_probe("zone_plate")(64)))
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(64) * 64, np.fft.fftfreq(64) * 64))
    light = np.abs(plate) / np.abs(plate).max()
    assert light[k < 1].max() < 0.02 and light[(k > 5) & (k < 9)].min() > 0.9 and light[k > 13].max() < 0.02


def test_modes_are_orthogonal_and_keep_the_power():
    probe = get_probe("zone_plate")(32, 1000.0)
    modes = with_modes(probe, 4, 0.4).reshape(4, -1).astype(np.complex128)
    gram = modes @ modes.conj().T
    power = gram.diagonal().real
    assert np.abs(gram - np.diag(power)).max() < 1e-3 * power.max()
    assert power.sum() == pytest.approx(1000.0, rel=1e-4)
    assert power[1:] / power[:-1] == pytest.approx([0.4] * 3, rel=1e-4)


def test_objects_keep_to_their_ranges():
    for name in ("lines", "gaussian_random_field", "siemens_star", "cat_and_coins"):
        made = get_object(name)((60, 60), 0, (0.2, 0.6), (-0.5, 0.75))
        assert (np.abs(made).min(), np.abs(made).max()) == pytest.approx((0.2, 0.6), abs=1e-5)
        assert (np.angle(made).min(), np.angle(made).max()) == pytest.approx((-0.5, 0.75), abs=1e-5)
    flat = get_object("flat")((4, 5), 0, (0.2, 0.6), (-0.5, 0.75))
    assert flat == pytest.approx(np.full((4, 5), 0.6 * np.exp(-0.5j)))


def test_star_has_thirty_six_spokes_and_the_field_its_slope():
    star = np.abs(get_object("siemens_star")((301, 301), 0, (0.0, 1.0)))
    angle = np.linspace(0, 2 * np.pi, 3000, endpoint=False)
    for radius in (0.40 * 0.48 * 301, 0.63 * 0.48 * 301):
        ring = star[
            np.round(150 + radius * np.sin(angle)).astype(int),
            np.round(150 + radius * np.cos(angle)).astype(int),
        ]
        assert np.argmax(np.abs(np.fft.rfft(ring - ring.mean()))) == 36
    phase = np.mean(
        [
            np.abs(
                np.fft.fft2(np.angle(get_object("gaussian_random_field")((128, 128), seed, (1, 1), (-1, 1))))
            )
            ** 2
            for seed in range(6)
        ],
        axis=0,
    )
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128))) * 128
    rings = [np.log(phase[np.round(k) == ring].mean()) for ring in range(3, 50)]
    slope = np.polyfit(np.log(np.arange(3, 50)), rings, 1)[0]
    assert slope == pytest.approx(-3.0, abs=0.07)  # power is amplitude squared


def test_intensity_at_sub_pixel_positions():
    """The probe moved by the fraction on the window at the rounded position."""
    rng = np.random.default_rng(0)
    obj = rng.standard_normal((40, 44)) + 1j * rng.standard_normal((40, 44))
    probe = rng.standard_normal((2, 16, 16)) + 0j
    place = np.array([[20.3, 17.8]])
    window = obj[18 - 8 : 18 + 8, 20 - 8 : 20 + 8]
    waves = [np.fft.fft2(shift_fourier(mode, (0.3, -0.2)) * window) / 16 for mode in probe]
    wanted = np.fft.fftshift(sum(np.abs(wave) ** 2 for wave in waves))
    assert diffract_scan(obj, probe, place)[0] == pytest.approx(wanted)
    many = diffract_scan(obj, probe, np.repeat(place, 67, 0))
    assert len(many) == 67 and many[-1] == pytest.approx(wanted)


def test_names_of_scans_are_known():
    assert get_scan("raster") is raster

"""The gauges: what they fix, and that nothing but the values of the data enters them."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from ptycho.errors import DataError
from ptycho.scan.normalization import (
    DEFAULT_NPHOTONS,
    intensity_scale,
    normalize_probe,
    photons_from_amplitude,
    photons_from_data,
    x_scale,
)


def test_x_scale_gives_the_mean_pattern_its_power(make_scan):
    X = make_scan().amplitude()
    x = X.astype(float) * x_scale(X)
    assert np.mean(np.sum(x**2, axis=(1, 2))) == pytest.approx(16**2, rel=1e-9)


def test_the_two_gauges_meet_in_counts(make_scan):
    """(s x)^2 are the measured counts when nphotons is taken from the data."""
    raw = make_scan()
    s = intensity_scale(photons_from_data(raw), raw.N)
    np.testing.assert_allclose((s * raw.amplitude() * x_scale(raw.amplitude())) ** 2, raw.diff3d, rtol=1e-5)


def test_normalisation_does_not_depend_on_dtype_or_layout(make_scan, scan_arrays):
    counts = scan_arrays["diff3d"]
    scales = set()
    for dtype in ("uint16", "int32", "float64", "float32"):
        for order in ("C", "F"):
            array = np.asarray(counts.astype(dtype), order=order)
            scales.add(x_scale(make_scan(diff3d=array, diffraction_unit="counts").amplitude()))
    scales.add(x_scale(make_scan(diff3d=np.moveaxis(counts, 0, -1)).amplitude()))
    assert len(scales) == 1


def test_x_scale_does_not_depend_on_the_chunk(monkeypatch, make_scan):
    X = make_scan().amplitude()
    whole = x_scale(X)
    monkeypatch.setattr("ptycho.scan.normalization._CHUNK_BYTES", 1)
    assert x_scale(X) == whole


@pytest.mark.parametrize("c", [2, 7, 1000])
def test_more_counts_change_x_by_nothing(make_scan, scan_arrays, c):
    one = make_scan().amplitude()
    many = make_scan(diff3d=scan_arrays["diff3d"].astype(np.int64) * c).amplitude()
    np.testing.assert_allclose(many * x_scale(many), one * x_scale(one), rtol=1e-6)


@pytest.mark.parametrize("a", [1e-6, 0.3, 1e8])
def test_a_stronger_probe_guess_changes_nothing(scan_arrays, a):
    modes = np.stack([scan_arrays["probeGuess"], 0.3 * scan_arrays["probeGuess"][::-1]]).astype(np.complex128)
    one, factor = normalize_probe(modes, 4.0)
    other, other_factor = normalize_probe(a * modes, 4.0)
    np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-9)
    assert other_factor * a == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize("probe_scale", [1.0, 4.0])
def test_probe_power_and_restoration(scan_arrays, probe_scale):
    modes = scan_arrays["probeGuess"][None]
    probe, factor = normalize_probe(modes, probe_scale)
    assert probe.dtype == np.complex64
    assert np.sum(np.abs(probe.astype(complex)) ** 2) == pytest.approx(
        16**2 * (probe_scale / 2) ** 2, rel=1e-6
    )
    np.testing.assert_allclose(probe / factor, modes, rtol=1e-5)


def test_half_amplitude_object_explains_the_mean_pattern(scan_arrays):
    """The reason for the gauge at probe_scale 4: Parseval of 0.5 * probe is the power of the mean pattern
    x."""
    probe, _ = normalize_probe(scan_arrays["probeGuess"][None], 4.0)
    assert np.sum(np.abs(0.5 * probe.astype(complex)) ** 2) == pytest.approx(16**2, rel=1e-6)


def test_bad_pixels_are_left_out(make_scan, scan_arrays):
    hot = scan_arrays["diff3d"].copy()
    hot[:, 3, 4] = 60000
    bad = np.zeros((32, 32), bool)
    bad[3, 4] = True
    clean = scan_arrays["diff3d"].copy()
    clean[:, 3, 4] = 0
    raw = make_scan(diff3d=hot, bad_pixels=bad)
    assert x_scale(raw.amplitude(), bad) == x_scale(make_scan(diff3d=clean).amplitude())
    assert photons_from_data(raw) == pytest.approx(np.mean(clean.sum((1, 2))), rel=1e-6)


def test_photons_of_counts_and_of_their_float32_roots(make_scan, scan_arrays, caplog):
    expected = scan_arrays["diff3d"].sum((1, 2)).mean()
    assert photons_from_data(make_scan()) == pytest.approx(expected, rel=1e-6)
    assert caplog.text == ""
    roots = np.sqrt(scan_arrays["diff3d"]).astype(np.float32)
    with caplog.at_level(logging.INFO, logger="ptycho.scan.normalization"):
        assert photons_from_data(make_scan(diff3d=roots)) == pytest.approx(expected, rel=1e-6)
    assert "whole numbers" in caplog.text


@pytest.mark.parametrize("factor", [0.37, 1e-4, 31.7])
def test_photons_of_arbitrary_amplitude_are_assumed_aloud(scan_arrays, caplog, factor):
    roots = (factor * np.sqrt(scan_arrays["diff3d"])).astype(np.float32)
    assert photons_from_amplitude(roots, "amplitude") == DEFAULT_NPHOTONS
    assert caplog.records[0].levelno == logging.WARNING and "nphotons" in caplog.text


def test_measured_amplitude_tells_its_dose(shared_dir):
    """The Siemens star's file holds float32 roots of integer counts, about 4.6e5 a pattern."""
    with np.load(shared_dir / "data" / "siemens_star_velociprobe.npz") as archive:
        assert photons_from_amplitude(archive["diff3d"][:100], "amplitude") == pytest.approx(4.6e5, rel=0.05)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: x_scale(np.zeros((2, 32, 32))), "every diffraction pattern is zero"),
        (lambda: x_scale(np.zeros((0, 32, 32))), r"expected \(M,N,N\)"),
        (lambda: intensity_scale(0.0, 64), "nphotons is 0.0"),
        (lambda: intensity_scale(float("nan"), 64), "nphotons is nan"),
        (lambda: normalize_probe(np.zeros((1, 32, 32)), 4.0), "zero or not finite"),
        (lambda: normalize_probe(np.ones((32, 32)), 4.0), r"\(P,N,N\)"),
        (lambda: normalize_probe(np.ones((1, 32, 32)), 0.0), "probe_scale is 0.0"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(DataError, match=message):
        call()


@pytest.mark.parametrize("unit", ["counts", "amplitude"])
def test_bad_pixels_do_not_count_as_photons_whatever_they_hold(scan_arrays, unit):
    bad = np.zeros((32, 32), bool)
    bad[4, 5] = True
    amplitude = np.sqrt(scan_arrays["diff3d"]).astype(np.float32)
    amplitude[:, 4, 5] = 300
    wanted = np.where(bad, 0, amplitude.astype(float) ** 2).sum((1, 2)).mean()
    assert photons_from_amplitude(amplitude, unit, bad) == pytest.approx(wanted, rel=1e-6)

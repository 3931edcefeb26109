"""What `ptycho validate` tells about a scan, and each thing that can be wrong with it."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho.scan.raw_data import RawData
from ptycho.scan.report import describe_scan


def test_a_good_scan_has_no_problems(make_scan, scan_arrays):
    report = describe_scan(make_scan(), "scan.npz")
    assert report.problems == []
    assert (report.unit, report.n_positions, report.N) == ("counts", 30, 32)
    assert "uint16" in report.unit_reason
    sums = scan_arrays["diff3d"].sum((1, 2))
    assert (report.counts_mean, report.counts_min, report.counts_max) == pytest.approx(
        (sums.mean(), sums.min(), sums.max()), rel=1e-5
    )
    assert report.max_count == pytest.approx(scan_arrays["diff3d"].max(), rel=1e-5)
    assert report.extent_px == pytest.approx((np.ptp(scan_arrays["xcoords"]), np.ptp(scan_arrays["ycoords"])))
    assert report.n_modes == 1 and report.n_bad_pixels == 0
    assert report.object_shape == scan_arrays["objectGuess"].shape
    assert str(report.path) == "scan.npz"


def test_step_overlap_and_canvas_of_a_raster(make_scan):
    x, y = (4.0 * grid.ravel() + 40 for grid in np.meshgrid(np.arange(6), np.arange(5)))
    report = describe_scan(make_scan(xcoords=x, ycoords=y))
    assert report.step_px == 4.0
    assert report.overlap == pytest.approx(1 - 4.0 / report.probe_diameter_px)
    assert report.canvas_shape == (32 + 16, 32 + 20)


def amplitude_of(scan_arrays, **changes):
    return {"diff3d": (0.3 * np.sqrt(scan_arrays["diff3d"])).astype(np.float32), **changes}


def with_zero(arrays):
    patterns = arrays["diff3d"].copy()
    patterns[[4, 9]] = 0
    return {"diff3d": patterns}


def equal_positions(arrays):
    x, y = arrays["xcoords"].copy(), arrays["ycoords"].copy()
    x[1], y[1] = x[0], y[0]
    return {"xcoords": x, "ycoords": y}


PROBLEMS = {
    "sparse": (
        lambda a: {"xcoords": 10 * a["xcoords"], "ycoords": 10 * a["ycoords"], "objectGuess": None},
        "overlap",
    ),
    "zero frequency": (lambda a: {"diff3d": np.fft.ifftshift(a["diff3d"], axes=(1, 2))}, "zero frequency"),
    "off centre": (lambda a: {"diff3d": np.roll(a["diff3d"], 6, axis=2)}, "zero frequency"),
    "zero patterns": (with_zero, "2 of 30 patterns are zero"),
    "duplicates": (equal_positions, "1 positions? repeat"),
    "metres": (lambda a: {"xcoords": 1e-7 * a["xcoords"], "ycoords": 1e-7 * a["ycoords"]}, "metres"),
    "under a pixel": (
        lambda a: {"xcoords": 0.01 * a["xcoords"] + 30, "ycoords": 0.01 * a["ycoords"] + 30},
        "less than a pixel",
    ),
    "one place": (
        lambda a: {"xcoords": 0 * a["xcoords"] + 40, "ycoords": 0 * a["ycoords"] + 40},
        "less than a pixel",
    ),
    "probe power": (lambda a: {"probeGuess": 10 * a["probeGuess"]}, "probe power"),
    "outside": (lambda a: {"xcoords": a["xcoords"] + 300}, "outside objectGuess"),
    "counts as amplitude": (lambda a: {"diff3d": a["diff3d"].astype(np.float32)}, "whole numbers"),
    "unknown dose": (amplitude_of, "photon"),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_each_problem_is_told(make_scan, scan_arrays, case):
    change, message = PROBLEMS[case]
    import re

    report = describe_scan(make_scan(**change(scan_arrays)))
    problems = report.problems + report.notes
    assert any(re.search(message, problem) for problem in problems), problems
    assert all("\n" not in problem for problem in problems)


def test_one_position(make_scan):
    report = describe_scan(make_scan(n_positions=1))
    assert report.step_px is None and report.overlap is None


def test_fields_are_plain_numbers(make_scan):
    """So that the report can be written as JSON."""
    import json
    from dataclasses import asdict

    report = asdict(describe_scan(make_scan(bad_pixels=np.eye(32, dtype=bool)), "a.npz"))
    assert json.loads(json.dumps(report))["n_bad_pixels"] == 32


def test_measured_scan(shared_dir):
    path = shared_dir / "data" / "siemens_star_velociprobe.npz"
    report = describe_scan(RawData.from_file(path), path)
    assert (report.unit, report.n_positions, report.N, report.max_count) == (
        "amplitude",
        516,
        128,
        pytest.approx(963),
    )
    assert report.counts_mean == pytest.approx(4.6e5, rel=0.05)
    assert not any("zero frequency" in problem for problem in report.problems)


def test_a_probe_off_centre_is_told_with_its_row_and_its_column(make_scan, scan_arrays):
    moved = np.roll(scan_arrays["probeGuess"], (9, -2), (0, 1))
    found = [text for text in describe_scan(make_scan(probeGuess=moved)).problems if "centred" in text]
    assert len(found) == 1 and "the probe is centred on row 25.0, column 14.0, not on (16, 16)" in found[0]

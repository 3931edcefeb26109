"""`ptycho import` by named places: any HDF5 layout, pairing by number and time, grids, files of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scan_layouts import (
    DETECTOR_M,
    DISTANCE_M,
    PIXEL_M,
    WAVELENGTH_M,
    N,
    cxi,
    imported,
    in_metres,
    npy,
    same_places,
)

from ptycho.cli.main import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def scan(scan_arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    return in_metres(scan_arrays)


def beamline(path: Path, scan: dict[str, Any]) -> Path:
    """A layout of one's own, with everything that can be named; the last position was recorded twice."""
    count = len(scan["diff3d"])
    index = np.array([*range(3, count), count - 1])
    with h5py.File(path, "w") as archive:
        archive["f"] = scan["diff3d"].astype(np.int32) * 2 + 3
        archive["p"] = scan["places_m"][index]
        archive["px"], archive["py"] = scan["places_m"][index].T
        archive["fi"], archive["pi"] = np.arange(count), index
        mask, flat = np.zeros((N, N), int), np.full((N, N), 2.0)
        mask[1, 2], flat[0, 0] = 4, 0.0
        archive["m"], archive["d"], archive["fl"] = mask, np.full((N, N), 3), flat
        archive["pr"], archive["o"] = scan["probeGuess"], scan["objectGuess"]
        archive["e"], archive["w"] = 1.239841984 / (WAVELENGTH_M * 1e9), WAVELENGTH_M
        archive["e"].attrs["units"] = "keV"
        archive["z"], archive["dx"] = DISTANCE_M * 1e3, DETECTOR_M * 1e6
        archive["z"].attrs["units"], archive["dx"].attrs["units"] = "mm", "um"
    return path


def test_every_place_that_can_be_named(scan: dict[str, Any], tmp_path: Path, capsys: Capture) -> None:
    source = beamline(tmp_path / "own.h5", scan)
    words = [
        "path.frames=f", "path.positions_x=px", "path.positions_y=py", "path.frame_index=fi",
        "path.position_index=pi", "path.mask=m", "path.dark=d", "path.flat=fl", "path.probe=pr",
        "path.object=o", "path.distance=z", "path.detector_pixel_size=dx",
    ]  # fmt: skip
    made = imported(source, tmp_path, "--set", *words, "path.energy=e")
    shown = capsys.readouterr().out
    assert "3 of 30 frames have no position" in shown and "1 positions were recorded several times" in shown
    assert "dark frame subtracted" in shown and "divided by the flat field" in shown
    assert made.n_positions == 27 and not made.probe_made
    np.testing.assert_allclose(np.asarray(made.diff3d)[:, 2:], scan["diff3d"][3:, 2:])
    assert np.argwhere(made.bad_pixels).tolist() == [[0, 0], [1, 2]]
    same_places(made.positions_px, {"places_m": scan["places_m"][3:]})
    assert made.object_pixel_size_m == pytest.approx(PIXEL_M, rel=1e-6)
    by_array = [word for word in words if "positions_" not in word] + [
        "path.positions=p",
        "path.wavelength=w",
    ]
    again = imported(source, tmp_path, "--set", *by_array)
    np.testing.assert_allclose(again.positions_px, made.positions_px, atol=1e-4)


def test_frames_are_paired_by_time(scan: dict[str, Any], tmp_path: Path, capsys: Capture) -> None:
    """Positions every 0.1 s, between which frames lie; the stage was not read out in the middle."""
    count = len(scan["diff3d"])
    place_s = np.arange(0, 4, 0.1)
    x, y = 3e-7 * place_s, 1e-7 * place_s
    frame_s = 0.05 + 0.1 * np.arange(count)
    keep = (place_s < 1.0) | (place_s > 1.65)
    with h5py.File(tmp_path / "own.h5", "w") as archive:
        archive["f"], archive["ft"] = scan["diff3d"], frame_s
        archive["x"], archive["y"], archive["pt"] = x[keep], y[keep], place_s[keep]
    words = [
        "path.frames=f", "path.positions_x=x", "path.positions_y=y", "path.frame_time=ft",
        "path.position_time=pt", "object_pixel_size_m=30e-9",
    ]  # fmt: skip
    made = imported(tmp_path / "own.h5", tmp_path, "--set", *words, "max_time_gap_s=0.06")
    assert "frames lie in gaps of the positions: left out" in capsys.readouterr().out
    kept = [t for t in frame_s if np.abs(place_s[keep] - t).min() <= 0.06]
    assert made.n_positions == len(kept) < count
    same_places(made.positions_px, {"places_m": np.stack([3e-7, 1e-7], -1) * np.array(kept)[:, None]})


def test_positions_in_a_table_pair_by_their_number(scan: dict[str, Any], tmp_path: Path) -> None:
    source = npy(tmp_path / "a.h5", scan)
    order = np.random.default_rng(0).permutation(len(scan["diff3d"]))
    um = scan["places_m"] * 1e6
    rows = "".join(f"{i},{float(um[i, 0])!r},{float(um[i, 1])!r}\n" for i in order)
    (tmp_path / "p.csv").write_text("frame,x_um,y_um\n" + rows)
    made = imported(
        source, tmp_path, "--positions", str(tmp_path / "p.csv"), "--set", "object_pixel_size_m=30e-9"
    )
    same_places(made.positions_px, scan)


def test_dark_flat_and_mask_may_be_files_of_their_own(scan: dict[str, Any], tmp_path: Path) -> None:
    source = npy(tmp_path / "a.h5", {**scan, "diff3d": scan["diff3d"].astype(np.int32) + 7})
    mask = np.zeros((N, N), bool)
    mask[4, 5] = True
    np.save(tmp_path / "dark.npy", np.full((N, N), 7))
    np.save(tmp_path / "mask.npy", mask)
    words = ["--positions", str(tmp_path / "places.npy"), "--set", "object_pixel_size_m=30e-9"]
    more = [f"path.{name}={tmp_path / name}.npy" for name in ("dark", "mask")]
    made = imported(source, tmp_path, *words, *more)
    np.testing.assert_array_equal(np.asarray(made.diff3d), scan["diff3d"] * ~mask)
    assert np.argwhere(made.bad_pixels).tolist() == [[4, 5]]


def test_a_grid_of_frames_takes_a_step_or_the_positions_of_its_axes(scan: dict[str, Any], tmp_path: Path):
    frames = scan["diff3d"].reshape(5, 6, N, N)
    rows, columns = np.divmod(np.arange(30), 6)
    with h5py.File(tmp_path / "grid.h5", "w") as archive:
        archive["f"], archive["x"], archive["y"] = frames, np.arange(6) * 9e-8, np.arange(5) * 6e-8
    np.save(tmp_path / "grid.npy", frames)
    step = ["--set", "object_pixel_size_m=30e-9"]
    made = imported(tmp_path / "grid.npy", tmp_path, *step, "scan_step_m=9e-8")
    same_places(made.positions_px, {"places_m": np.stack([columns * 9e-8, rows * 9e-8], 1)})
    named = ["path.frames=f", "path.positions_x=x", "path.positions_y=y"]
    made = imported(tmp_path / "grid.h5", tmp_path, *step, *named)
    same_places(made.positions_px, {"places_m": np.stack([columns * 9e-8, rows * 6e-8], 1)})


def test_a_named_place_wins_over_that_of_the_format(scan: dict[str, Any], tmp_path: Path) -> None:
    source = cxi(tmp_path / "a.cxi", scan)
    with h5py.File(source, "a") as archive:
        archive["mine/frames"] = scan["diff3d"][:, ::-1]
        archive["mine/mask"] = np.eye(N)
    made = imported(source, tmp_path, "--set", "path.frames=mine/frames", "path.mask=mine/mask")
    counted = ~np.eye(N, dtype=bool)
    np.testing.assert_array_equal(np.asarray(made.diff3d), scan["diff3d"][:, ::-1] * counted)
    assert made.bad_pixels is not None and made.bad_pixels.sum() == N
    same_places(made.positions_px, scan)


def test_a_mask_file_is_added_to_the_mask_of_the_source(
    scan: dict[str, Any], tmp_path: Path, capsys: Capture
) -> None:
    source = cxi(tmp_path / "scan.cxi", scan)
    own = imported(source, tmp_path).bad_pixels
    more = np.zeros((N, N), bool)
    more[3, 5] = True
    np.save(tmp_path / "more.npy", more)
    made = imported(source, tmp_path, "--bad_pixels", str(tmp_path / "more.npy")).bad_pixels
    np.testing.assert_array_equal(made, more if own is None else own | more)
    np.save(tmp_path / "small.npy", more[:-1])
    words = [
        "import",
        str(source),
        "-o",
        str(tmp_path / "no.h5"),
        "--bad_pixels",
        str(tmp_path / "small.npy"),
    ]
    assert main(words) == 2
    assert "has shape" in capsys.readouterr().err and not (tmp_path / "no.h5").exists()

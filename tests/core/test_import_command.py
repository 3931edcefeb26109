"""`ptycho import`: every format by its contents, every flag and key, what it shows; and `open_scan`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scan_layouts import (
    DETECTOR_M,
    GEOMETRY,
    LAYOUTS,
    PIXEL_M,
    N,
    cxi,
    eiger,
    flags_of,
    hdf5,
    imported,
    in_metres,
    npy,
    ptylab,
    same_places,
    zarr,
)  # fmt: skip

from ptycho.cli.main import main
from ptycho.errors import DataError, InputError, MissingFileError
from ptycho.io.formats.registry import format_of, formats
from ptycho.io.import_settings import known_settings
from ptycho.scan.opening import open_scan
from ptycho.scan.raw_data import RawData

Capture = pytest.CaptureFixture[str]
EXTRAS = {"tiff": "tifffile", "tiffs": "tifffile", "zarr": "zarr"}


@pytest.fixture
def scan(scan_arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    return in_metres(scan_arrays)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_format_becomes_the_same_scan(name: str, scan: dict[str, Any], tmp_path: Path) -> None:
    if name in EXTRAS:
        pytest.importorskip(EXTRAS[name])
    source = LAYOUTS[name](tmp_path / "scan.h5", scan)
    assert format_of(source).name == name
    words = flags_of(name, tmp_path)
    made = imported(source, tmp_path, *words)
    counted = ~(made.bad_pixels if made.bad_pixels is not None else np.zeros((N, N), bool))
    np.testing.assert_array_equal(np.asarray(made.diff3d) * counted, scan["diff3d"] * counted)
    same_places(made.positions_px, scan)
    assert made.object_pixel_size_m == pytest.approx(PIXEL_M, rel=1e-6)
    assert made.diffraction_unit == "counts"
    given = words[1:-2] if "--positions" in words and "--set" in words else words[1:]
    settings = dict(word.split("=", 1) for word in given if "=" in word)
    places = tmp_path / "places.npy" if "--positions" in words else None
    opened = open_scan(source, positions=places, settings=settings, patterns="memory")
    np.testing.assert_array_equal(np.asarray(opened.diff3d) * counted, scan["diff3d"] * counted)
    same_places(opened.positions_px, scan)


@pytest.mark.parametrize("name", ["cxi", "nexus", "ptylab", "matlab", "npy", "tiff", "npz"])
@pytest.mark.parametrize("suffix", [".bin", ".txt", ".tif", ".npz", ".cxi", ""])
def test_a_file_is_known_by_its_contents(
    name: str, suffix: str, scan: dict[str, Any], tmp_path: Path
) -> None:
    if name in EXTRAS:
        pytest.importorskip(EXTRAS[name])
    source = LAYOUTS[name](tmp_path / "scan.h5", scan)
    other = source.rename(tmp_path / f"odd{suffix}")
    assert format_of(other).name == name
    same_places(imported(other, tmp_path, *flags_of(name, tmp_path)).positions_px, scan)


def test_what_is_asked_is_shown_and_nothing_written(scan: dict[str, Any], tmp_path: Path, capsys: Capture):
    source = cxi(tmp_path / "a.cxi", scan, compression="gzip")
    assert main(["import", str(source), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    for word in ("CXI", "30 of 32 x 32, uint16", "gzip", "energy", "object pixel", "30 nm", "1 bad pixels"):
        assert word in shown, shown
    assert "nothing written" in shown and [path.name for path in tmp_path.iterdir()] == ["a.cxi"]


def test_what_is_missing_is_shown_and_named(scan: dict[str, Any], tmp_path: Path, capsys: Capture):
    source = npy(tmp_path / "a.h5", scan)
    assert main(["import", str(source), "--dry-run"]) == 2
    shown = capsys.readouterr()
    assert "positions        missing" in shown.out and shown.err.count("\n") == 1
    assert main(["import", str(source), "--positions", str(tmp_path / "places.npy"), "--dry-run"]) == 2
    shown = capsys.readouterr()
    assert "energy_eV (or wavelength_m), distance_m, detector_pixel_size_m" in shown.out
    assert "object_pixel_size_m" in shown.err


KEYS: dict[str, tuple[str, Any]] = {
    "energy_eV": ("8856.0", lambda raw: raw.geometry.energy_eV == pytest.approx(8856.0)),
    "wavelength_m": ("1.5e-10", lambda raw: raw.geometry.wavelength_m == pytest.approx(1.5e-10)),
    "voltage_V": ("80e3", lambda raw: raw.geometry.beam == "electron"),
    "distance_m": ("3.0", lambda raw: raw.geometry.distance_m == 3.0),
    "camera_length_m": ("3.0", lambda raw: raw.geometry.distance_m == 3.0),
    "detector_pixel_size_m": ("50e-6", lambda raw: raw.geometry.detector_pixel_size_m == 50e-6),
    "angular_pixel_size_rad": ("1e-5", lambda raw: raw.geometry.angular_pixel_size_rad == 1e-5),
    "object_pixel_size_m": ("20e-9", lambda raw: raw.object_pixel_size_m == 20e-9),
    "rotation_deg": ("90", lambda raw: raw.positions_px),
    "N": ("64", lambda raw: raw.N == 64 and raw.object_pixel_size_m == pytest.approx(PIXEL_M / 2)),
    "bin": ("2", lambda raw: raw.N == 32 and raw.object_pixel_size_m == pytest.approx(PIXEL_M)),
    "centre_row_px": ("14", lambda raw: raw.bad_pixels[0, 5] and not raw.bad_pixels[5, 0]),
    "centre_column_px": ("14", lambda raw: raw.bad_pixels[5, 0] and not raw.bad_pixels[0, 5]),
    "scan_step_m": ("9e-8", lambda raw: raw.n_positions == 30),
    "swap_xy": ("true", lambda raw: raw.positions_px),
    "flip_x": ("yes", lambda raw: raw.positions_px),
    "flip_y": ("1", lambda raw: raw.positions_px),
    "unit": ("amplitude", lambda raw: raw.diffraction_unit == "amplitude"),
    "max_time_gap_s": ("0.1", lambda raw: raw.n_positions == 30),
}
TURNED = {
    "rotation_deg": lambda p: np.stack([-p[:, 1], p[:, 0]], axis=1),
    "swap_xy": lambda p: p[:, ::-1],
    "flip_x": lambda p: p * [-1, 1],
    "flip_y": lambda p: p * [1, -1],
}


@pytest.mark.parametrize("key", KEYS)
def test_every_key_that_is_not_a_place(key: str, scan: dict[str, Any], tmp_path: Path) -> None:
    value, holds = KEYS[key]
    words = [f"{key}={value}"]
    if key.startswith("centre"):
        other = "centre_row_px" if key == "centre_column_px" else "centre_column_px"
        words.append(f"{other}=16")
    frames = scan["diff3d"]
    if key == "bin":
        frames = np.repeat(np.repeat(frames, 2, axis=1), 2, axis=2)
    if key == "unit":
        frames = np.sqrt(frames).astype(np.float32)
    source = ptylab(tmp_path / "a.h5", {**scan, "diff3d": frames})
    if key == "bin":
        with h5py.File(source, "a") as archive:
            archive["dxd"][...] = DETECTOR_M / 2
    made = imported(source, tmp_path, "--set", *words)
    if key not in TURNED:
        assert holds(made)
        return
    same_places(made.positions_px, {"places_m": TURNED[key](scan["places_m"])})


def test_the_keys_tested_are_all_there_are() -> None:
    places = {key for key in known_settings() if key.startswith("path.")}
    assert set(KEYS) | places == set(known_settings())
    assert places == {f"path.{name}" for name in (*PLACES, "links")}


PLACES = (
    "frames", "positions", "positions_x", "positions_y", "frame_index", "position_index", "frame_time",
    "position_time", "mask", "dark", "flat", "probe", "object", "energy", "wavelength", "distance",
    "detector_pixel_size",
)  # fmt: skip


def test_a_foreign_scan_without_a_probe(scan: dict[str, Any], tmp_path: Path) -> None:
    source = cxi(tmp_path / "a.cxi", scan)
    with h5py.File(source, "a") as archive:
        del archive["entry_1/instrument_1/source_1/illumination"]
    with pytest.raises(DataError, match="has no probe: give one by ptycho import"):
        RawData.from_file(source)
    made = open_scan(source)
    assert made.probe_made and made.probe_modes.shape == (1, N, N)
    again = imported(source, tmp_path)
    assert again.probe_made and again.n_positions == 30


REFUSED = {
    "no such key": (["--set", "enrgy_eV=8000"], "nearest known: energy_eV"),
    "no value": (["--set", "energy_eV"], "write KEY=VALUE"),
    "no number": (["--set", "energy_eV=high"], "must be a number"),
    "a negative number": (["--set", "distance_m=-1"], "must be a positive number"),
    "no whole number": (["--set", "N=3.5"], "must be a whole number"),
    "an odd side": (["--set", "N=31"], "even number"),
    "no truth": (["--set", "flip_x=perhaps"], "must be true or false"),
    "no unit": (["--set", "unit=volts"], "must be counts or amplitude"),
    "twice": (["--set", "N=16", "N=32"], "give it once"),
    "a contradiction": (["--set", "energy_eV=8000", "wavelength_m=1e-9"], "contradicts"),
    "half a centre": (["--set", "centre_row_px=4"], "give both"),
    "a centre outside": (["--set", "centre_row_px=99", "centre_column_px=1"], "lies outside the frame"),
    "no such place": (["--set", "path.mask=gone"], "has no 'gone'"),
    "half of two places": (["--set", "path.positions_x=encoder"], "name both x and y"),
    "no such format": (["--format", "cix"], "'cix' is not known"),
    "another format": (["--format", "cxi"], "a.h5"),
    "no such file of positions": (["--positions", "gone.csv"], "gone.csv does not exist"),
    "another suffix": (["-o", "made.npz"], "is written as .h5 or .cxi"),
    "its own source": (["-o", "a.h5"], "is what is read"),
    "bins too wide": (["--set", "bin=40"], ""),
    "too small a side": (["--set", "N=16"], "at least 32 pixels wide"),
    "whole numbers as amplitude": (["--set", "unit=amplitude"], "whole numbers are counts"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, scan: dict[str, Any], tmp_path: Path, capsys: Capture, monkeypatch: Any):
    monkeypatch.chdir(tmp_path)
    ptylab(tmp_path / "a.h5", scan)
    words, said = REFUSED[name]
    target = [] if "-o" in words else ["-o", "made.h5"]
    assert main(["import", "a.h5", *target, *words]) == 2
    shown = capsys.readouterr().err
    assert said in shown and shown.count("\n") == 1, shown
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]


def test_places_in_a_file_that_has_none_are_refused(scan: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="NPY array.*has no places that path.frames could name"):
        open_scan(npy(tmp_path / "a.h5", scan), settings={"path.frames": "x"})
    with pytest.raises(MissingFileError, match="gone.h5"):
        open_scan(tmp_path / "gone.h5", settings={"N": 16})
    pytest.importorskip("zarr")
    with pytest.raises(InputError, match="known there: path.frames, path.positions"):
        open_scan(zarr(tmp_path / "a.h5", scan), settings={"path.mask": "x"})


@pytest.mark.parametrize("name, text", [
    ("scan.spec", "#F scan.spec\n#E 1\n#S 1 ascan x 0 1 2 1\n#L x y\n0 0\n1 1\n"),
    ("scan.dat", "#F scan.dat\n#L x y\n0 0\n"),
    ("run.jsonl", '["start", {"uid": "a"}]\n["descriptor", {}]\n'),
])  # fmt: skip
def test_what_is_not_read_says_how_it_is_converted(
    name: str, text: str, scan: dict[str, Any], tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / name).write_text(text)
    words = ["--positions", str(tmp_path / name), "-o", str(tmp_path / "made.h5")]
    assert main(["import", str(npy(tmp_path / "a.h5", scan)), *words]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and "export its positions as a CSV file" in shown


def test_a_reciprocal_calibration_gives_the_object_pixel(scan: dict[str, Any], tmp_path: Path) -> None:
    source = LAYOUTS["py4dstem"](tmp_path / "a.h5", scan)
    made = imported(source, tmp_path, "--set", "scan_step_m=0.4e-9")
    assert made.object_pixel_size_m == pytest.approx(1e-10 / (N * 0.02)) and made.geometry.beam == "electron"
    known = imported(source, tmp_path, "--set", "scan_step_m=0.4e-9", "voltage_V=80e3", "N=64")
    assert known.object_pixel_size_m == pytest.approx(1e-10 / (64 * 0.02))


def test_links_out_of_the_folder_need_leave(scan: dict[str, Any], tmp_path: Path, capsys: Capture) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    eiger(tmp_path / "s.h5", scan)
    master = (tmp_path / "s_master.h5").rename(inside / "s_master.h5")
    with h5py.File(master, "a") as archive:
        for number in (1, 2):
            del archive[f"entry/data/data_{number:06d}"]
            archive[f"entry/data/data_{number:06d}"] = h5py.ExternalLink(
                f"../s_data_{number:06d}.h5", "/entry/data/data"
            )
    words = ["import", str(master), "--positions", str(tmp_path / "places.npy")]
    target = str(tmp_path / "made.h5")
    assert main([*words, "-o", target]) == 2
    assert "path.links=anywhere" in capsys.readouterr().err
    assert main([*words, "-o", target, "--set", "path.links=anywhere"]) == 0
    same_places(RawData.from_file(tmp_path / "made.h5", make_probe=True).positions_px, scan)


def test_the_list_of_formats(capsys: Capture) -> None:
    assert main(["info", "--formats"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(formats())
    assert set(LAYOUTS) <= set(formats())


def test_open_scan_keeps_patterns_where_it_is_told(scan: dict[str, Any], tmp_path: Path) -> None:
    from ptycho.io.lazy import LazyPatterns

    source = hdf5(tmp_path / "a.h5", scan)
    places = {"path.frames": "det/frames", "path.positions_x": "stage/x", "path.positions_y": "stage/y"}
    for place in ("disk", "memory"):
        made = open_scan(source, settings={**places, **GEOMETRY}, patterns=place)
        assert isinstance(made.diff3d, LazyPatterns) == (place == "disk")
        np.testing.assert_array_equal(np.asarray(made.diff3d), scan["diff3d"])
        assert made.source == source


def test_patterns_with_a_last_axis_of_one(scan: dict[str, Any], tmp_path: Path) -> None:
    arrays = {key: value for key, value in scan.items() if key != "places_m"}
    np.savez(tmp_path / "a.npz", **{**arrays, "diff3d": scan["diff3d"][..., None]})
    made = imported(tmp_path / "a.npz", tmp_path)
    np.testing.assert_array_equal(np.asarray(made.diff3d), scan["diff3d"])

"""Damaged files of every format that `ptycho import` reads: one line, exit code 2, nothing written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scan_layouts import LAYOUTS, N, flags_of, in_metres

from ptycho.cli.main import main

Capture = pytest.CaptureFixture[str]
Change = Callable[[dict[str, Any]], dict[str, Any]]


def whole(path: Path) -> list[Path]:
    """The files that make one source: a folder's, or the file and what lies beside it."""
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def cut(share: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        for file in whole(path):
            data = file.read_bytes()
            file.write_bytes(data[: int(share * len(data))])

    return damage


def flipped(path: Path) -> None:
    """Every 40th byte of the first kilobyte is another one; what finds a file by its first eight is left."""
    for file in whole(path):
        data = bytearray(file.read_bytes())
        for place in range(8, min(1024, len(data)), 40):
            data[place] ^= 0xFF
        file.write_bytes(bytes(data))


def noise(path: Path) -> None:
    for file in whole(path):
        file.write_bytes(np.random.default_rng(0).bytes(2000))


def emptied(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
        path.mkdir()
    else:
        path.write_bytes(b"")


def renamed(path: Path) -> None:
    """Nothing has the name that its program gives it."""
    if path.suffix in (".h5", ".hdf5", ".cxi"):
        with h5py.File(path, "a") as archive:
            for name in list(archive):
                archive.move(name, f"other_{name}")
    else:
        path.rename(path.with_name(f"moved{path.suffix}"))


#: what happens to the bytes of a file that was good
DAMAGE: dict[str, Callable[[Path], None]] = {
    "cut to a half": cut(0.5), "cut to a twentieth": cut(0.05), "flipped bytes": flipped, "noise": noise,
    "emptied": emptied, "renamed": renamed,
}  # fmt: skip


def frames(made: Callable[[np.ndarray], np.ndarray]) -> Change:
    return lambda scan: {**scan, "diff3d": made(scan["diff3d"])}


def places(made: Callable[[np.ndarray], np.ndarray]) -> Change:
    def changed(scan: dict[str, Any]) -> dict[str, Any]:
        moved = made(scan["places_m"].copy())
        x, y = (moved / 30e-9).T if moved.ndim == 2 and moved.shape[1] == 2 else (moved.ravel(),) * 2
        return {**scan, "places_m": moved, "xcoords": x, "ycoords": y}

    return changed


def with_nan(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float32)
    values[3, 1] = np.nan
    return values


#: what a file that is whole holds
CONTENTS: dict[str, Change] = {
    "no frames at all": frames(lambda f: f[:0]),
    "flat frames": frames(lambda f: f[:, 0]),
    "complex frames": frames(lambda f: f.astype(np.complex64)),
    "frames of nothing": frames(lambda f: f[:, :0]),
    "frames of NaN": frames(lambda f: np.full(f.shape, np.nan, np.float32)),
    "dark frames": frames(np.zeros_like),
    "negative counts": frames(lambda f: -f.astype(np.int32) - 1),
    "frames that are not square": frames(lambda f: f[:, :, :1]),
    "more frames than positions": places(lambda p: p[:-2]),
    "more positions than frames": frames(lambda f: f[:-2]),
    "positions of NaN": places(with_nan),
}
#: what a writer refuses or changes, or, a NeXus entry of another name, what is no damage
IMPOSSIBLE = {
    ("tiff", "no frames at all"), ("tiffs", "no frames at all"), ("tiff", "frames of nothing"),
    ("tiffs", "frames of nothing"), ("tiff", "flat frames"), ("tiffs", "flat frames"),
    ("tiffs", "renamed"), ("nexus", "renamed"), ("eiger", "complex frames"), ("eiger", "frames of NaN"),
    ("eiger", "negative counts"), ("ptychodus", "no frames at all"), ("ptychodus", "flat frames"),
    ("ptychodus", "complex frames"), ("ptychodus", "frames of nothing"), ("ptychodus", "positions of NaN"),
    ("ptychodus", "frames that are not square"), ("ptychodus", "more positions than frames"),
    ("ptychodus", "more frames than positions"),
}  # fmt: skip


def possible(changes: dict[str, Any]) -> list[tuple[str, str]]:
    """Every format with every change that can be made to it; at least eight of both tables together."""
    return [(name, one) for name in LAYOUTS for one in changes if (name, one) not in IMPOSSIBLE]


def good(name: str, scan: dict[str, Any], folder: Path) -> Path:
    for package, names in (("tifffile", ("tiff", "tiffs")), ("zarr", ("zarr",))):
        if name in names:
            pytest.importorskip(package)
    return LAYOUTS[name](folder / "scan.h5", scan)


def refused(source: Path, words: list[str], folder: Path, capsys: Capture) -> str:
    """The one line of an import, or of the validation of what it made, which ended with 2."""
    target = folder / "made.h5"
    before = sorted(folder.iterdir())
    status = main(["import", str(source), "-o", str(target), *words])
    shown = capsys.readouterr()
    if status == 0:  # the values themselves are judged where a scan is validated
        status = main(["validate", str(target)])
        shown = capsys.readouterr()
    else:
        assert sorted(folder.iterdir()) == before
    assert status == 2, (shown.out, shown.err)

    lines = [line for line in shown.err.splitlines() if ": error: " in line]
    assert len(lines) == 1 and len(lines[0]) < 1000 and "Traceback" not in shown.err, shown.err
    return lines[0]


@pytest.fixture
def scan(scan_arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    return in_metres(scan_arrays)


@pytest.mark.parametrize("name, damage", possible(DAMAGE))
def test_damaged_bytes(name: str, damage: str, scan: dict[str, Any], tmp_path: Path, capsys: Capture) -> None:
    source = good(name, scan, tmp_path)
    words = flags_of(name, tmp_path)
    DAMAGE[damage](source)
    line = refused(source, words, tmp_path, capsys)
    assert line.startswith("ptycho import: error: ") and str(tmp_path) in line, line


@pytest.mark.parametrize("name, contents", possible(CONTENTS))
def test_wrong_contents(
    name: str, contents: str, scan: dict[str, Any], tmp_path: Path, capsys: Capture
) -> None:
    source = good(name, CONTENTS[contents](scan), tmp_path)
    refused(source, flags_of(name, tmp_path), tmp_path, capsys)


def test_the_good_ones_pass(scan: dict[str, Any], tmp_path: Path, capsys: Capture) -> None:
    """The table above tells nothing where the untouched file is refused as well."""
    for name in LAYOUTS:
        folder = tmp_path / name
        folder.mkdir()
        source = good(name, scan, folder)
        assert main(["import", str(source), "-o", str(folder / "made.h5"), *flags_of(name, folder)]) == 0
        assert main(["validate", str(folder / "made.h5")]) == 0, capsys.readouterr().err
    assert N == 32


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_format_is_damaged_in_eight_ways_at_least(name: str) -> None:
    assert len([one for one in possible({**DAMAGE, **CONTENTS}) if one[0] == name]) >= 8


#: what a table of positions may look like, and a part of what is said of it
TABLES = {
    "nothing": ("", "the same number of columns"),
    "names only": ("x_um y_um\n", "the same number of columns"),
    "a row too short": ("1 2\n3\n4 5\n", "the same number of columns"),
    "a row of words": ("x y\n1 2\nthree four\n", "is no row of numbers"),
    "one column": ("1\n2\n3\n", "columns without names"),
    "five columns without names": ("1 2 3 4 5\n" * 30, "columns without names"),
    "no x among the names": ("a b\n1 2\n", "no columns x and y"),
    "an unknown unit": ("x_furlong y_furlong\n1 2\n", "no columns x and y"),
    "not finite": ("x y\n" + "nan 1\n" * 30, "not finite"),
    "too few rows": ("x_um y_um\n1 2\n3 4\n", "30 frames but 2 positions"),
    "bytes that are no text": ("\x00\xff\x01\x02", "p.csv"),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_positions(name: str, scan: dict[str, Any], tmp_path: Path, capsys: Capture) -> None:
    text, said = TABLES[name]
    source = good("npy", scan, tmp_path)
    (tmp_path / "p.csv").write_text(text, encoding="latin1")
    words = ["--positions", str(tmp_path / "p.csv"), "--set", "object_pixel_size_m=30e-9"]
    assert said in refused(source, words, tmp_path, capsys)

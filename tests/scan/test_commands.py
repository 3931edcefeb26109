"""Commands check a scan before they work: what is said, exit codes, masks, keys, links, provenance."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from bad_scans import good

from ptycho.cli.main import main
from ptycho.errors import DataError, MissingDependencyError
from ptycho.io.masks import read_mask, write_mask
from ptycho.io.ptychodus_hdf5 import open_hdf5, read_dataset
from ptycho.scan.raw_data import RawData
from ptycho.scan.report import open_scan

Capture = pytest.CaptureFixture[str]


def save(path: Path, **changes: object) -> Path:
    arrays = {**good(0), **changes}
    arrays.pop("truth")
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def with_gap(value: float, dtype: str = "int32") -> np.ndarray:
    counts = good(0)["diff3d"].astype(dtype)
    counts[:, :, 6:8] = value
    return counts


def test_a_gap_is_refused_masked_and_then_works(tmp_path: Path, capsys: Capture) -> None:
    path, mask = save(tmp_path / "gap.npz", diff3d=with_gap(2**32 - 1, "uint32")), tmp_path / "mask.npy"
    assert main(["validate", str(path), "--write-mask", str(mask)]) == 2
    assert "columns 6-7" in capsys.readouterr().err
    assert read_mask(mask).sum() == 2 * 32
    out = tmp_path / "out"
    assert main(["reconstruct", str(path), "-o", str(out), "--sweeps", "2"]) == 2
    assert not out.exists(), "refused before the folder is made"
    assert main(["validate", str(path), "--bad_pixels", str(mask)]) == 0
    assert main(["reconstruct", str(path), "-o", str(out), "--sweeps", "3", "--bad_pixels", str(mask)]) == 0
    assert "held_out_r" in json.loads((out / "metrics.json").read_text())
    record = json.loads((out / "provenance.json").read_text())
    assert {given["role"] for given in record["inputs"]} >= {"scan", "bad_pixels"}


@pytest.mark.parametrize("value", [-1, -2, np.nan, np.inf, 2**32 - 1])
def test_masked_pixels_may_hold_anything(tmp_path: Path, value: float) -> None:
    mask = np.zeros((32, 32), bool)
    mask[:, 6:8] = True
    clean, dirty = (
        RawData.from_file(
            save(tmp_path / f"{n}.npz", diff3d=counts, bad_pixels=mask, diffraction_unit="counts")
        )
        for n, counts in enumerate((with_gap(0, "float64"), with_gap(value, "float64")))
    )
    assert dirty.check() == clean.check() == []
    assert np.array_equal(dirty.amplitude(), clean.amplitude())
    assert np.array_equal(dirty.amplitude_by_rows()[3:5], clean.amplitude()[3:5])


def test_a_code_is_named_and_its_mask_written_though_the_scan_cannot_be_read(
    tmp_path: Path, capsys: Capture
) -> None:
    path, mask = save(tmp_path / "code.npz", diff3d=with_gap(-1)), tmp_path / "mask.npz"
    assert main(["validate", str(path), "--write-mask", str(mask)]) == 2
    assert "columns 6-7 hold the code -1" in capsys.readouterr().err
    assert read_mask(mask)[:, 6:8].all()


def test_a_further_mask_does_not_change_the_unit(tmp_path: Path) -> None:
    amplitude = np.sqrt(good(0)["diff3d"]).astype(np.float32)
    path = save(tmp_path / "amplitude.npz", diff3d=amplitude, diffraction_unit=None)
    mask = np.eye(32, dtype=bool)
    raw = RawData.from_file(path, bad_pixels=mask)
    assert raw.diffraction_unit == "amplitude" and raw.bad_pixels.sum() == 32
    assert "without a declared unit" in raw.unit_reason


@pytest.mark.parametrize("suffix, word", [(".npy", None), (".npz", None), (".png", "ends in .npy or .npz")])
def test_masks_are_files(tmp_path: Path, suffix: str, word: str | None) -> None:
    mask = np.random.default_rng(0).random((32, 32)) < 0.1
    path = tmp_path / f"mask{suffix}"
    if word is None:
        write_mask(path, mask)
        assert np.array_equal(read_mask(path), mask)
        return
    with pytest.raises(ValueError, match=word):
        write_mask(path, mask)


@pytest.mark.parametrize("inverted", [False, True])
def test_another_programs_mask_key_is_named_with_its_sense(tmp_path: Path, inverted: bool) -> None:
    mask = np.zeros((32, 32), bool)
    mask[:, 6:8] = True
    path = save(tmp_path / "keys.npz", diff3d=with_gap(0), mask=~mask if inverted else mask)
    found = {one.kind: one for one in RawData.from_file(path).check()}
    words = str(found["unread_key"])
    assert "did you mean bad_pixels (True = ignore)?" in words
    assert ("store ~mask" if inverted else "rename it") in words


def test_a_misspelt_key_names_the_nearest(tmp_path: Path) -> None:
    path = save(tmp_path / "keys.npz", diffraction_units="counts", detector="Eiger")
    found = RawData.from_file(path).check()
    assert any("did you mean diffraction_unit?" in str(one) for one in found)
    assert [one.severity for one in found if "detector" in one.where] == ["note"]


def test_problems_stand_in_every_output(tmp_path: Path, capsys: Capture) -> None:
    path = save(tmp_path / "twice.npz", xcoords=np.r_[good(0)["xcoords"][:1], good(0)["xcoords"][:-1]],
                ycoords=np.r_[good(0)["ycoords"][:1], good(0)["ycoords"][:-1]])  # fmt: skip
    out = tmp_path / "out"
    assert main(["reconstruct", str(path), "-o", str(out), "--sweeps", "2"]) == 0
    shown = capsys.readouterr()
    assert "1 position repeats an earlier one" in shown.err
    assert "It worked" not in shown.out
    kinds = {one["kind"] for one in json.loads((out / "provenance.json").read_text())["findings"]}
    assert "repeated_positions" in kinds
    assert "1 position repeats" in (out / "report.html").read_text()


def test_validate_prints_json_with_findings(tmp_path: Path, capsys: Capture) -> None:
    assert main(["validate", str(save(tmp_path / "line.npz", ycoords=np.full(100, 40.0))), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["findings"]
    assert found[0]["kind"] == "line_scan" and set(found[0]) == {
        "kind",
        "severity",
        "where",
        "what",
        "remedy",
    }


def links(folder: Path) -> Path:
    """An HDF5 file with one dataset of each broken kind."""
    path = folder / "broken.h5"
    data = np.arange(32.0).reshape(2, 4, 4)
    with h5py.File(folder / "part_0.h5", "w") as file:
        file["data"] = data
    layout = h5py.VirtualLayout((4, 4, 4), "f8")
    for part in range(2):
        layout[2 * part : 2 * part + 2] = h5py.VirtualSource(f"part_{part}.h5", "data", shape=(2, 4, 4))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("virtual", layout)
        file["outside"] = h5py.ExternalLink("gone.h5", "/data")
        file["elsewhere"] = h5py.ExternalLink("part_0.h5", "/nothing")
        file["inside"] = h5py.SoftLink("/nowhere")
        file.create_dataset("squeezed", data=data, compression="lzf")
    # a filter that nobody has: the number of lzf replaced in the file
    path.write_bytes(path.read_bytes().replace(b"\x00\x7d", b"\x63\x7d", 1))
    return path


@pytest.mark.parametrize(
    "key, words",
    [
        ("virtual", "put together from part_1.h5, which is not there: copy it beside the file"),
        ("outside", "links to gone.h5, which is not there: copy it beside the file"),
        ("elsewhere", "links to '/nothing' in part_0.h5, which has no such dataset"),
        ("inside", "links to '/nowhere', which is not in the file"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, key: str, words: str) -> None:
    with open_hdf5(links(tmp_path)) as file, pytest.raises(DataError, match=words.replace("/", ".")):
        read_dataset(file, key)


def test_a_missing_filter_is_named(tmp_path: Path) -> None:
    with (
        open_hdf5(links(tmp_path)) as file,
        pytest.raises(MissingDependencyError, match=r"filter 32099.*pip install hdf5plugin"),
    ):
        read_dataset(file, "squeezed")


def test_validate_reads_by_rows(tmp_path: Path) -> None:
    """Thrice the patterns need little more memory: some numbers for each; chunks are 32 MiB."""
    peaks, sizes = [], []
    for M in (600, 1800):
        rng = np.random.default_rng(0)
        counts = np.repeat(good(2)["diff3d"][:100], M // 100, axis=0).astype(np.uint32)
        wide = np.pad(counts, ((0, 0), (48, 48), (48, 48)))
        x, y = rng.uniform(0, 60, (2, M))
        path = tmp_path / f"{M}.npz"
        np.savez(path, xcoords=x, ycoords=y, diff3d=wide)
        tracemalloc.start()
        open_scan(path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        sizes.append(wide.nbytes)
    assert peaks[1] - peaks[0] < 0.45 * (sizes[1] - sizes[0])


def test_a_mask_of_parity_needs_its_scan(tmp_path: Path, capsys: Capture) -> None:
    mask = tmp_path / "mask.npy"
    np.save(mask, np.zeros((32, 32), bool))
    assert main(["parity", "--bad_pixels", str(mask), "-o", str(tmp_path / "out")]) == 2
    assert "needs the scan" in capsys.readouterr().err


def test_a_report_takes_a_further_mask(tmp_path: Path, capsys: Capture) -> None:
    path, out = save(tmp_path / "gap.npz", diff3d=with_gap(300)), tmp_path / "out"
    assert main(["reconstruct", str(path), "-o", str(out), "--sweeps", "2"]) == 0
    assert "stuck" in capsys.readouterr().err
    mask = np.zeros((32, 32), bool)
    mask[:, 6:8] = True
    np.save(tmp_path / "mask.npy", mask)
    page = tmp_path / "page.html"
    assert main(["report", str(out), "-o", str(page), "--bad_pixels", str(tmp_path / "mask.npy")]) == 0
    assert "stuck" not in page.read_text()

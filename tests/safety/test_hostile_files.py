"""Files that were made to break a reader: one line that names the file, exit code 2, nothing left behind."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from programs import small_scan

from ptycho.cli.main import main
from ptycho.errors import BundleError, DataError, InputError
from ptycho.image.canvas import check_canvas
from ptycho.io.npz import open_npz, read_array
from ptycho.io.ptychodus_hdf5 import open_hdf5, read_dataset

Capture = pytest.CaptureFixture[str]


def npy(header: str, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """An NPY file with any text as its header."""
    text = header.encode("latin1") + b"\n"
    return b"\x93NUMPY" + bytes(version) + len(text).to_bytes(2, "little") + text + data


def scan_with(path: Path, member: bytes, key: str = "diff3d") -> None:
    """A scan whose one array is these bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in small_scan().items():
            stream = io.BytesIO()
            np.lib.format.write_array(stream, np.asarray(value))
            archive.writestr(f"{name}.npy", member if name == key else stream.getvalue())


def header(shape: str, descr: str = "'<u2'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


MEMBERS = {
    "no array at all": b"hello",
    "nothing": b"",
    "a header of tokens": npy("{'descr': '<u2', 'shape': (((((("),
    "a header of words": npy("import os"),
    "a header that is not text": npy("\x00\xff\xfe"),
    "nested 5,000 deep": npy("(" * 5000),
    "2^64 patterns": npy(header("(18446744073709551616, 32, 32)")),
    "2^40 patterns": npy(header("(1099511627776, 32, 32)")),
    "10^4000 patterns": npy(header(f"(1{'0' * 4000}, 32, 32)")),
    "a negative shape": npy(header("(-1, 32, 32)")),
    "a shape of words": npy(header("('a', 32, 32)")),
    "no such dtype": npy(header("(16, 32, 32)", "'<q99'")),
    "objects": npy(header("(16, 32, 32)", "'|O'")),
    "a dtype of code": npy(header("(16, 32, 32)", "[('a', '<f8', __import__('os'))]")),
    "too few values": npy(header("(16, 32, 32)"), b"12"),
    "version 9": npy(header("(16, 32, 32)"), version=(9, 9)),
}


@pytest.mark.parametrize("place", ["memory", "disk"])
@pytest.mark.parametrize("member", MEMBERS.values(), ids=MEMBERS)
def test_npz(member: bytes, place: str, tmp_path: Path, monkeypatch: Any, capsys: Capture) -> None:
    monkeypatch.chdir(tmp_path)
    scan_with(tmp_path / "scan.npz", member)
    assert main(["train", "scan.npz", "-o", "out", "--patterns", place]) == 2
    shown = capsys.readouterr().err
    assert "scan.npz" in shown and shown.count("\n") == 1 and len(shown) < 1500
    assert [path.name for path in tmp_path.iterdir()] == ["scan.npz"]


def test_an_encrypted_member(tmp_path: Path) -> None:
    scan_with(tmp_path / "scan.npz", npy(header("(16, 32, 32)"), bytes(2 * 16 * 32 * 32)))
    data = bytearray((tmp_path / "scan.npz").read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag of every header
        place = data.find(mark)
        while place >= 0:
            data[place + offset] |= 1
            place = data.find(mark, place + 4)
    (tmp_path / "scan.npz").write_bytes(data)
    with pytest.raises(InputError, match="encrypted"), open_npz(tmp_path / "scan.npz") as archive:
        read_array(archive, "diff3d", tmp_path / "scan.npz")


def loop(archive: h5py.File) -> None:
    archive["a"] = h5py.SoftLink("/b")
    archive["b"] = h5py.SoftLink("/a")


HDF5: dict[str, Callable[[h5py.File], Any]] = {
    "a soft link in a circle": loop,
    "a soft link to nothing": lambda f: f.__setitem__("a", h5py.SoftLink("/nowhere")),
    "another file that is gone": lambda f: f.__setitem__("a", h5py.ExternalLink("gone.h5", "/x")),
    "a null dataset": lambda f: f.create_dataset("a", data=h5py.Empty("f4")),
    "text": lambda f: f.create_dataset("a", data="hello"),
    "a group": lambda f: f.create_group("a"),
    "2^50 values of nothing": lambda f: f.create_dataset("a", (1 << 20, 1 << 30), "f8", fillvalue=1.0),
    "a compound type": lambda f: f.create_dataset("a", (3,), np.dtype([("x", "f4")])),
}


@pytest.mark.parametrize("make", HDF5.values(), ids=HDF5)
def test_hdf5(make: Callable[[h5py.File], Any], tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as archive:
        make(archive)
    with pytest.raises(InputError, match="scan.h5") as caught, open_hdf5(path) as archive:
        read_dataset(archive, "a")
    assert "\n" not in str(caught.value)


def test_a_scan_cut_short_while_its_rows_are_read(tmp_path: Path) -> None:
    """A map of the file would kill the process here (SIGBUS)."""
    from ptycho.io.registry import read_scan

    path = tmp_path / "scan.npz"
    np.savez(path, **small_scan(count=400))
    rows = read_scan(path, patterns="disk")["diff3d"]
    with path.open("r+b") as file:
        file.truncate(20_000)
    with pytest.raises(InputError, match="cut short"):
        np.asarray(rows[390:400])


@pytest.mark.parametrize(
    "text",
    ['{"train_loss": [1' + "0" * 400 + "]}", "[" * 100_000, '{"train_loss": [NaN]}', "\x00", '{"a": 1e999}'],
    ids=["huge", "nested", "nan", "nul", "infinite"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["history.json", "metrics.json", "provenance.json", "config.yaml"])
def test_report_never_crashes(name: str, text: str, tmp_path: Path, capsys: Capture) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "history.json").write_text(json.dumps({"train_loss": [3.0, 2.0]}))
    (run / name).write_text(text)
    assert main(["report", str(run)]) == 0, capsys.readouterr().err
    assert (run / "report.html").is_file()


@pytest.mark.parametrize("coverage", [0.0, np.nan, np.inf, -1.0])
def test_report_of_a_product_without_coverage(coverage: float, tmp_path: Path, capsys: Capture) -> None:
    run = tmp_path / "run"
    run.mkdir()
    obj = np.ones((40, 40), np.complex64)
    np.savez(
        run / "reconstruction.npz", object=obj, coverage=np.full((40, 40), coverage), origin_xy=np.zeros(2)
    )
    assert main(["report", str(run)]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    "words", ["validate {}", "train {} -o out", "info {}", "report {}", "simulate -o {}.npz"]
)
@pytest.mark.parametrize("name", ["x" * 5000, "\udcff.npz"], ids=["5000 letters", "not UTF-8"])
def test_names(name: str, words: str, tmp_path: Path, monkeypatch: Any, capsys: Capture) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = ["--n_positions", "9", "--N", "32"] if words.startswith("simulate") else []
    code = main([*words.format(name).split(), *sizes])
    shown = capsys.readouterr().err
    assert "Traceback" not in shown and "--debug" not in shown
    assert code == 2 or (words.startswith("simulate") and len(name) < 100 and code == 0)


class TestBundles:
    """Every door asks `load_trained_state`."""

    @pytest.fixture
    def parts(self) -> dict[str, Any]:
        from formats import state

        made = state()
        return {"state": made, "scan": made.scans[0]}

    @pytest.mark.parametrize("name", ["x_scale", "nphotons", "probe_factor"])
    @pytest.mark.parametrize("value", [0.0, -1.0])
    def test_scales(self, name: str, value: float, parts: dict[str, Any], tmp_path: Path) -> None:
        import dataclasses

        from ptycho.models.trained_state import load_trained_state

        made, scan = parts["state"], dataclasses.replace(parts["scan"], **{name: value})

        def opened() -> None:
            dataclasses.replace(made, scans=(scan,)).save(tmp_path, "pytorch")
            load_trained_state(tmp_path)

        with pytest.raises(InputError, match=name):
            opened()

    @pytest.mark.parametrize("change", ["shape", "dtype", "missing", "unknown"])
    def test_weights(self, change: str, parts: dict[str, Any], tmp_path: Path) -> None:
        import dataclasses

        from ptycho.models.trained_state import load_trained_state

        weights = dict(parts["state"].weights)
        name = next(name for name, value in weights.items() if value.ndim == 4)
        value = weights.pop(name)
        weights |= {
            "shape": {name: value[..., :1, :]}, "dtype": {name: value.astype(np.int32)}, "missing": {},
            "unknown": {name: value, "more": value},
        }[change]  # fmt: skip
        dataclasses.replace(parts["state"], weights=weights).save(tmp_path, "pytorch")
        with pytest.raises(BundleError, match="weight"):
            load_trained_state(tmp_path)

    def test_a_network_larger_than_the_memory(self, parts: dict[str, Any], tmp_path: Path) -> None:
        import dataclasses

        from ptycho.models.trained_state import load_trained_state

        made = parts["state"]
        model = dataclasses.replace(made.config.model, n_filters_scale=100_000)
        large = dataclasses.replace(made, config=dataclasses.replace(made.config, model=model))
        large.save(tmp_path, "pytorch")
        with pytest.raises(BundleError, match="does not fit in memory"):
            load_trained_state(tmp_path)

    def test_sixteen_thousand_members(self, tmp_path: Path) -> None:
        from ptycho.models.bundle import load_bundle

        with zipfile.ZipFile(tmp_path / "wts.h5.zip", "w") as archive:
            for number in range(16_000):
                archive.writestr(f"member{number}", b"")
        with pytest.raises(BundleError, match="16000 members"):
            load_bundle(tmp_path)

    def test_the_same_bytes_in_every_folder_and_no_place(self, parts: dict[str, Any], tmp_path: Path) -> None:
        import dataclasses

        made, found = parts["state"], []
        for name in ("one", "two"):
            home = tmp_path / name
            config = dataclasses.replace(made.config, output_dir=home, train_data_file=home / "scan.npz")
            found.append(dataclasses.replace(made, config=config).save(home, "pytorch").read_bytes())
        assert found[0] == found[1] and str(tmp_path).encode() not in found[0]

    def test_a_bundle_beside_the_settings_of_another_run(self, parts: dict[str, Any], tmp_path: Path) -> None:
        import dataclasses

        from ptycho.config.config import PyTorchExecutionConfig
        from ptycho.config.yaml_io import dump_yaml
        from ptycho.models.trained_state import load_trained_state

        config = parts["state"].config
        parts["state"].save(tmp_path, "pytorch")
        dump_yaml(config, PyTorchExecutionConfig(), tmp_path / "config.yaml")
        load_trained_state(tmp_path)
        dump_yaml(dataclasses.replace(config, seed=5), PyTorchExecutionConfig(), tmp_path / "config.yaml")
        with pytest.raises(BundleError, match="of another run.*seed is 0 in the one and 5 in the other"):
            load_trained_state(tmp_path)


def test_a_canvas_larger_than_the_memory(tmp_path: Path, monkeypatch: Any, capsys: Capture) -> None:
    monkeypatch.chdir(tmp_path)
    scan = small_scan()
    scan["xcoords"] = scan["xcoords"] * 1e6
    scan["ycoords"] = scan["ycoords"] * 1e6
    np.savez("scan.npz", **scan)
    assert main(["reconstruct", "scan.npz", "-o", "out", "--sweeps", "1"]) == 2
    said = capsys.readouterr().err
    # the checks of the scan name the unit first; whoever goes past them meets the memory
    assert "divide lengths by the object pixel size" in said and not Path("out").exists()
    with pytest.raises(DataError, match="does not fit in memory"):
        check_canvas((5e7, 5e7))


@pytest.mark.parametrize("mask", [0o027, 0o077])
def test_modes_follow_the_umask(mask: int, tmp_path: Path) -> None:
    import os

    from formats import FORMATS

    before = os.umask(mask)
    try:
        for form in FORMATS:
            if form.name not in ("model.onnx", "last.safetensors"):  # these need an extra
                form.make(tmp_path / form.name)
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {0o666 & ~mask}

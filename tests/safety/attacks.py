"""Things that are given to commands in place of a file, and places that are given to write to.

`SLOTS` and `OUTPUTS` say where a command reads and writes; `inputs_of` and `outputs_of` what is put there.
`attack` runs one command line in a folder of its own and says what was not as promised.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import socket
import stat
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from programs import SMALL, small_scan

from ptycho.cli.main import main

Maker = Callable[[str], Any]
Thing = tuple[str, Maker | None]
_RAW = re.compile(r"--debug|Traceback|\b[A-Z]\w*(Error|Exception)\b:|\bBadZipFile\b")


def npy(header: str) -> bytes:
    """An NPY file with any text as its header and no values."""
    text = header.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def header(shape: str, descr: str) -> str:
    """The header of an array of this shape."""
    return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"


def whole() -> dict[str, Any]:
    """Arrays that any reader of NPZ finds what it needs in: a scan, its truth, an image."""
    image = np.ones((60, 60), np.complex64)
    return {**small_scan(), "object": image, "object_true": image}


def _bytes(data: bytes) -> Maker:
    return lambda path: Path(path).write_bytes(data)


def _members(**members: bytes) -> Maker:
    def make(path: str) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, value in whole().items():
                stream = io.BytesIO()
                np.lib.format.write_array(stream, np.asarray(value))
                archive.writestr(f"{name}.npy", members.get(name, stream.getvalue()))

    return make


def _arrays(**arrays: Any) -> Maker:
    return lambda path: np.savez(path, **{**whole(), **arrays})


def _encrypted(path: str) -> None:
    _members()(path)
    data = bytearray(Path(path).read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.find(mark)
        while place >= 0:
            data[place + offset] |= 1
            place = data.find(mark, place + 4)
    Path(path).write_bytes(data)


#: where the readers of HDF5 look
_PLACES = (
    "object", "probe", "object_array", "dp", "diffraction", "patterns", "probe_position_x_m",
    "content/obj/a/data",
    "entry_1/data_1/data", "entry_1/image_1/data", "entry/data/data",
)  # fmt: skip


def _hdf5(put: Callable[[h5py.File, str], Any]) -> Maker:
    def make(path: str) -> None:
        with h5py.File(path, "w") as archive:
            for place in _PLACES:
                put(archive, place)

    return make


def _loop(archive: h5py.File, place: str) -> None:
    archive[place] = h5py.SoftLink(f"/{place}_back")
    archive[f"{place}_back"] = h5py.SoftLink(f"/{place}")


def _huge(archive: h5py.File, place: str) -> None:
    archive.create_dataset(place, (1 << 20, 1 << 15, 1 << 15), "c8", chunks=(1, 64, 64))


def _socket(path: str) -> None:
    socket.socket(socket.AF_UNIX).bind(path)


def inputs_of(suffix: str) -> dict[str, Thing]:
    """Name of an attack: (the file that is given, how it is made, None: it is not)."""
    things: dict[str, Thing] = {
        "missing": (f"gone{suffix}", None),
        "a folder": (f"folder{suffix}", os.mkdir),
        "a pipe": (f"pipe{suffix}", os.mkfifo),
        "a socket": (f"socket{suffix}", _socket),
        "a device": ("/dev/zero", None),
        "another device": ("/dev/full", None),
        "nothing at all": ("", None),
        "empty": (f"empty{suffix}", _bytes(b"")),
        "junk": (f"junk{suffix}", _bytes(bytes(range(256)) * 8)),
        "text": (f"text{suffix}", _bytes(b"hello: [world\n")),
        "5,000 letters": ("x" * 5000 + suffix, None),
        "300 letters": ("x" * 300 + suffix, None),
        "a NUL in the name": (f"a\0b{suffix}", None),
        "a name that is not UTF-8": ("\udcff" + suffix, _bytes(b"PK\x03\x04junk")),
        "a line break in the name": (f"a\nb{suffix}", _bytes(b"PK\x03\x04junk")),
        "a circle of links": (f"loop{suffix}", lambda path: os.symlink(path, path)),
        "a link to nothing": (f"dangling{suffix}", lambda path: os.symlink(f"nowhere{suffix}", path)),
        "beneath a file": (f"scan.npz/x{suffix}", None),
        "an empty zip": (f"zip{suffix}", _bytes(b"PK\x05\x06" + bytes(18))),
        "a zip of a folder": (f"zipped{suffix}", lambda path: zipfile.ZipFile(path, "w").writestr("a/", b"")),
    }
    more: dict[str, dict[str, Maker]] = {".npz": _NPZ, ".h5": _HDF5, ".yaml": _YAML}
    return things | {name: (f"bad{suffix}", make) for name, make in more.get(suffix, {}).items()}


def _of_all(shape3: str, shape2: str) -> Maker:
    image = npy(header(shape2, "<c8"))
    return _members(diff3d=npy(header(shape3, "<u2")), object=image, object_true=image)


_NPZ: dict[str, Maker] = {
    "encrypted": _encrypted,
    "2^64 patterns": _of_all(f"({2**64}, 32, 32)", f"({2**64}, 32)"),
    "2^40 patterns": _of_all(f"({2**40}, 32, 32)", f"({2**20}, {2**20})"),
    "tokens": _members(diff3d=npy("{'descr': ((((("), object=npy("import os"), object_true=npy("(((")),
    "objects": _arrays(diff3d=np.array([{}, 1], object), object=np.array([{}], object)),
    "records": _arrays(diff3d=np.zeros((16, 32, 32), [("a", "f4")]), object=np.zeros((9, 9), [("a", "f4")])),
    "dates": _arrays(**dict.fromkeys(("diff3d", "object", "object_true"), np.zeros((16, 32, 32), "M8[s]"))),
    "numbers": lambda path: np.savez(path, **dict.fromkeys(whole(), np.float64(1))),
    "no values": lambda path: np.savez(path, **dict.fromkeys(whole(), np.zeros((0, 0, 0)))),
    "leads out of the folder": lambda path: zipfile.ZipFile(path, "w").writestr("../../evil.npy", b"x"),
}
_HDF5: dict[str, Maker] = {
    "circles of links": _hdf5(_loop),
    "null datasets": _hdf5(lambda archive, place: archive.create_dataset(place, data=h5py.Empty("f4"))),
    "2^53 values": _hdf5(_huge),
    "texts": _hdf5(lambda archive, place: archive.create_dataset(place, data="hello")),
    "groups": _hdf5(lambda archive, place: archive.create_group(place)),
    "nothing inside": _hdf5(lambda archive, place: None),
}
_YAML: dict[str, Maker] = {
    name: _bytes(data)
    for name, data in {
        "Latin-1": "nepochs: 5 # \xe9".encode("latin1"),
        "UTF-16": "nepochs: 5".encode("utf-16"),
        "aliases of aliases": b"a: &a [x,x]\n"
        + b"".join(b"%c: &%c [*%c,*%c]\n" % (98 + i, 98 + i, 97 + i, 97 + i) for i in range(24)),
        "nested": b"[" * 100_000,
        "a huge number": b"nepochs: 1" + b"0" * 5000,
        "a list as key": b"? [a, b]\n: 1\n",
        "a number as key": b"1: 2\n",
        "nothing as key": b"~: 1\n",
        "a NUL": b"nepochs: 5\0\n",
        "two documents": b"nepochs: 5\n---\nnepochs: 6\n",
        "a date": b"nepochs: 2020-01-01\n",
        "not a number": b"execution: {learning_rate: .nan}\n",
        "itself": b"model: &m\n  N: *m\n",
        "a wrong merge": b"<<: 5\n",
        "bytes": b"train_data_file: !!binary aGVsbG8=\n",
        "a set": b"model: !!set {a, b}\n",
        "code": b"nepochs: !!python/object/apply:os.system ['touch ran']\n",
    }.items()
}


def outputs_of(suffix: str) -> dict[str, Thing]:
    """Name of an attack: (the place to write to, what is made there first)."""
    return {
        "a folder" if suffix else "beneath a run's file": (
            (f"folder{suffix}", os.mkdir) if suffix else ("run/wts.h5.zip/x", None)
        ),
        "a pipe": (f"pipe{suffix}", os.mkfifo),
        "a device": ("/dev/full", None),
        "nothing at all": ("", None),
        "5,000 letters": ("x" * 5000 + suffix, None),
        "300 letters": ("x" * 300 + suffix, None),
        "a NUL in the name": (f"a\0b{suffix}", None),
        "a circle of links": (f"loop{suffix}", lambda path: os.symlink(path, path)),
        "a link to nothing": (f"dangling{suffix}", lambda path: os.symlink(f"nowhere{suffix}", path)),
        "a link to what is read": (f"link{suffix}", lambda path: os.symlink("scan.npz", path)),
        "a hard link of what is read": (f"hard{suffix}", lambda path: os.link("scan.npz", path)),
        "what is read": ("scan.npz", None),
        "beneath a file": (f"scan.npz/x{suffix}", None),
        "where nothing can be": (f"/proc/x{suffix}", None),
        "a run's bundle": ("run/wts.h5.zip", None),
    }


_TRAIN = ("--nepochs", "1", *SMALL)
_INFER = ("infer", "--model", "run", "--data", "scan.npz")
#: name: (suffix of what is given, command line, {} where it stands)
SLOTS: dict[str, tuple[str, list[str]]] = {
    "train": (".npz", ["train", "{}", "-o", "out", *_TRAIN]),
    "train h5": (".h5", ["train", "{}", "-o", "out", *_TRAIN]),
    "train second": (".npz", ["train", "scan.npz", "{}", "-o", "out", *_TRAIN]),
    "train test": (".npz", ["train", "scan.npz", "--test", "{}", "-o", "out", *_TRAIN]),
    "train config": (".yaml", ["train", "scan.npz", "--config", "{}", "-o", "out", *_TRAIN]),
    "train resume": (".ckpt", ["train", "scan.npz", "--resume", "{}", "-o", "out", *_TRAIN]),
    "train mask": (".npz", ["train", "scan.npz", "--bad_pixels", "{}", "-o", "out", *_TRAIN]),
    "infer model": (".zip", ["infer", "--model", "{}", "--data", "scan.npz", "-o", "out"]),
    "infer data": (".npz", ["infer", "--model", "run", "--data", "{}", "-o", "out"]),
    "infer data h5": (".h5", ["infer", "--model", "run", "--data", "{}", "-o", "out"]),
    "infer config": (".yaml", [*_INFER, "-o", "out", "--config", "{}"]),
    "reconstruct": (".npz", ["reconstruct", "{}", "-o", "out", "--sweeps", "1"]),
    "reconstruct h5": (".h5", ["reconstruct", "{}", "-o", "out", "--sweeps", "1"]),
    "reconstruct model": (".zip", ["reconstruct", "scan.npz", "--model", "{}", "-o", "out", "--sweeps", "1"]),
    "reconstruct image": (".npz", ["reconstruct", "scan.npz", "--image", "{}", "-o", "out", "--sweeps", "1"]),
    "reconstruct image h5": (".h5", ["reconstruct", "scan.npz", "--image", "{}", "-o", "out"]),
    "reconstruct mask": (".npy", ["reconstruct", "scan.npz", "--bad_pixels", "{}", "-o", "out"]),
    "validate": (".npz", ["validate", "{}"]),
    "validate h5": (".h5", ["validate", "{}", "--json"]),
    "validate mask": (".npz", ["validate", "scan.npz", "--bad_pixels", "{}"]),
    "import npz": (".npz", ["import", "{}", "-o", "new.h5"]),
    "import h5": (".h5", ["import", "{}", "-o", "new.h5"]),
    "import tif": (".tif", ["import", "{}", "-o", "new.h5"]),
    "import csv": (".csv", ["import", "{}", "-o", "new.h5"]),
    "import ptyd": (".ptyd", ["import", "{}", "--dry-run"]),
    "import positions csv": (".csv", ["import", "scan.npz", "--positions", "{}", "-o", "new.h5"]),
    "import positions h5": (".h5", ["import", "scan.npz", "--positions", "{}", "-o", "new.h5"]),
    "init": (".npz", ["init", "{}", "-o", "new.yaml"]),
    "init h5": (".h5", ["init", "{}"]),
    "evaluate": (".npz", ["evaluate", "{}", "scan.npz"]),
    "evaluate h5": (".h5", ["evaluate", "{}", "scan.npz"]),
    "evaluate tif": (".tif", ["evaluate", "{}", "scan.npz"]),
    "evaluate truth": (".npz", ["evaluate", "image", "{}"]),
    "evaluate truth h5": (".h5", ["evaluate", "image", "{}"]),
    "compare": (".npz", ["compare", "{}", "scan.npz"]),
    "compare h5": (".h5", ["compare", "image", "{}"]),
    "report": (".npz", ["report", "{}", "-o", "page.html"]),
    "export": (".zip", ["export", "{}", "-o", "new.onnx"]),
    "info": (".zip", ["info", "{}"]),
    "parity": (".npz", ["parity", "{}", "-o", "out"]),
    "parity config": (".yaml", ["parity", "scan.npz", "--config", "{}", "-o", "out"]),
    "view": (".npz", ["view", "{}", "--seconds", "0.1"]),
    "view h5": (".h5", ["view", "{}", "--seconds", "0.1"]),
    "watch": (".npz", ["watch", "{}", "--seconds", "0.1"]),
    "experiment": (".npz", ["experiment", "train_data_file={}", "output_dir=out"]),
}  # fmt: skip
#: name: (suffix of what is written, command line)
OUTPUTS: dict[str, tuple[str, list[str]]] = {
    "train": ("", ["train", "scan.npz", "-o", "{}", *_TRAIN]),
    "infer": ("", [*_INFER, "-o", "{}"]),
    "infer product": (".h5", [*_INFER, "-o", "out", "--product", "{}"]),
    "reconstruct": ("", ["reconstruct", "scan.npz", "-o", "{}", "--sweeps", "1"]),
    "demo": ("", ["demo", "-o", "{}"]),
    "validate": (".npz", ["validate", "scan.npz", "--write-mask", "{}"]),
    "import": (".h5", ["import", "scan.npz", "-o", "{}"]),
    "init": (".yaml", ["init", "scan.npz", "-o", "{}"]),
    "evaluate": (".json", ["evaluate", "image", "scan.npz", "--json", "{}"]),
    "compare json": (".json", ["compare", "image", "scan.npz", "--json", "{}"]),
    "compare": (".png", ["compare", "image", "scan.npz", "-o", "{}"]),
    "report": (".html", ["report", "image", "--data", "scan.npz", "-o", "{}"]),
    "export": (".onnx", ["export", "run", "-o", "{}"]),
    "parity": ("", ["parity", "scan.npz", "-o", "{}"]),
    "simulate": (".npz", ["simulate", "-o", "{}", "--n_positions", "9", "--N", "32"]),
    "experiment": ("", ["experiment", "train_data_file=scan.npz", "output_dir={}"]),
}  # fmt: skip


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """The working directory, for the time of a `with`."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def contents(folder: Path) -> dict[str, Any]:
    """Every file by its bytes, everything else by its kind; links are not followed."""
    found: dict[str, Any] = {}
    for base, folders, files in os.walk(folder):
        found |= {os.path.join(base, name): "folder" for name in folders}
        for name in files:
            place = os.path.join(base, name)
            mode = os.lstat(place).st_mode
            found[place] = Path(place).read_bytes() if stat.S_ISREG(mode) else stat.S_IFMT(mode)
    return found


def attack(
    store: Path, work: Path, words: Sequence[str], make: Callable[[], Any], codes: Sequence[int]
) -> str:
    """What was not as promised, '' where all was: the exit code is one of `codes`, a failure is one short
    line without an exception's name, nothing that was there is changed, and a refused command leaves nothing.

    The command runs in `work` with a copy of what `store` holds; `make` adds to it.
    """
    from ptycho.cli.experiment import main as experiment

    shutil.copytree(store, work)
    with inside(work):
        make()
        before = contents(work)
        said, told = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told):
            code = experiment(words[1:]) if words[0] == "experiment" else main(list(words))
        after = contents(work)
    lines = [line for line in told.getvalue().splitlines() if ": error: " in line]
    wrong = [] if code in codes else [f"exit code {code}"]
    if _RAW.search(told.getvalue()):
        wrong.append("an exception")
    if code and (len(lines) != 1 or len(lines[0]) > 900):
        wrong.append(f"{len(lines)} lines of error")
    if code and any(after.get(place) != value for place, value in before.items()):
        wrong.append("changed what was there")
    if code == 2 and len(after) > len(before):
        wrong.append("left something")
    shutil.rmtree(work)
    return f"{', '.join(wrong)}: {told.getvalue()[-500:]!r}" if wrong else ""

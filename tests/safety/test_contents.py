"""Files that can be opened and hold what no run writes: a note on the page, or one line and exit code 2."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attacks import attack
from programs import small_scan
from test_attacks import store as store  # the fixture

_JSON = {
    "10^400": '{"train_loss": [1' + "0" * 400 + ", 2]}",
    "10^5000": '{"train_loss": [1' + "0" * 5000 + ", 2]}",
    "nested": "[" * 100_000,
    "nested mappings": '{"a":' * 50_000,
    "not a number": '{"train_loss": [NaN, Infinity], "val_loss": [1]}',
    "words": '{"train_loss": ["a", null], "epoch": "x"}',
    "lists of lists": '{"train_loss": [[1, 2], {"a": 1}]}',
    "a number": "5",
    "nothing": "",
    "a long name": json.dumps({"x" * 5000: [1.0, 2.0], "train_loss": [1, 2]}),
    "3,000 curves": json.dumps({f"m{i}": [1.0] for i in range(3000)}),
    "half a character": '{"train_loss": [1, 2], "\\ud800": [1, 2]}',
}
_ODD: tuple[Any, ...] = (
    5, "x", [], {}, [[1]], {"a": {"b": [1]}}, [None], True, [{"role": [], "path": {}, "sha256": 5}],
    [{"role": "train", "path": "/dev/zero"}], [{"role": "scan", "path": "a\0b", "bytes": 10**400}],
)  # fmt: skip


@pytest.mark.parametrize("name", ["history.json", "metrics.json", "provenance.json", "config.yaml"])
def test_small_files_of_a_run(name: str, store: Path, tmp_path: Path) -> None:
    wrong = {}
    for case, text in _JSON.items():
        wrong[case] = attack(
            store,
            tmp_path / "work",
            ["report", "run"],
            lambda t=text: Path(f"run/{name}").write_text(t),
            (0,),
        )
    odd: dict[str, Callable[[str], Any]] = {
        "a pipe": os.mkfifo,
        "a folder": os.mkdir,
        "a circle": lambda path: os.symlink(Path(path).name, path),
        "a device": lambda path: os.symlink("/dev/zero", path),
        "bytes": lambda path: Path(path).write_bytes(b"\xff\xfe\x00" * 9),
    }
    for case, make in odd.items():

        def replaced(make: Callable[[str], Any] = make) -> None:
            Path(f"run/{name}").unlink(missing_ok=True)
            make(f"run/{name}")

        wrong[case] = attack(store, tmp_path / "work", ["report", "run"], replaced, (0,))
    assert {case: said for case, said in wrong.items() if said} == {}


@pytest.mark.parametrize(
    "entry", ["inputs", "findings", "command", "machine", "seconds", "started", "earlier"]
)
def test_the_record_of_a_run(entry: str, store: Path, tmp_path: Path) -> None:
    record = json.loads((store / "run" / "provenance.json").read_text())
    wrong = []
    for value in _ODD:
        text = json.dumps({**record, entry: value})
        wrong.append(
            attack(
                store, tmp_path / "work", ["report", "run"],
                lambda t=text: Path("run/provenance.json").write_text(t), (0,),
            )
        )  # fmt: skip
    assert [said for said in wrong if said] == []


_ARRAYS: dict[str, Any] = {
    "of one axis": np.ones(5, complex),
    "empty": np.zeros((0, 0), complex),
    "one pixel": np.ones((1, 1), complex),
    "not a number": np.full((40, 40), np.nan + 0j),
    "infinite": np.full((40, 40), np.inf + 0j),
    "zero": np.zeros((40, 40), complex),
    "thin": np.ones((1, 5000), complex),
    "of layers": np.ones((2, 40, 40), complex),
    "text": np.full((4, 4), "a"),
    "huge": np.full((40, 40), 1e300 + 1e300j),
    "one number": np.float64(3),
}


@pytest.mark.parametrize("key", ["object", "coverage", "origin_xy", "probe", "object_pixel_size_m"])
def test_images(key: str, store: Path, tmp_path: Path) -> None:
    good = dict(np.load(store / "image" / "reconstruction.npz"))
    wrong = {}
    for case, value in _ARRAYS.items():

        def made(value: Any = value) -> None:
            np.savez("image/reconstruction.npz", **{**good, key: value})

        for words, codes in (
            (["report", "image"], (0,)),
            (["evaluate", "image", "scan.npz"], (0, 2)),
            (["compare", "image", "scan.npz"], (0, 2)),
        ):
            wrong[f"{case}, {words[0]}"] = attack(store, tmp_path / "work", words, made, codes)
    assert {case: said for case, said in wrong.items() if said} == {}


_TRUTHS: dict[str, dict[str, Any]] = {
    "a box of no numbers": {"roi": np.full(4, np.nan)},
    "a box outside": {"roi": np.array([0, 2**62, 0, 2**62])},
    "a box of three": {"roi": np.array([1, 2, 3])},
    "a box turned round": {"roi": np.array([50, 5, 50, 5])},
    "a box of text": {"roi": np.array("abcd")},
    "a truth of text": {"object_true": np.array("x")},
    "a truth of nothing": {"object_true": np.zeros((0, 0), complex)},
    "a truth of zeros": {"object_true": np.zeros((60, 60), complex)},
    "a truth of objects": {"object_true": np.array({}, object)},
    "a truth that is not finite": {"object_true": np.full((60, 60), np.inf + 0j)},
}


@pytest.mark.parametrize("case", _TRUTHS)
def test_an_optional_truth(case: str, store: Path, tmp_path: Path) -> None:
    """Refused before the work, or told after it with the image kept and exit code 0."""
    good = dict(np.load(store / "scan.npz"))
    wrong = []
    for words in (
        ["infer", "--model", "run", "--data", "scan.npz", "-o", "out"],
        ["evaluate", "image", "scan.npz"],
        ["report", "image", "--data", "scan.npz", "-o", "page.html"],
    ):
        made = attack(
            store, tmp_path / "work", words, lambda: np.savez("scan.npz", **{**good, **_TRUTHS[case]}), (0, 2)
        )
        wrong.append(made)
    assert [said for said in wrong if said] == []


_SCANS: dict[str, dict[str, Any]] = {
    "far away": {"xcoords": np.linspace(0, 1e308, 16)},
    "in one place": {"xcoords": np.zeros(16), "ycoords": np.zeros(16)},
    "numbers of nobody": {"scan_index": np.full(16, np.nan)},
    "a mask of halves": {"bad_pixels": np.full((32, 32), 0.5)},
    "a mask of everything": {"bad_pixels": np.ones((32, 32), bool)},
    "a probe that is one number": {"probeGuess": np.complex64(1)},
    "a probe of no modes": {"probeGuess": np.ones((0, 32, 32), complex)},
    "a probe of 1e300": {"probeGuess": np.full((32, 32), 1e300 + 0j)},
    "labels of text": {"Y": np.array("a")},
    "counts of 2^64": {"diff3d": np.full((16, 32, 32), 2**64 - 1, np.uint64)},
    "a unit of bytes": {"diffraction_unit": np.bytes_(b"\xff")},
    "an energy of nothing": {"energy_eV": np.float64("nan")},
    "a distance of three": {"distance_m": np.ones(3)},
    "a pixel of text": {"detector_pixel_size_m": np.array("abc")},
}


@pytest.mark.parametrize("case", _SCANS)
def test_scans(case: str, store: Path, tmp_path: Path) -> None:
    wrong = []
    for words in (
        ["validate", "bad.npz"],
        ["import", "bad.npz", "-o", "new.h5"],
        ["init", "bad.npz", "-o", "new.yaml"],
        ["infer", "--model", "run", "--data", "bad.npz", "-o", "out"],
    ):
        arrays = {**small_scan(), **_SCANS[case]}
        wrong.append(
            attack(store, tmp_path / "work", words, lambda a=arrays: np.savez("bad.npz", **a), (0, 2))
        )
    assert [said for said in wrong if said] == []

"""What cannot be used is refused in one line with exit code 2, before anything long or anything on disk."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho.cli.main import inference_main, main, train_main
from ptycho.models.bundle import save_bundle

Arrays = dict[str, Any]


def scan_arrays() -> Arrays:
    """The smallest usable scan: 9 patterns of 32 x 32 counts."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(3) * 4.0 + 20, np.arange(3) * 4.0 + 20)
    radius = np.hypot(*np.meshgrid(np.arange(32) - 16, np.arange(32) - 16))
    return {
        "xcoords": x.ravel(),
        "ycoords": y.ravel(),
        "diff3d": rng.poisson(100 * np.exp(-radius / 4), (9, 32, 32)).astype(np.uint16),
        "probeGuess": np.exp(-((radius / 6) ** 2)).astype(np.complex64),
    }


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a good scan, a good YAML, a good bundle; the commands run inside it."""
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "scan.npz", **scan_arrays())
    wide = scan_arrays()
    wide["diff3d"] = np.pad(wide["diff3d"], ((0, 0), (16, 16), (16, 16)))
    wide["probeGuess"] = np.pad(wide["probeGuess"], 16)
    np.savez(tmp_path / "wide.npz", **wide)
    weights = {"w": np.ones(3, np.float32)}
    save_bundle(tmp_path / "model", weights=weights, config={}, state={"N": 32}, backend="pytorch")
    return tmp_path


Capture = pytest.CaptureFixture[str]


def refuse(call: Callable[..., int], argv: list[str], message: str, capsys: Capture) -> None:
    """The command ends with 2, nothing on stdout, and one last line on stderr that fits the message."""
    code = call(argv)
    shown = capsys.readouterr()
    assert code == 2, shown.err
    line = shown.err.strip().splitlines()[-1]
    assert re.search(message, line), line
    assert re.match(r"ptycho\w*( \w+)?: error: ", line), line
    assert "Traceback" not in shown.err and shown.out == ""
    assert "torch.nn" not in shown.err


# name: (words after `ptycho`, message)
FLAGS: dict[str, tuple[str, str]] = {
    "unknown command": ("trian scan.npz", "unknown command 'trian'; nearest command: train"),
    "flag for a command": ("--verbose", "unknown flag '--verbose'"),
    "unknown flag": ("train scan.npz --n_group 5", "unknown flag --n_group; nearest known: --n_groups"),
    "unknown flag with value": ("train scan.npz --epochs=5", "flag --epochs; nearest known: --nepochs"),
    "abbreviated flag": ("train scan.npz --batch 5", "unknown flag --batch; nearest known: --batch_size"),
    "second scan missing": ("train scan.npz other.npz", "more_train_data_files: 'other.npz': no such file"),
    "value for a boolean": (
        "train scan.npz --probe_trainable=maybe",
        "--probe_trainable takes no value: write --probe_trainable or --no-probe_trainable",
    ),
    "value for a negation": (
        "train scan.npz --no-object-big True",
        "--no-object_big takes no value: write --object_big or --no-object_big",
    ),  # fmt: skip
    "value for a switch": ("train scan.npz --quiet 1", "--quiet takes no value: write --quiet"),
    "value of an old flag": ("train scan.npz --max_epochs 0", "--max_epochs 0: must be an integer >= 1"),
    "old flag of training": ("infer --max_epochs 5", "unknown flag --max_epochs"),
    "missing value": ("train scan.npz --nepochs", "--nepochs: expected one argument"),
    "no scan": ("train", "no scan to train on; give SCAN"),
    "scan twice": ("train scan.npz --train_data_file scan.npz", "given twice"),
    "text for a number": ("train scan.npz --nepochs many", "--nepochs many: must be an integer >= 1"),
    "fraction for a whole": ("train scan.npz --batch_size 2.5", "--batch_size 2.5: must be an integer"),
    "zero epochs": ("train scan.npz --nepochs 0", "--nepochs 0: must be an integer >= 1"),
    "negative photons": ("train scan.npz --nphotons -3", "--nphotons -3: must be a number > 0"),
    "nan photons": ("train scan.npz --nphotons nan", "--nphotons nan: must be a number > 0"),
    "infinite rate": ("train scan.npz --learning_rate inf", "--learning_rate inf: must be a number > 0"),
    "odd N": ("train scan.npz --N 63", "--N 63: must be an even integer >= 32"),
    "tiny N": ("train scan.npz --N 16", "--N 16: must be an even integer >= 32"),
    "gridsize zero": ("train scan.npz --gridsize 0", "--gridsize 0: must be an integer >= 1"),
    "unknown choice": ("train scan.npz --scheduler Cosine", "--scheduler Cosine: must be one of 'Default'"),
    "unknown precision": ("train scan.npz --precision 64", "--precision 64: must be one of '32-true'"),
    "unknown backend": ("train scan.npz --backend jax", "--backend jax: must be one of 'pytorch'"),
    "unknown logger": ("train scan.npz --logger wandb", "--logger wandb: must be one of 'csv'"),
    "unknown device": ("train scan.npz --device tpu", "--device tpu: must be one of 'auto'"),
    "unknown network": ("train scan.npz --architecture resnet", "'resnet': must be a registered network"),
    "validation share": ("train scan.npz --val_fraction 0.9", "--val_fraction 0.9: must be a number"),
    "nothing to minimise": ("train scan.npz --nll_weight 0", "nothing to minimise"),
    "too few neighbours": ("train scan.npz --gridsize 3 --neighbor_count 4", "neighbor_count = 4: must be"),
    "two names disagree": ("train scan.npz --n_images 4 --n_groups 5", "n_images = 4: n_groups = 5 differs"),
    "workers needed": ("train scan.npz --persistent_workers", "persistent_workers = True: needs num_workers"),
    "N is not the scan's": ("train scan.npz --N 64", "scan.npz: patterns are 32 x 32 but N is 64"),
    "test of another size": ("train scan.npz --test wide.npz", "wide.npz: patterns are 64 x 64 but N is 32"),
    "no labels": ("train scan.npz --model_type supervised", "'supervised' learns from objectGuess"),
    "output is a file": ("train scan.npz -o scan.npz", "scan.npz.* is a file, must be a folder"),
    "no scan file": ("train nowhere.npz", "nowhere.npz.*no such file"),
    "scan is a folder": ("train model", "train_data_file = .*model.*must be a file"),
    "test file missing": ("train scan.npz --test gone.npz", "gone.npz.*no such file"),
    "no checkpoint": ("train scan.npz --resume last.ckpt", "--resume last.ckpt: no such file"),
    "no YAML": ("train scan.npz --config gone.yaml", "gone.yaml: no such file"),
    "no data": ("infer --model model", "no scan to reconstruct; give SCAN"),
    "model missing": ("infer --model gone --data scan.npz", "gone does not exist"),
    "model is a scan": ("infer --model scan.npz --data scan.npz", "scan.npz is a zip archive but not"),
    "model for another N": ("infer --model model --data wide.npz", "64 x 64 but N is 32 in the model"),
    "model flag at inference": ("infer --model model --data scan.npz --N 32", "unknown flag --N"),
    "no output": ("simulate", "required: -o/--output"),
    "output suffix": ("simulate -o scan.h5", "scan.h5: the output must end in .npz"),
    "unknown object": ("simulate -o a.npz --object cat", "object 'cat' is not known"),
    "unknown scan": ("simulate -o a.npz --scan spiral", "scan 'spiral' is not known"),
    "no positions": ("simulate -o a.npz --n_positions 0", "n_positions is 0; it must be a whole number"),
    "step": ("simulate -o a.npz --step_px 0", "step_px is 0.0; it must be a number above 0"),
    "one number of two": ("simulate -o a.npz --amp_range 1", "--amp_range: expected 2 arguments"),
    "range reversed": ("simulate -o a.npz --amp_range 1 0.5", "amp_range is .*lowest first"),
    "object too small": ("simulate -o a.npz --object_shape 20 20", "object_shape is .*needs at least"),
    "nothing to judge": ("evaluate scan.npz scan.npz", "scan.npz has no 'object'"),
    "one file to judge": ("evaluate scan.npz", "the following arguments are required: TRUTH"),
    "pixel size": ("evaluate scan.npz scan.npz --pixel_size_m 0", "--pixel_size_m 0.0: must be a number > 0"),
    "info of no bundle": ("info scan.npz", "not a model bundle"),
    "seed below zero": ("demo --seed -1", "--seed -1: must be an integer >= 0"),
    "demo into a file": ("demo -o scan.npz", "output folder scan.npz: a file is in the way"),
}


@pytest.mark.parametrize("case", FLAGS, ids=lambda name: name.replace(" ", "-"))
def test_flags(work: Path, capsys: Capture, case: str) -> None:
    words, message = FLAGS[case]
    before = sorted(work.rglob("*"))
    refuse(main, words.split(), message, capsys)
    assert sorted(work.rglob("*")) == before, "a refused command leaves nothing behind"


def changed(**changes: Any) -> bytes:
    """The good scan with arrays replaced; None drops one."""
    arrays = {name: value for name, value in {**scan_arrays(), **changes}.items() if value is not None}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def with_value(name: str, index: Any, value: Any, dtype: type = np.float32) -> bytes:
    array = scan_arrays()[name].astype(dtype)
    array[index] = value
    return changed(**{name: array})


def zip_of(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, data)
    return buffer.getvalue()


# name: (bytes of the scan file, message)
FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty file": (lambda: b"", "is empty"),
    "text file": (lambda: b"xcoords,ycoords\n1,2\n", "not an NPZ file"),
    "truncated file": (lambda: changed()[:-500], "truncated or damaged"),
    "damaged member": (lambda: changed().replace(b"\x93NUMPY", b"\x93NOMPY"), "damaged|not an array"),
    "zip of text": (lambda: zip_of("readme.txt", b"hello"), "no 'xcoords'|no 'diff3d'|lacks|missing"),
    "no patterns": (lambda: changed(diff3d=None), "diff3d"),
    "no positions": (lambda: changed(xcoords=None), "xcoords"),
    "no probe": (lambda: changed(probeGuess=None), "probeGuess"),
    "pickled objects": (lambda: changed(objectGuess=np.array([{}, 1], object)), "Python objects|pickle"),
    "lengths differ": (lambda: changed(ycoords=np.arange(8.0)), "xcoords has 9 entries but ycoords has 8"),
    "positions in 2-D": (lambda: changed(xcoords=np.zeros((3, 3))), "xcoords must be one-dimensional"),
    "position is nan": (lambda: with_value("xcoords", 4, np.nan, float), "xcoords holds 1 NaN"),
    "positions are text": (lambda: changed(xcoords=np.array(list("abcdefghi"))), "xcoords has dtype"),
    "empty scan": (
        lambda: changed(xcoords=np.zeros(0), ycoords=np.zeros(0), diff3d=np.zeros((0, 32, 32), np.uint16)),
        "no positions|empty",
    ),
    "pattern is nan": (lambda: with_value("diff3d", (3, 0, 0), np.nan), "diff3d holds NaN.*pattern 3"),
    "pattern is infinite": (lambda: with_value("diff3d", (3, 0, 0), np.inf), "diff3d holds NaN or infinite"),
    "negative counts": (lambda: with_value("diff3d", (2, 1, 1), -1, np.int32), "negative counts.*pattern 2"),
    "negative amplitude": (lambda: with_value("diff3d", (2, 1, 1), -1), "negative amplitude.*pattern 2"),
    "no light": (lambda: changed(diff3d=np.zeros((9, 32, 32), np.uint16)), "every .*pattern is zero"),
    "complex patterns": (lambda: changed(diff3d=np.ones((9, 32, 32), complex)), "diff3d has dtype complex"),
    "one pattern": (lambda: changed(diff3d=np.ones((32, 32), np.uint16)), r"diff3d has shape \(32, 32\)"),
    "patterns not square": (lambda: changed(diff3d=np.ones((9, 32, 30), np.uint16)), "32 x 30"),
    "patterns odd": (
        lambda: changed(diff3d=np.ones((9, 33, 33), np.uint16), probeGuess=np.ones((33, 33), complex)),
        "N is 33: patterns must have an even side",
    ),
    "patterns tiny": (
        lambda: changed(diff3d=np.ones((9, 16, 16), np.uint16), probeGuess=np.ones((16, 16), complex)),
        "at least 32 pixels",
    ),
    "too few patterns": (lambda: changed(diff3d=np.ones((7, 32, 32), np.uint16)), "9 positions"),
    "probe of another size": (lambda: changed(probeGuess=np.ones((64, 64), complex)), "patterns are 32 x 32"),
    "probe is text": (lambda: changed(probeGuess=np.full((32, 32), "a")), "probeGuess has dtype"),
    "probe is nan": (lambda: changed(probeGuess=np.full((32, 32), np.nan + 0j)), "probeGuess holds NaN"),
    "probe is dark": (lambda: changed(probeGuess=np.zeros((32, 32), complex)), "probeGuess is zero"),
    "probe in 1-D": (lambda: changed(probeGuess=np.ones(32, complex)), r"probeGuess has shape \(32,\)"),
    "object in 3-D": (lambda: changed(objectGuess=np.ones((2, 64, 64), complex)), "objectGuess has shape"),
    "object is real": (lambda: changed(objectGuess=np.ones((64, 64))), "objectGuess has dtype float64"),
    "mask of another size": (lambda: changed(bad_pixels=np.zeros((8, 8), bool)), "bad_pixels"),
    "unknown unit": (lambda: changed(diffraction_unit="photons"), "'counts' or 'amplitude'"),
    "unit against dtype": (lambda: changed(diffraction_unit="amplitude"), "unit says 'amplitude'"),
}


@pytest.mark.parametrize("command", ["train", "validate"])
@pytest.mark.parametrize("case", FILES, ids=lambda name: name.replace(" ", "-"))
def test_scan_files(work: Path, capsys: Capture, command: str, case: str) -> None:
    make, message = FILES[case]
    (work / "bad.npz").write_bytes(make())
    before = sorted(work.rglob("*"))
    refuse(main, [command, "bad.npz"], message, capsys)
    assert sorted(work.rglob("*")) == before


# name: (text of the YAML file, message)
YAML: dict[str, tuple[str, str]] = {
    "unknown key": ("nepoch: 5", "bad.yaml: unknown key 'nepoch'; nearest known: 'nepochs'"),
    "unknown model key": ("model: {n: 64}", "unknown key 'model.n'"),
    "wrong type": ("nepochs: many", "nepochs = 'many': must be an integer"),
    "out of bounds": ("execution: {learning_rate: -1}", "learning_rate = -1: must be a number > 0"),
    "quoted boolean": ("probe_trainable: 'yes'", "probe_trainable = 'yes': must be True or False"),
    "key twice": ("nepochs: 5\nnepochs: 6", "'nepochs' is given twice"),
    "tab": ("model:\n\tN: 64", "tabs cannot indent YAML"),
    "a list": ("- nepochs", "must hold 'key: value' lines"),
    "nothing": ("# later", "the file is empty"),
    "code": ("nepochs: !!python/object/apply:os.system ['touch ran']", "bad.yaml"),
    "N is not the scan's": ("model: {N: 64}", "patterns are 32 x 32 but N is 64"),
}


@pytest.mark.parametrize("case", YAML, ids=lambda name: name.replace(" ", "-"))
def test_yaml(work: Path, capsys: Capture, case: str) -> None:
    text, message = YAML[case]
    (work / "bad.yaml").write_text(text)
    refuse(main, ["train", "scan.npz", "--config", "bad.yaml"], message, capsys)
    assert not (work / "ran").exists()


@pytest.mark.parametrize(
    "call, argv, message",
    [
        (train_main, ["--train_data_file", "gone.npz"], "ptycho_train: error: .*gone.npz"),
        (inference_main, ["--model_path", "gone", "--test_data_file", "scan.npz"], "_inference: error: gone"),
    ],
)
def test_known_aliases_refuse_under_their_own_name(
    work: Path, capsys: Capture, call: Callable[..., int], argv: list[str], message: str
) -> None:
    refuse(call, argv, message, capsys)


def test_debug_shows_where(work: Path, capsys: Capture) -> None:
    assert main(["train", "gone.npz", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, message",
    [
        (["train", "gone.npz"], "ptycho train: error: "),
        (["validate", "scan.npz", "--josn"], "ptycho validate: error: unknown flag --josn"),
    ],
)
def test_as_a_process(work: Path, words: list[str], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ptycho.cli", *words],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=work,
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "PATH": ""},
    )
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count("\n") == 1 and done.stdout == ""

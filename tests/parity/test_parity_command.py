"""`ptycho parity` measures what it says: equal backends pass, a changed twin does not, misuse is one line."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from ptycho.cli.main import main
from ptycho.workflows.parity.pair import Pair
from ptycho.workflows.parity.rows import TOLERANCES, Row, relative, row

pytestmark = pytest.mark.tf
SMALL = ["--probe_from", "guess", "--n_filters_scale", "1", "--batch_size", "8"]


@pytest.fixture
def scan(make_scan, tmp_path, monkeypatch) -> Path:
    """A file of 16 patterns of 32 px, in the folder where the command is run."""
    monkeypatch.chdir(tmp_path)
    make_scan(n_positions=16).to_file(tmp_path / "scan.npz")
    return Path("scan.npz")


def rows_of(folder: Path) -> list[dict]:
    return json.loads((folder / "parity.json").read_text())["rows"]


def test_equal_backends_pass_and_three_files_say_so(tf, scan, capsys):
    assert main(["parity", str(scan), "--steps", "3", "-o", "out", *SMALL]) == 0
    shown = capsys.readouterr().out
    assert "equal within every tolerance: out/parity_summary.md" in shown and "TOO FAR" not in shown
    assert {path.name for path in Path("out").iterdir()} == {"parity.json", "parity_summary.md", "parity.png"}
    assert Path("out/parity.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    rows = rows_of(Path("out"))
    assert {r["section"] for r in rows} == {
        "grouping", "normalisation", "operators", "network", "objective", "gradient", "training", "inference"
    }  # fmt: skip
    assert {r["precision"] for r in rows} == {"float32", "float64"}
    assert all(r["passed"] and r["tolerance"] in TOLERANCES[r["precision"]].values() for r in rows)
    names = {r["quantity"] for r in rows}
    assert {"merge", "extract", "illuminate", "diffract", "forward", "patches", "stitched image"} <= names
    assert {"loss at 1 step", "loss at 3 steps", "probe after 3 steps", "log_scale after 1 step"} <= names
    # float32 rows that are exactly equal everywhere would mean that one backend was compared with itself
    assert any(r["error"] > 0 for r in rows if r["section"] == "training")
    summary = Path("out/parity_summary.md").read_text()
    assert "Equal within every tolerance. " in summary and "16 patterns of 32 px" in summary
    assert str(Path.cwd()) not in summary


def test_a_changed_twin_fails_and_is_named(tf, scan, capsys, monkeypatch):
    plain = Pair.of.__func__

    def broken(cls, *arguments, **options):
        pair = plain(cls, *arguments, **options)
        weights = pair.parameters_keras()
        from ptycho.tf.layers import load_neutral_weights

        mine = {name: weights[name] for name in pair.keras.network.neutral}
        mine["stem.bias"] = mine["stem.bias"] + np.float32(1e-3)
        load_neutral_weights(pair.keras.network, mine)
        return pair

    monkeypatch.setattr(Pair, "of", classmethod(broken))
    assert main(["parity", str(scan), "--steps", "1", "--precisions", "float32", "-o", "out", *SMALL]) == 1
    assert "NOT equal: out/parity_summary.md" in capsys.readouterr().out
    passed = {}
    for found in rows_of(Path("out")):
        passed[found["section"]] = passed.get(found["section"], True) and found["passed"]
    assert not any(passed[name] for name in ("network", "objective", "gradient"))
    # what does not depend on the weights, and the image from one bundle, are as they were
    assert all(passed[name] for name in ("grouping", "normalisation", "operators", "inference"))
    summary = Path("out/parity_summary.md").read_text()
    assert "NOT equal: see below." in summary and "## Too far" in summary
    assert "| network | float32 | forward |" in summary.partition("## Too far")[2]


@pytest.mark.parametrize(
    "words, message",
    [
        (["--steps", "0"], "--steps 0: must be at least 1"),
        (["nowhere.npz"], "nowhere.npz"),
        (["--precisions", "float16"], "float16"),
        (["--architecture", "swiftt"], "architecture = 'swiftt'"),
    ],
)
def test_misuse_is_one_line_and_nothing_is_written(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["parity", *words, "-o", "out"]) == 2
    shown = capsys.readouterr().err
    assert message in shown and "Traceback" not in shown
    assert list(tmp_path.iterdir()) == []


def test_without_tensorflow_the_remedy_is_named(make_scan, scan, monkeypatch, capsys):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "tensorflow" else there(name, *more)
    )
    assert main(["parity", str(scan), "-o", "out", *SMALL]) != 0
    assert "ptycho parity needs TensorFlow: pip install 'ptychopinn[tf]'" in capsys.readouterr().err


def test_what_a_row_measures():
    assert relative([1.0, 2.0], [1.0, 4.0]) == 0.5
    assert relative([1.0], [1.0, 1.0]) == np.inf == relative([np.nan], [1.0])
    assert relative([0.0], [0.0]) == 0 and relative(np.zeros(0), np.zeros(0)) == 0
    assert relative([1j], [1.0]) == pytest.approx(np.sqrt(2))
    assert relative([1.0], [2.0], scale=10) == 0.1
    assert not row("s", "q", "float32", "exact", 1.0, 1.0 + 1e-12).passed
    assert row("s", "q", "float32", "forward", 1.0, 1.0 + 1e-6).passed
    # agreeing with each other is not enough where the oracle says otherwise
    assert not Row("s", "q", "float64", 0.0, 1e-9, oracle_error=1e-3).passed

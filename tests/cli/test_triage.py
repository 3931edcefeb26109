"""Triage in the commands: what `validate` says, `import` marks, and `--skip_bad` leaves out and records."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from skipped_runs import image_without_bad, record

from ptycho.cli.main import main
from ptycho.scan.raw_data import RawData
from ptycho.simulation.scenario import Scenario, simulate

Capture = pytest.CaptureFixture[str]

#: frames that are spoiled, and what is wrong with each
BAD = {17: "dim", 40: "empty", 58: "shifted", 71: "duplicated"}


@pytest.fixture(scope="module")
def clean() -> RawData:
    """A scan of 100 frames of 32 px, 1e5 photons each."""
    made = simulate(
        Scenario(N=32, n_positions=100, step_px=3.0, object="gaussian_random_field", probe_error=0.0)
    )
    return made.raw


def spoiled(raw: RawData, path: Path) -> Path:
    counts = np.array(raw.diff3d)
    rng = np.random.default_rng(1)
    counts[17] = rng.binomial(counts[17], 0.1)
    counts[40] = 0
    counts[58] = np.roll(counts[58], (5, 4), (0, 1))
    counts[71] = counts[70]
    RawData(**{**raw.as_arrays(), "diff3d": counts, "objectGuess": None}).to_file(path)
    return path


@pytest.fixture(scope="module")
def scan(clean: RawData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return spoiled(clean, tmp_path_factory.mktemp("scans") / "scan.npz")


@pytest.fixture(scope="module")
def image(scan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`reconstruct --skip_bad` of the spoiled scan."""
    return image_without_bad(scan, tmp_path_factory.mktemp("image"))


def test_validate_calls_the_bad_frames_and_no_other(scan: Path, capsys: Capture) -> None:
    assert main(["validate", str(scan), "--triage", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {one["frame"]: one["faults"] for one in said["triage"]["frames"]} == {
        m: [w] for m, w in BAD.items()
    }
    kinds = [one["kind"] for one in said["findings"]]
    assert {"triage_dim", "triage_shifted", "empty_patterns", "repeated_patterns"} <= set(kinds)
    assert not {"triage_empty", "triage_duplicated"} & set(kinds)  # that is said already


def test_validate_says_it_in_a_line(scan: Path, capsys: Capture) -> None:
    assert main(["validate", str(scan), "--triage"]) == 0
    line = "triage: 4 of 100 frames look bad: 1 empty, 1 dim, 1 shifted, 1 duplicated"
    assert line in capsys.readouterr().out


def test_a_clean_scan_gives_no_alarm(clean: RawData, tmp_path: Path, capsys: Capture) -> None:
    clean.to_file(tmp_path / "clean.npz")
    assert main(["validate", str(tmp_path / "clean.npz"), "--triage"]) == 0
    assert "triage: all 100 frames look good" in capsys.readouterr().out


def test_import_marks_the_bad_frames_and_keeps_all(scan: Path, tmp_path: Path, capsys: Capture) -> None:
    target = tmp_path / "scan.h5"
    assert main(["import", str(scan), "--triage", "-o", str(target)]) == 0
    assert "triage: 4 of 100 frames look bad" in capsys.readouterr().out
    with h5py.File(target) as archive:
        assert np.flatnonzero(archive["ptychopinn/bad_frames"][:]).tolist() == list(BAD)
        assert len(archive["entry_1/data_1/data"]) == 100
    assert RawData.from_file(target).n_positions == 100


def test_what_was_left_out_is_in_the_record_and_on_the_page(image: Path, scan: Path) -> None:
    skipped = record(image)["skipped"][str(scan.resolve())]
    assert {one["frame"]: one["faults"] for one in skipped["frames"]} == {m: [w] for m, w in BAD.items()}
    page = (image / "report.html").read_text()
    assert "4 of 100: 17 dim; 40 empty; 58 shifted; 71 duplicated" in page
    assert "patterns are zero" not in page  # the page describes the frames that were used


def test_positions_and_patterns_stay_in_step(image: Path, clean: RawData) -> None:
    with np.load(image / "reconstruction.npz") as product:
        np.testing.assert_array_equal(
            product["positions_px"], np.delete(clean.positions_px, list(BAD), axis=0)
        )
        assert len(product["r_per_pattern"]) == 96


def test_the_command_says_it_in_one_line(scan: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["reconstruct", str(scan), "-o", str(tmp_path), "--skip_bad", "--sweeps", "1"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert lines == [
        "triage       scan.npz: 4 of 100 frames look bad: 1 empty, 1 dim, 1 shifted, 1 duplicated; left out"
    ]


def test_a_run_that_goes_on_leaves_out_the_same_frames(scan: Path, image: Path, capsys: Capture) -> None:
    assert main(["reconstruct", str(scan), "-o", str(image), "--resume", "--sweeps", "3"]) == 0
    assert "left out" in capsys.readouterr().out
    assert len(record(image)["skipped"][str(scan.resolve())]["frames"]) == 4


def test_a_run_that_used_all_frames_does_not_go_on_without_some(
    scan: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["reconstruct", str(scan), "-o", str(tmp_path), "--sweeps", "1", "--quiet"]) == 0
    assert record(tmp_path)["skipped"] == {}
    words = ["--resume", "--sweeps", "2", "--skip_bad"]
    assert main(["reconstruct", str(scan), "-o", str(tmp_path), *words]) == 2
    assert "used all frames; leave it out, or start afresh" in capsys.readouterr().err


def test_too_many_bad_frames_are_refused_before_the_folder_is_made(
    clean: RawData, tmp_path: Path, capsys: Capture
) -> None:
    counts = np.array(clean.diff3d)
    counts[1:60] = counts[0]
    RawData(**{**clean.as_arrays(), "diff3d": counts, "objectGuess": None}).to_file(tmp_path / "many.npz")
    out = tmp_path / "out"
    assert main(["reconstruct", str(tmp_path / "many.npz"), "-o", str(out), "--skip_bad"]) == 2
    error = capsys.readouterr().err
    assert "more than half is too many to leave out" in error and error.count("\n") == 1
    assert not out.exists()


def test_train_leaves_them_out_of_every_scan(scan: Path, tmp_path: Path, capsys: Capture) -> None:
    words = "--nepochs 1 --batch_size 32 --n_filters_scale 1 --logger none --accelerator cpu --skip_bad"
    out = tmp_path / "model"
    words += f" --test {scan} --probe_from guess"
    assert main(["train", str(scan), "-o", str(out), *words.split()]) == 0
    assert capsys.readouterr().out.count("4 of 100 frames look bad") == 2
    with np.load(out / "reconstruction.npz") as product:
        assert len(product["positions_px"]) == 96
    assert list(record(out)["skipped"]) == [str(scan.resolve())]


def test_infer_leaves_them_out(clean: RawData, tmp_path: Path) -> None:
    made = simulate(Scenario(N=64, n_positions=64, step_px=4.0))
    counts = np.array(made.raw.diff3d)
    counts[30] = counts[30] // 12
    RawData(**{**made.raw.as_arrays(), "diff3d": counts}).to_file(tmp_path / "scan.npz")
    out = tmp_path / "out"
    assert main(["infer", str(tmp_path / "scan.npz"), "-o", str(out), "--skip_bad", "--quiet"]) == 0
    with np.load(out / "reconstruction.npz") as product:
        np.testing.assert_array_equal(product["positions_px"], np.delete(made.raw.positions_px, 30, axis=0))
    assert record(out)["skipped"]


@pytest.mark.parametrize("command", ["validate", "import", "reconstruct"])
def test_a_model_that_nothing_uses_is_refused(
    scan: Path, tmp_path: Path, capsys: Capture, command: str
) -> None:
    words = [] if command == "validate" else ["-o", str(tmp_path / "out.h5")]
    assert main([command, str(scan), *words, "--triage_model", "x.safetensors"]) == 2
    assert "add --triage or --skip_bad" in capsys.readouterr().err

"""`--resume` of a run that left frames out: the frames of its record, whatever triage would say now."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from skipped_runs import image_without_bad, record

from ptycho.cli.main import main
from ptycho.scan.raw_data import RawData
from ptycho.simulation.scenario import Scenario, simulate

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 frames of 32 px, four of them spoiled."""
    made = simulate(
        Scenario(N=32, n_positions=100, step_px=3.0, object="gaussian_random_field", probe_error=0.0)
    ).raw
    counts = np.array(made.diff3d)
    counts[17] = np.random.default_rng(1).binomial(counts[17], 0.1)
    counts[40] = 0
    counts[58] = np.roll(counts[58], (5, 4), (0, 1))
    counts[71] = counts[70]
    path = tmp_path_factory.mktemp("scans") / "scan.npz"
    RawData(**{**made.as_arrays(), "diff3d": counts, "objectGuess": None}).to_file(path)
    return path


@pytest.fixture(scope="module")
def image(scan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`reconstruct --skip_bad` of that scan."""
    return image_without_bad(scan, tmp_path_factory.mktemp("image"))


def without_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triage that must not be asked."""

    def asked(*_: object, **__: object) -> None:
        raise AssertionError("triage was made anew")

    monkeypatch.setattr("ptycho.workflows.triage.triage", asked)


def test_a_run_that_goes_on_asks_its_record_and_not_triage(
    scan: Path, image: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    changed = record(image)
    frames = changed["skipped"][str(scan.resolve())]["frames"]
    without_looking(monkeypatch)
    assert main(["reconstruct", str(scan), "-o", str(image), "--resume", "--sweeps", "3", "--skip_bad"]) == 0
    line = "4 of 100 frames look bad: 1 empty, 1 dim, 1 shifted, 1 duplicated; left out, as the record says"
    assert line in capsys.readouterr().out
    assert record(image)["skipped"][str(scan.resolve())]["frames"] == frames


@pytest.mark.parametrize(
    "change, words, said",
    [
        (
            {},
            ["--skip_bad", "--triage_model", "other.safetensors"],
            "--triage_model other.safetensors: the run in",
        ),
        ({"n_frames": 90}, [], "left frames out of 90, this scan has 100"),
        ({"frames": [{"frame": 100}]}, [], "names frame 100; this scan has 100"),
        ({"frames": [{"frame": True}]}, [], "its record of frames left out is damaged"),
        (None, [], "left frames out of other.npz, not of"),
    ],
)
def test_flags_and_scans_that_contradict_the_record_are_refused(
    scan: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture,
    change: dict | None, words: list[str], said: str,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    shutil.copytree(image, out)
    known = record(out)
    [before] = known["skipped"].values()
    skipped = {"/x/other.npz": before} if change is None else {str(scan.resolve()): {**before, **change}}
    (out / "provenance.json").write_text(json.dumps({**known, "skipped": skipped}))
    without_looking(monkeypatch)
    assert main(["reconstruct", str(scan), "-o", str(out), "--resume", "--sweeps", "3", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1, error

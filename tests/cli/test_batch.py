"""`ptycho batch`: every scan its own folder, log and exit code; a failure is tried twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ptycho.cli.main import main
from ptycho.simulation import Scenario, simulate
from ptycho.workflows.batch import Estimate, Job, Queue, folders_of, last_line, scans_of, slurm_array

FEW = "--sweeps 1 --start flat --levels 1 --prior none"


@pytest.fixture
def scans(tmp_path: Path, monkeypatch) -> Path:
    """Two scans and a damaged one."""
    for seed in (1, 2):
        raw = simulate(Scenario(N=32, n_positions=16, step_px=3.0, seed=seed)).raw
        raw.to_file(tmp_path / f"scan{seed}.npz")
    (tmp_path / "scan3.npz").write_bytes(b"no scan")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_queue_lists_what_failed_and_goes_on_with_what_is_left(scans, capfd):
    words = ["batch", "scan*.npz", "-o", "made", "--jobs", "2", "--flags", FEW]
    assert main(words) == 1
    said = capfd.readouterr().out
    assert "done         made/scan1" in said and "refused      made/scan3" in said
    assert "not an NPZ file" in said
    rows = {row["folder"]: row for row in json.loads(Path("made/batch.json").read_text())}
    assert [rows[f"made/scan{i}"]["state"] for i in (1, 2, 3)] == ["done", "done", "refused"]
    assert rows["made/scan3"]["tries"] == 1  # a refused input stays refused
    assert Path("made/report.html").is_file() and Path("made/scan1.batch.log").is_file()
    with np.load("made/scan1/reconstruction.npz") as product:
        assert product["object"].dtype == np.complex64
    before = Path("made/scan1/reconstruction.npz").stat().st_mtime_ns
    Path("scan3.npz").write_bytes(Path("scan2.npz").read_bytes())
    assert main(words) == 0
    assert Path("made/scan1/reconstruction.npz").stat().st_mtime_ns == before
    assert "3 done" in capfd.readouterr().out


@pytest.mark.slow
def test_a_dry_run_measures_the_smallest_scan_and_writes_nothing(scans, capfd):
    assert main(["batch", "scan1.npz", "scan2.npz", "-o", "made", "--dry-run", "--flags", FEW]) == 0
    said = capfd.readouterr().out
    assert "2 jobs, 1 at a time: about" in said and "16         32" in said
    assert not Path("made").exists()


def test_bad_words_are_refused_before_any_folder(scans, capfd):
    for words, reason in (
        (["absent*.npz"], "absent*.npz: no such file"),
        (["scan1.npz", "--jobs", "0"], "--jobs 0: must lie between 1 and 1024"),
        (["scan1.npz", "--slurm_set", "mem"], "must be KEY=VALUE"),
        (["scan1.npz", "--flags", "'"], "--flags"),
        (["scan1.npz", "--model", "absent"], "absent"),
    ):
        assert main(["batch", *words, "-o", "made"]) == 2
        assert reason in capfd.readouterr().err
    assert not Path("made").exists()


def test_a_failed_job_is_tried_twice_and_a_refused_one_once(tmp_path):
    jobs = [Job(Path("a"), tmp_path / name, tuple(words)) for name, words in (
        ("crash", ["no-such-command"]), ("refused", ["infer"]),
    )]  # fmt: skip
    codes = {one.job.folder.name: one for one in Queue(2).run(jobs)}
    assert codes["refused"].code == 2 and codes["refused"].tries == 1
    assert codes["refused"].said.startswith("ptycho infer: error:")


def test_names_and_patterns(tmp_path):
    for name in ("a/x.npz", "b/x.npz", "b/y.npz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = scans_of([str(tmp_path / "*" / "*.npz"), str(tmp_path / "b" / "y.npz")])
    assert [path.name for path in found] == ["x.npz", "x.npz", "y.npz"]
    assert [path.name for path in folders_of(found, Path("out"))] == ["a-x", "b-x", "y"]


def test_an_estimate_is_linear_in_pattern_pixels():
    small, large = (Job(Path("s"), Path("o"), (), n, 64) for n in (100, 400))
    estimate = Estimate(2.0, 1e-5, small)
    assert estimate.seconds(large) - 2 == pytest.approx(4 * (estimate.seconds(small) - 2))


def test_the_last_line_of_a_log(tmp_path):
    (tmp_path / "log").write_text("x\n" * 9000 + "the end\n\n")
    assert last_line(tmp_path / "log") == "the end"


@pytest.mark.slow
def test_submitit_runs_the_jobs(scans):
    """Through submitit's own processes of this machine, as SLURM would start them."""
    submitit = pytest.importorskip("submitit")
    words = ("reconstruct", "scan1.npz", "-o", "made/scan1", *FEW.split())
    (number,) = slurm_array(
        [Job(Path("scan1.npz"), Path("made/scan1"), words)], scans / "slurm", workers=1, options={},
        cluster="local",
    )  # fmt: skip
    job = submitit.LocalJob(scans / "slurm", number)
    job.result()
    assert Path("made/scan1/reconstruction.npz").is_file()

"""Faults of large work: a killed job of a batch, a full disk under one process, a missing shard."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from programs import begin, environment, ptycho, small_scan

from ptycho.errors import DataError
from ptycho.scan.raw_data import RawData


def children(process: int) -> list[int]:
    """The processes that a process has started and that live."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    more = [int(word) for task in Path(f"/proc/{process}/task").iterdir()
            for word in (task / "children").read_text().split()]  # fmt: skip
    return sorted({*map(int, found), *more})


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes in /proc")
def test_a_killed_job_of_a_batch_is_named_and_goes_on(tmp_path: Path) -> None:
    """Killed once: the second try goes on from its state. What is killed is said; the other scan is done."""
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", **small_scan())
    process = begin("batch", "a.npz", "b.npz", "-o", "made", "--flags", "--sweeps 300", cwd=tmp_path)
    state = tmp_path / "made" / "a" / "refine.safetensors"
    end = time.monotonic() + 200
    while not state.exists():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.05)
    (job,) = children(process.pid)
    os.kill(job, signal.SIGKILL)
    said, error = process.communicate(timeout=300)
    assert process.returncode == 0, said + error
    rows = {Path(row["folder"]).name: row for row in json.loads((tmp_path / "made/batch.json").read_text())}
    assert [rows[name]["state"] for name in "ab"] == ["done", "done"]
    assert rows["a"]["tries"] == 2 and rows["b"]["tries"] == 1
    assert "second try" in said and "SIGKILL" in (tmp_path / "made" / "a.batch.log").read_text()
    with (
        np.load(tmp_path / "made" / "a" / "reconstruction.npz") as one,
        np.load(tmp_path / "made" / "b" / "reconstruction.npz") as other,
    ):
        # the same scan: the run that was killed and went on gives the image of the one that was not
        np.testing.assert_allclose(one["object"], other["object"], atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of files are Linux's")
@pytest.mark.parametrize("rank, most, place", [(1, 4000, "disk"), (0, 8000, "memory")])
def test_a_full_disk_under_one_process_is_named(tmp_path: Path, rank: int, most: int, place: str) -> None:
    """Process 1 cannot write its scratch file; process 0 cannot write the state."""
    np.savez(tmp_path / "scan.npz", **small_scan())
    helper = Path(__file__).with_name("one_rank.py")
    words = ["reconstruct", "scan.npz", "-o", "made", "--sweeps", "50", "--patterns", place]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(helper),
         str(rank), str(most), *words],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("ptycho reconstruct: error")]
    assert any("full" in line or "may not be as large here" in line for line in said), done.stderr
    assert not (tmp_path / "made" / "reconstruction.npz").exists()
    again = ptycho("reconstruct", "scan.npz", "-o", "made", "--sweeps", "1", "--overwrite", cwd=tmp_path)
    assert again.returncode == 0, again.stderr


def sharded(folder: Path) -> Path:
    """A scan whose patterns are in three other files."""
    arrays = small_scan()
    layout = h5py.VirtualLayout(arrays["diff3d"].shape, np.uint16)
    for number, rows in enumerate(np.array_split(np.arange(16), 3)):
        with h5py.File(folder / f"shard{number}.h5", "w") as shard:
            shard["patterns"] = arrays["diff3d"][rows]
        source = h5py.VirtualSource(f"shard{number}.h5", "patterns", (len(rows), 32, 32))
        layout[rows[0] : rows[-1] + 1] = source
    with h5py.File(folder / "scan.h5", "w") as archive:
        archive.create_virtual_dataset("patterns", layout)
        archive["probe_position_x_px"], archive["probe_position_y_px"] = arrays["xcoords"], arrays["ycoords"]
        archive["probe"] = arrays["probeGuess"]
        archive["object"] = np.ones((80, 80), np.complex64)
        archive["bad_pixels"] = np.zeros((32, 32), bool)
    return folder / "scan.h5"


def test_a_missing_shard_is_named_before_work_and_during_it(tmp_path: Path, capsys, monkeypatch) -> None:
    """HDF5 itself would give zeros for it."""
    from ptycho.cli.main import main

    monkeypatch.chdir(tmp_path)
    raw = RawData.from_file(sharded(tmp_path), patterns="disk")
    assert np.asarray(raw.diff3d[10:12]).any()
    (tmp_path / "shard1.h5").unlink()
    with pytest.raises(DataError, match=r"scan\.h5.*shard1\.h5, which is not there"):
        np.asarray(raw.diff3d[10:12])
    for command in (["validate", "scan.h5"], ["reconstruct", "scan.h5", "-o", "made"]):
        assert main(command) != 0
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 1 and "shard1.h5" in said[0]
    assert not (tmp_path / "made").exists()


def test_an_external_link_to_a_file_that_is_gone_is_named(tmp_path: Path, capsys, monkeypatch) -> None:
    from ptycho.cli.main import main

    monkeypatch.chdir(tmp_path)
    sharded(tmp_path)
    with h5py.File("scan.h5", "a") as archive:
        del archive["patterns"]
        archive["patterns"] = h5py.ExternalLink("gone.h5", "/patterns")
    assert main(["infer", "scan.h5", "-o", "made"]) != 0
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "gone.h5" in said[0]

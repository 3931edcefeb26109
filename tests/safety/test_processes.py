"""Several processes of one reconstruction: one that dies is named, a signal stops all, the state goes on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from programs import begin, processes_of, ptycho, small_scan, wait_for

pytestmark = pytest.mark.slow
LONG = ("--sweeps", "4000")


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    np.savez(tmp_path / "scan.npz", **small_scan())
    return tmp_path / "scan.npz"


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes in /proc")
def test_a_process_that_dies_is_named_and_the_run_goes_on(scan: Path, tmp_path: Path) -> None:
    process = begin("reconstruct", scan, "-o", "made", "--devices", 2, *LONG, cwd=tmp_path)
    wait_for(tmp_path / "made" / "refine.safetensors", process)
    os.kill(processes_of(process.pid)[1], signal.SIGKILL)
    begun = time.monotonic()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "process 1 of 2 was ended by SIGKILL" in error
    assert time.monotonic() - begun < 30
    assert not (tmp_path / "made" / "reconstruction.npz").exists()
    # one process goes on from the state of two, and is stopped in its turn
    again = begin("reconstruct", scan, "-o", "made", "--resume", *LONG, cwd=tmp_path)
    time.sleep(8)
    again.send_signal(signal.SIGTERM)
    _, error = again.communicate(timeout=60)
    assert again.returncode == 143, error
    assert (tmp_path / "made" / "reconstruction.npz").is_file()


def test_sigterm_to_the_launcher_stops_all_in_order(scan: Path, tmp_path: Path) -> None:
    process = begin("reconstruct", scan, "-o", "made", "--devices", 2, *LONG, cwd=tmp_path)
    wait_for(tmp_path / "made" / "refine.safetensors", process)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143, error
    assert (tmp_path / "made" / "reconstruction.npz").is_file()


def test_a_bad_input_is_said_once(tmp_path: Path) -> None:
    ended = ptycho("reconstruct", "absent.npz", "-o", "made", "--devices", 2, cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.count("absent.npz does not exist") == 1
    assert len(ended.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "made").exists()

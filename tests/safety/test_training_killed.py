"""A training by several processes, one of which dies: it is named, and the run goes on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from programs import SMALL, begin, processes_of, ptycho, small_scan, wait_for

from ptycho_torch.fit.within_epoch import place_of

pytestmark = pytest.mark.slow


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes in /proc")
def test_a_killed_process_of_a_training_is_named_and_resume_goes_on(tmp_path: Path) -> None:
    np.savez(tmp_path / "scan.npz", **small_scan(count=64))
    last = tmp_path / "made" / "checkpoints" / "last.ckpt"
    words = ("train", "scan.npz", "-o", "made", *SMALL, "--n_filters_scale", "1", "--devices", 2)
    words += ("--probe_from", "guess", "--batch_size", "2", "--accum_steps", "2")
    words += ("--checkpoint_every_s", "1e-9")
    process = begin(*words, "--nepochs", 4000, cwd=tmp_path)
    wait_for(tmp_path / "made" / "training.log", process)
    log = tmp_path / "made" / "training.log"
    end = time.monotonic() + 120
    while " epoch 1:" not in log.read_text() and time.monotonic() < end:
        time.sleep(0.05)
    os.kill(processes_of(process.pid)[1], signal.SIGKILL)
    begun = time.monotonic()
    said, error = process.communicate(timeout=60)
    assert process.returncode == 1, error
    assert "process 1 of 2 was ended by SIGKILL; the others were stopped" in error
    assert "Traceback" not in error
    assert "processes  2; a step takes 2 batches of 2 together, 4 groups" in said
    assert time.monotonic() - begun < 30
    assert not (tmp_path / "made" / "wts.h5.zip").exists()
    epoch, batches = place_of(torch.load(last, weights_only=True))
    if batches:  # killed within an epoch, nearly always
        fewer = ptycho("train", "--resume", "made", "--devices", "1", cwd=tmp_path)
        assert fewer.returncode == 2 and "reading the scan" not in fewer.stderr
        assert "within an epoch by 2, each of which goes on with its own batches" in fewer.stderr
    # the number of epochs may only grow, so the run that goes on is stopped by the time it may take
    again = ptycho("train", "--resume", "made", "--max_time_s", "1e-6", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert epoch >= 1 and f"resumed at epoch {epoch}" in log.read_text()
    assert (tmp_path / "made" / "wts.h5.zip").is_file()

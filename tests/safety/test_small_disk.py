"""A real disk of 40 kB under a run of two processes: it is named, and what was written before is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from programs import environment, ptycho, small_scan

from ptycho_torch.refine.storage import load_state

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="a disk of memory is Linux's"),
]
WORDS = ("reconstruct", "scan.npz", "-o", "made", "--sweeps", "6", "--levels", "1")


def mount(folder: Path, *options: str) -> None:
    """Put a small disk there; skips the test where this is not permitted."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Path]:
    """A folder beside a small scan, and nothing mounted on it at the end."""
    np.savez(tmp_path / "scan.npz", **small_scan())
    folder = tmp_path / "made"
    folder.mkdir()
    yield folder
    if os.path.ismount(folder):
        subprocess.run(["umount", str(folder)], check=True)


def errors(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("ptycho reconstruct: error")]


def test_a_state_that_the_disk_cannot_take_leaves_the_one_before(made: Path) -> None:
    """The first state fits, the second does not fit beside it. With a larger disk the run goes on."""
    mount(made, "size=40k")
    done = ptycho(*WORDS, "--devices", "2", cwd=made.parent)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    named = [line for line in errors(done.stderr) if "refine.safetensors" in line]
    assert len(named) == 1 and "cannot write made/refine.safetensors: the disk is full" in named[0], (
        done.stderr
    )
    state, _, _ = load_state(made / "refine.safetensors")
    assert state.epoch == 1 and not (made / "reconstruction.npz").exists()
    assert not [path.name for path in made.iterdir() if path.name.startswith(".refine")]
    mount(made, "remount", "size=8m")
    again = ptycho(*WORDS, "--resume", cwd=made.parent)
    assert again.returncode == 0, again.stderr
    assert len(json.loads((made / "history.json").read_text())["r_factor"]) == 6
    whole = ptycho(*WORDS, "-o", "whole", cwd=made.parent)
    assert whole.returncode == 0, whole.stderr
    with (
        np.load(made / "reconstruction.npz") as one,
        np.load(made.parent / "whole" / "reconstruction.npz") as other,
    ):
        np.testing.assert_allclose(one["object"], other["object"], atol=1e-3)


def test_the_disk_of_another_process_is_named(made: Path) -> None:
    """Process 1 alone sees a disk that its scratch file does not fit on, as if it ran on another machine."""
    mount(made, "size=40k")
    subprocess.run(["umount", str(made)], check=True)
    helper = Path(__file__).with_name("own_disk.py")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(helper)]
    done = subprocess.run(
        [sys.executable, *launch, "1", "made", *WORDS, "--patterns", "disk"],
        cwd=made.parent, env=environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode != 0
    (named,) = [line for line in errors(done.stderr) if str(made) in line]
    assert "process 1 of 2: " in named and "scratch file" in named and "free some space" in named
    assert not (made / "reconstruction.npz").exists()
    again = ptycho(*WORDS, "--overwrite", cwd=made.parent)
    assert again.returncode == 0, again.stderr

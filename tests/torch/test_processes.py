"""Several processes give the image of one; one that dies is named, and nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from shared_job import CASES, RESUMED, going_on, solve, stop

pytestmark = pytest.mark.slow


def launch(processes: int, *words: object) -> None:
    """Start a script as `torchrun` does."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    subprocess.run([*command, *map(str, words)], check=True, timeout=300, capture_output=True, text=True)


@pytest.fixture(scope="module", params=[2, 4])
def folder(request, tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp(f"of{request.param}")
    launch(request.param, Path(__file__).with_name("shared_job.py"), made)
    return made


@pytest.fixture(scope="module")
def alone() -> dict[str, object]:
    return {name: solve(name) for name in CASES}


def test_processes_give_the_image_of_one(folder, alone):
    """In float64 only the order of the additions differs: 1e-9 of the largest value after some sweeps.

    A coarse step rounds its field to 1.5e-5, so that there a last bit may become as much. A network decodes
    positions in float32.
    """
    for name, made in alone.items():
        bound = {"two levels": 5e-5, "network": 1e-6}.get(name, 1e-9)
        with np.load(folder / f"{name}.npz") as found:
            for key, value in {
                "object": made.object, "probe": made.probe, "positions": made.positions_xy, "r": made.r_map,
            }.items():  # fmt: skip
                assert np.abs(found[key] - value).max() <= bound * np.abs(value).max(), (name, key)


def close(found, name: str, bound: float) -> bool:
    """Whether an object is that of one uninterrupted process in single precision."""
    whole = solve(name, dtype=torch.complex64).object
    return np.abs(found - whole).max() <= bound * np.abs(whole).max()


@pytest.mark.parametrize("name", RESUMED)
def test_any_number_of_processes_goes_on_from_any_other(folder, tmp_path, name):
    """The state is in single precision: 1e-3 after four sweeps."""
    state = tmp_path / "state.safetensors"
    state.write_bytes((folder / f"{name}.safetensors").read_bytes())
    made = solve(name, **going_on(state))
    assert [row["epoch"] for row in made.history] == [1, 2, 3, 4]
    assert close(made.object, name, 1e-3)


def test_one_process_is_followed_by_several(tmp_path):
    """RAAR's waves of all rows are read by each process, which takes its own."""
    stop("raar", tmp_path / "raar.safetensors")
    launch(3, Path(__file__).with_name("shared_job.py"), tmp_path, "raar")
    with np.load(tmp_path / "raar.npz") as found:
        assert close(found["object"], "raar", 1e-3)

"""Several processes of one training compute what one computes; and in half precision, nearly so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_job import first_step, together, trained

pytestmark = pytest.mark.slow


def run(folder: Path, devices: int, *, accumulate: int = 1, precision: str = "32-true", **changes: Any):
    """(history, weights) of a training; 39 groups train, in ten batches of which the last has three."""
    folder = folder / f"{devices}_{accumulate}_{precision}"
    folder.mkdir()
    execution = {"devices": devices, "accum_steps": accumulate, "precision": precision}
    assert together(devices, trained, folder, changes, execution) == [0] * devices
    return torch.load(folder / "history.pt"), torch.load(folder / "weights.pt")


@pytest.fixture(scope="module")
def of_one(tmp_path_factory):
    return run(tmp_path_factory.mktemp("one"), 1, accumulate=4)


@pytest.mark.parametrize("devices", [2, 4])
def test_a_step_over_four_batches_is_the_same_whoever_takes_them(of_one, tmp_path, devices):
    """Ten batches: two processes take five each; of four, two are idle in the last step."""
    history, weights = run(tmp_path, devices, accumulate=4 // devices)
    assert history.keys() == of_one[0].keys()
    for name, values in of_one[0].items():
        np.testing.assert_allclose(history[name], values, rtol=1e-5, err_msg=name)
    for name, value in of_one[1].items():
        torch.testing.assert_close(weights[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("devices, accumulate", [(1, 2), (2, 1)])
def test_two_batches_make_the_step_of_one_twice_as_large(tmp_path, devices, accumulate):
    large, small = tmp_path / "large", tmp_path / "small"
    for folder, job in ((large, ([16], 1, 1)), (small, ([8, 8], devices, accumulate))):
        folder.mkdir()
        assert together(job[1], first_step, folder, *job) == [0] * job[1]
    wanted, found = torch.load(large / "moved.pt"), torch.load(small / "moved.pt")
    size = max(float(value.abs().max()) for value in wanted.values())
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5 * size)


def test_half_precision_of_two_processes_is_close(of_one, tmp_path):
    history, weights = run(tmp_path, 2, accumulate=2, precision="bf16-mixed")
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
    for name in ("train_loss", "val_loss"):
        np.testing.assert_allclose(history[name], of_one[0][name], rtol=0.05)
        assert history[name] != of_one[0][name]

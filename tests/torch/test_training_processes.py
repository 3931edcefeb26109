"""Several processes of one training compute what one computes; and in half precision, nearly so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_job import broken, counted, first_step, resumed, together, trained

from ptycho.config.config import PyTorchExecutionConfig
from ptycho.errors import ConfigError
from ptycho.simulation import Scenario, simulate
from ptycho_torch.devices import check_devices
from ptycho_torch.fit.within_epoch import place_of

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
    history, weights = run(tmp_path, devices, accumulate=4)
    assert history.keys() == of_one[0].keys()
    for name, values in of_one[0].items():
        np.testing.assert_allclose(history[name], values, rtol=1e-5, err_msg=name)
    for name, value in of_one[1].items():
        torch.testing.assert_close(weights[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("devices, accumulate", [(1, 2), (2, 1), (2, 2)])
def test_two_batches_make_the_step_of_one_twice_as_large(tmp_path, devices, accumulate):
    large, small = tmp_path / "large", tmp_path / "small"
    for folder, job in ((large, ([16], 1, 1)), (small, ([8, 8], devices, accumulate))):
        folder.mkdir()
        assert together(job[1], first_step, folder, *job) == [0] * job[1]
    wanted, found = torch.load(large / "moved.pt"), torch.load(small / "moved.pt")
    size = max(float(value.abs().max()) for value in wanted.values())
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5 * size)


def test_a_step_that_devices_cannot_share_is_refused():
    with pytest.raises(ConfigError, match="accum_steps = 3 with 2 devices: .* set a multiple of 2, or leave"):
        check_devices(PyTorchExecutionConfig(devices=2, accum_steps=3, accelerator="cpu"))


def test_one_process_goes_on_after_an_epoch_of_two(of_one, tmp_path):
    """As long as a step takes as many batches: four."""
    first, second = {"devices": 2, "accum_steps": 4}, {"devices": 1, "accum_steps": 4}
    assert together(2, trained, tmp_path, {"nepochs": 1}, first) == [0, 0]
    assert together(1, resumed, tmp_path, {}, second) == [0]
    history, weights = torch.load(tmp_path / "history.pt"), torch.load(tmp_path / "weights.pt")
    for name, values in of_one[0].items():
        np.testing.assert_allclose(history[name], values, rtol=1e-5, err_msg=name)
    for name, value in of_one[1].items():
        torch.testing.assert_close(weights[name], value, rtol=1e-5, atol=1e-6)


def test_half_precision_of_two_processes_is_close(of_one, tmp_path):
    history, weights = run(tmp_path, 2, accumulate=4, precision="bf16-mixed")
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
    for name in ("train_loss", "val_loss"):
        np.testing.assert_allclose(history[name], of_one[0][name], rtol=0.05)
        assert history[name] != of_one[0][name]


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    return run(tmp_path_factory.mktemp("two"), 2)


def test_each_process_reads_the_rows_of_its_own_batches_alone(tmp_path):
    """Three scans on disk: in an epoch every training pattern is read once, by one process of two."""
    sizes = (20, 30, 40)
    for number, size in enumerate(sizes):
        scan = simulate(Scenario(N=32, n_positions=size, step_px=3.0, photons=1e4, seed=number))
        scan.raw.to_file(tmp_path / f"{number}.npz")
    assert together(2, counted, tmp_path) == [0, 0]
    rows = [{tuple(row) for row in np.load(tmp_path / f"rows.{rank}.npy").tolist()} for rank in (0, 1)]
    assert not rows[0] & rows[1]
    trains = [size - round(0.1 * size) for size in sizes]
    assert [sum(scan == number for scan, _ in rows[0] | rows[1]) for number in range(3)] == trains
    assert abs(len(rows[0]) - len(rows[1])) <= 8  # two batches


ANOTHER = "RunError: process {} of 2: another process of this run has ended"
FAULTS = {
    "killed": {0: ANOTHER.format(0)},
    "full": {0: "RunError: cannot write .*last.ckpt: a file may not be as large here", 1: ANOTHER.format(1)},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_one_process_is_named_and_nothing_is_lost(of_two, tmp_path, fault):
    """Both take five steps an epoch; the fault comes in the eighth, after a checkpoint of the seventh."""
    execution = {"devices": 2, "checkpoint_every_s": 1e-9}
    ended = together(2, broken, tmp_path, {}, execution, fault, 8)
    assert ended == ([1, -9] if fault == "killed" else [1, 1])
    for rank, said in FAULTS[fault].items():
        seconds, error = (tmp_path / f"error.{rank}").read_text().split("\n", 1)
        assert re.match(said, error) and "\n" not in error, error
        assert float(seconds) < 20
    last = tmp_path / "checkpoints" / "last.ckpt"
    assert place_of(torch.load(last, weights_only=True)) == (1, 2)
    assert not list(last.parent.glob(".last*"))
    assert together(2, resumed, tmp_path, {}, {"devices": 2}) == [0, 0]
    assert torch.load(tmp_path / "history.pt") == of_two[0]
    weights = torch.load(tmp_path / "weights.pt")
    assert all(torch.equal(value, weights[name]) for name, value in of_two[1].items())

"""The training of the positions network: its maps, its file, its end after a stop; and what ships."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from ptycho.config.learned import settings_from
from ptycho.positions.scenes import draw_scene
from ptycho.positions.settings import PositionsData, PositionsSettings
from ptycho_torch.learned import fit
from ptycho_torch.positions.pairs import collect, joined
from ptycho_torch.positions.task import PAIRS, PositionsTask, each_loss, examples, logits_of, on_grid
from ptycho_torch.refine.beliefs import BeliefNetwork, load_network

DATA = {"scans": 1, "judged_scans": 1, "sides": [32], "n_positions": [16, 16]}


def settings(folder: Path, **more: Any) -> PositionsSettings:
    given = {
        "output_dir": folder, "epochs": 2, "steps_per_epoch": 2, "batch_size": 4, "channels": 4, "data": DATA,
        "accelerator": "cpu", "logger": "none", "figures_every": 2,
    }  # fmt: skip
    return settings_from(PositionsSettings, {**given, **more}, "test")


class Stopped(PositionsTask):
    """Is stopped in its second epoch."""

    def batch(self, epoch: int, step: int) -> dict[str, torch.Tensor]:
        if epoch == 1 and step == 1:
            raise RuntimeError("killed")
        return super().batch(epoch, step)


def test_one_seed_gives_one_file_and_a_stopped_training_ends_with_the_same(tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        made = settings(tmp_path / name)
        found = fit(PositionsTask(made), made)
        files.append((tmp_path / name / "positions.safetensors").read_bytes())
    assert files[0] == files[1]
    assert {"loss", "rms_px", "formula_px", "formula_loss"} <= set(found.best)
    assert (tmp_path / "one" / "figures" / "beliefs_002.png").is_file()
    network = load_network(tmp_path / "one" / "positions.safetensors")
    assert isinstance(network, BeliefNetwork) and not network.training
    stopped = settings(tmp_path / "part")
    with pytest.raises(RuntimeError, match="killed"):
        fit(Stopped(stopped), stopped)
    again = dataclasses.replace(stopped, resume=True)
    fit(PositionsTask(again), again)
    assert (tmp_path / "part" / "positions.safetensors").read_bytes() == files[0]
    assert (tmp_path / "part" / PAIRS).read_bytes() == (tmp_path / "one" / PAIRS).read_bytes()


def test_what_ships_sees_the_true_shift_better_than_the_formula() -> None:
    """On maps of scans that no training has seen: a nearer mean and more weight at the truth, by medians."""
    data = PositionsData(n_positions=(36, 36), sides=(64,), photons=(1e5, 1e5), errors_px=(7, 7), drifts=0)
    alone = dataclasses.replace(data, helped=0.0)
    pairs = joined(collect(draw_scene(alone, (78, k)), k) for k in range(2))
    made = examples(pairs.at(on_grid(pairs).nonzero()[:, 0]))
    formula = made["parts"].sum(1).flatten(1).masked_fill(made["dark"], float("-inf"))
    network, by_formula = (
        each_loss(logits, made, lambda each: each.median())
        for logits in (logits_of(load_network(), made), formula)
    )
    assert float(network["distance"]) < float(by_formula["distance"])
    assert float(network["entropy"]) < 0.8 * float(by_formula["entropy"])

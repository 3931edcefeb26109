"""The training of the positions network: maps of searches, and the shifts that they should have led to."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ptycho.config.learned import plain
from ptycho.io.tensors import read_tensors, write_tensors
from ptycho.positions.scenes import draw_scene, targets
from ptycho.positions.settings import PositionsSettings
from ptycho_torch.layers import draw_he
from ptycho_torch.learned import Task
from ptycho_torch.positions.pairs import Pairs, collect, joined, prior_map, shifts_of
from ptycho_torch.refine.beliefs import BeliefNetwork, pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: first numbers of the seeds of scans for training and for evaluation
_TRAIN, _JUDGE = 1, 2
#: the collected maps, in the folder of a training: one that goes on reads them
PAIRS = "pairs.safetensors"
_DIGEST = "settings"
Reduce = Callable[[Tensor], Tensor]


class PositionsTask(Task[PositionsSettings]):
    """Maps of the engine's own searches; the belief should lie where the pattern truly was."""

    name = "positions"
    terms = {"entropy": 1.0, "distance": 1.0}
    monitor = "val/loss"
    bar = ("train_loss", "val/loss", "val/rms_px", "val/formula_px")

    def __init__(self, settings: PositionsSettings) -> None:
        super().__init__(settings)
        self._pairs: Pairs | None = None
        self._judged: Pairs | None = None

    def build(self) -> nn.Module:
        network = BeliefNetwork(self.settings.channels)
        draw_he(network, self.settings.seed, zero=("leave", "sharpness"))
        return network

    def batch(self, epoch: int, step: int) -> dict[str, Tensor]:
        if self._pairs is None:
            self._pairs = self._kept_pairs()
        rng = np.random.default_rng([self.settings.seed, 3, epoch, step])
        index = torch.from_numpy(rng.integers(len(self._pairs), size=self.settings.batch_size))
        return examples(self._pairs.at(index).turned(int(rng.integers(8))))

    def losses(self, network: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        # a grid that the truth lies beyond teaches nothing about the shifts on it
        share = batch["on_grid"] / batch["on_grid"].mean().clamp_min(1e-6)
        return each_loss(logits_of(network, batch), batch, lambda each: (share * each).mean())

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        if self._judged is None:
            alone = dataclasses.replace(self.settings.data, helped=0.0)
            seeds = [(self.settings.seed, _JUDGE, k) for k in range(alone.judged_scans)]
            self._judged = joined(collect(draw_scene(alone, seed), seed[-1]) for seed in seeds)
            self._judged = self._judged.at(on_grid(self._judged).nonzero()[:, 0])
        device = next(network.parameters()).device
        every = examples(self._judged)
        found: dict[str, list[Tensor]] = {}
        with torch.no_grad():
            for part in torch.arange(len(self._judged)).split(256):
                batch = {name: value[part].to(device) for name, value in every.items()}
                formula = batch["parts"].sum(1).flatten(1).masked_fill(batch["dark"], float("-inf"))
                for name, logits in (("", logits_of(network, batch)), ("formula_", formula)):
                    for term, value in each_loss(logits, batch, lambda each: each).items():
                        found.setdefault(name + term, []).append(value)
        mean = {name: torch.cat(values) for name, values in found.items()}
        rms = {name: float(mean[name].square().mean().sqrt()) for name in ("distance", "formula_distance")}
        return {
            "loss": float(mean["entropy"].mean()),
            "formula_loss": float(mean["formula_entropy"].mean()),
            "rms_px": rms["distance"],
            "formula_px": rms["formula_distance"],
            "median_px": float(mean["distance"].median()),
            "formula_median_px": float(mean["formula_distance"].median()),
        }

    def shown(self, network: nn.Module) -> dict[str, Figure]:
        from ptycho_torch.positions.figures import draw_beliefs

        if self._judged is None:
            return {}
        some = self._judged.at(torch.linspace(0, len(self._judged) - 1, 5).long())
        device = next(network.parameters()).device
        batch = {name: value.to(device) for name, value in examples(some).items()}
        with torch.no_grad():
            weights = torch.softmax(logits_of(network, batch), 1).cpu()
        formula = batch["parts"].sum(1).flatten(1).masked_fill(batch["dark"], float("-inf"))
        return {"beliefs": draw_beliefs(some, torch.softmax(formula, 1).cpu(), weights)}

    def export(self, network: nn.Module, folder: Path) -> list[Path]:
        path = folder / "positions.safetensors"
        weights = {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()}
        write_tensors(path, weights, {"tool": self.name})
        return [path]

    def _kept_pairs(self) -> Pairs:
        """The maps to train on: those in the folder if they are of these settings, else new ones."""
        path = self.settings.output_dir / PAIRS
        digest = self._digest()
        if self.settings.resume and path.is_file():
            arrays, texts = read_tensors(path)
            if texts.get(_DIGEST) == digest:
                return Pairs(**{name: torch.from_numpy(value) for name, value in arrays.items()})
        data, seed = self.settings.data, self.settings.seed
        made = joined(collect(draw_scene(data, (seed, _TRAIN, k)), k) for k in range(data.scans))
        arrays = {one.name: getattr(made, one.name).numpy() for one in dataclasses.fields(made)}
        write_tensors(path, arrays, {_DIGEST: digest})
        return made

    def _digest(self) -> str:
        """A hash of all that the collected maps depend on."""
        words = json.dumps([self.settings.seed, plain(self.settings.data)], sort_keys=True)
        return hashlib.sha256(words.encode()).hexdigest()


def examples(pairs: Pairs) -> dict[str, Tensor]:
    """Maps as the network sees them, with what it should say.

    seen (B, 9, S, S), parts (B, 2, S, S), wanted (B, S^2) weights, true (B, 2) px, shifts (B, S^2, 2) px, all
    float32; on_grid (B,) float32, 1 where the grid reaches the truth; dark (B, S^2) bool, off the canvas.
    """
    misfits, shifts = pairs.misfits.flatten(1), shifts_of(pairs)
    seen, parts = pictures(misfits, prior_map(pairs), pairs.noise, pairs.step_px, pairs.radius_px)
    # a padded map has shifts beyond its own grid
    reach = reach_px(pairs)[:, None]
    true = pairs.true_xy.maximum(-reach).minimum(reach)
    wanted = targets(true.double().numpy(), shifts.double().numpy(), pairs.step_px.double().numpy())
    return {
        "seen": seen,
        "parts": parts,
        "wanted": torch.from_numpy(wanted).float(),
        "true": pairs.true_xy,
        "shifts": shifts,
        "on_grid": on_grid(pairs).float(),
        "dark": misfits.isinf(),
    }


def reach_px(pairs: Pairs) -> Tensor:
    """The largest shift (B,) of each map's own grid along an axis, px."""
    return (pairs.radius_px / pairs.step_px + 1e-6).floor() * pairs.step_px


def on_grid(pairs: Pairs) -> Tensor:
    """Whether the true shift of each map (B,) lies on its grid."""
    return pairs.true_xy.abs().amax(1) <= reach_px(pairs)


def logits_of(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The network's logits (B, S^2), minus infinity off the canvas."""
    return network(batch["seen"], batch["parts"]).flatten(1).masked_fill(batch["dark"], float("-inf"))


def each_loss(logits: Tensor, batch: dict[str, Tensor], summed: Reduce) -> dict[str, Tensor]:
    """Cross entropy against the wanted weights, nats, and distance of the mean from the truth, px."""
    logs = torch.log_softmax(logits, 1)
    entropy = -(batch["wanted"] * logs.masked_fill(batch["dark"], 0.0)).sum(1)
    mean = (logs.exp()[..., None] * batch["shifts"]).sum(1)
    distance = ((mean - batch["true"]).square().sum(1) + 1e-4).sqrt()
    return {"entropy": summed(entropy), "distance": summed(distance)}

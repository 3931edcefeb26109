"""The training of the network that predicts a warp: pairs of simulated objects with a known distortion."""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ptycho.errors import MissingDependencyError
from ptycho.io.tensors import read_tensors, write_tensors
from ptycho.models.warp_onnx import write_description, write_warp_onnx
from ptycho.simulation.objects import get_object
from ptycho.warp.distortions import random_warp
from ptycho.warp.network_shape import POINTS, SIDE
from ptycho.warp.splines import spline_basis
from ptycho.warp.training import WarpSettings
from ptycho.warp.warp import Warp
from ptycho_torch.learned import Task
from ptycho_torch.warp.field import backward_warp
from ptycho_torch.warp.losses import fold_penalty
from ptycho_torch.warp.network import WarpNetwork, details, displacements

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

_OBJECT, _PAD, _LATTICE = 240, 16, 32
#: number of epochs that share a pool of objects
_KEPT = 4
_RADIUS = (SIDE - 1) / 2
_EVALUATION = 1_000_000  # seeds above this belong to objects that no training uses


class WarpTask(Task[WarpSettings]):
    """Pairs: a crop of an object, and the same under a random warp, both with noise and a random gauge."""

    name = "warp"
    terms = {"displacement": 1.0, "fold": 10.0, "bend": 1e-3}
    monitor = "val/rms_px"
    bar = ("train_loss", "val/rms_px", "val/before_px")

    def __init__(self, settings: WarpSettings) -> None:
        super().__init__(settings)
        line = np.linspace(-1, 1, _LATTICE)
        self._places = torch.tensor(line, dtype=torch.float32)
        self._basis = torch.tensor(spline_basis(line + 1, POINTS, 2.0), dtype=torch.float32)
        self._judged: dict[str, Tensor] | None = None

    def build(self) -> nn.Module:
        return WarpNetwork(self.settings.channels, self.settings.seed)

    def batch(self, epoch: int, step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.settings.seed, 1, epoch, step])
        return self._pairs(rng, self.settings.batch_size, 1 + epoch // _KEPT * self.settings.data.pool)

    def losses(self, network: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        values, points = network(batch["images"])
        found = displacements(values, points, self._places.to(values), self._basis.to(values))
        error = (found - batch["field"]) * _RADIUS
        step = 2.0 / (_LATTICE - 1)
        folds = torch.stack([fold_penalty(field / step, 0.1) for field in found])
        bend = points[..., 2:, :] - 2 * points[..., 1:-1, :] + points[..., :-2, :]
        return {
            "displacement": torch.sqrt(error.square().sum(-1) + 0.01).mean(),
            "fold": folds.mean(),
            "bend": (bend * _RADIUS).square().mean(),
        }

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        if self._judged is None:
            rng = np.random.default_rng([self.settings.seed, 2])
            self._judged = self._pairs(rng, self.settings.judged, _EVALUATION)
        with torch.no_grad():
            device = next(network.parameters()).device
            found: dict[str, list[Tensor]] = {"square": [], "loss": []}
            for part in torch.arange(self.settings.judged).split(32):
                batch = {name: value[part].to(device) for name, value in self._judged.items()}
                losses = self.losses(network, batch)
                values, points = network(batch["images"])
                field = displacements(values, points, self._places.to(device), self._basis.to(device))
                found["square"].append(((field - batch["field"]) * _RADIUS).square().sum(-1).mean((1, 2)))
                found["loss"].append(losses["displacement"][None])
            each = torch.cat(found["square"]).sqrt()
            before = (self._judged["field"] * _RADIUS).square().sum(-1).mean().sqrt()
        return {
            "loss": float(torch.cat(found["loss"]).mean()),
            "rms_px": float(each.square().mean().sqrt()),
            "median_px": float(each.median()),
            "before_px": float(before),
        }

    def shown(self, network: nn.Module) -> dict[str, Figure]:
        from ptycho.report.warp import draw_fields

        rng = np.random.default_rng([self.settings.seed, 2])
        batch = self._pairs(rng, 3, _EVALUATION)
        with torch.no_grad():
            device = next(network.parameters()).device
            values, points = network(batch["images"].to(device))
            found = displacements(values, points, self._places.to(device), self._basis.to(device)).cpu()
        rows = [
            (images[0].numpy(), images[2].numpy(), (true * _RADIUS).numpy(), (made * _RADIUS).numpy())
            for images, true, made in zip(batch["images"], batch["field"], found, strict=True)
        ]
        return {"warp": draw_fields(rows)}

    def export(self, network: nn.Module, folder: Path) -> list[Path]:
        target = folder / "warp.safetensors"
        write_weights(target, network)
        weights = read_tensors(target)[0]
        try:
            return [target, *write_warp_onnx(weights, folder)]
        except MissingDependencyError as error:
            log.warning("no warp.onnx was written: %s", error)
            return [target, write_description(weights, folder)]

    def _pairs(self, rng: np.random.Generator, count: int, first: int) -> dict[str, Tensor]:
        """count pairs of objects whose seeds begin at `first`: images (B,4,128,128), field (B,32,32,2)."""
        data = self.settings.data
        kinds = self.settings.kinds()
        crops, fields, warps = [], [], []
        side = SIDE + 2 * _PAD
        for _ in range(count):
            number = first + int(rng.integers(data.pool))
            whole = _object(kinds[number % len(kinds)], number)
            top, left = rng.integers(0, _OBJECT - side + 1, 2)
            crop = np.rot90(whole[top : top + side, left : left + side], int(rng.integers(4)))
            crops.append(crop[:, ::-1] if rng.random() < 0.5 else crop)
            # computed on the small lattice: fewer pixels, the same numbers in unit radii
            share = (SIDE - 1) / (_LATTICE - 1)
            small = random_warp((_LATTICE, _LATTICE), data.largest_px / share * rng.uniform(0.05, 1.0), rng)
            warps.append(
                Warp((SIDE, SIDE), small.values, None if small.points is None else small.points * share)
            )
            fields.append(small.field() / small.radius_px)
        field = torch.tensor(np.stack(fields), dtype=torch.float32)
        image = torch.from_numpy(np.stack(crops).astype(np.complex64))
        moves = torch.tensor(np.stack([warp.field() for warp in warps]), dtype=torch.float32)
        parts = torch.stack([image.real, image.imag], 1)
        drawn = backward_warp(parts, _padded(moves, side), mode="bicubic")
        inner = slice(_PAD, _PAD + SIDE)
        pair = [drawn[:, :, inner, inner], parts[:, :, inner, inner]]
        level = np.exp(rng.uniform(np.log(data.least_noise), np.log(data.most_noise), count)).astype(
            np.float32
        )
        noisy = []
        for one in pair:
            noise = torch.from_numpy(rng.standard_normal(one.shape).astype(np.float32))
            made = one + noise * torch.from_numpy(level)[:, None, None, None] / 2**0.5
            noisy.append(details(torch.complex(made[:, 0], made[:, 1]), torch.ones_like(made[:, 0])))
        return {"images": torch.cat(noisy, 1), "field": field}


def _padded(moves: Tensor, side: int) -> Tensor:
    """A field (B, 128, 128, 2) on a larger grid; its border is repeated."""
    pad = (side - SIDE) // 2
    return F.pad(moves.movedim(-1, 1), [pad] * 4, mode="replicate").movedim(1, -1)


@lru_cache(maxsize=256)
def _object(kind: str, seed: int) -> NDArray[np.complex64]:
    """One object with a contrast of its own, (240, 240) complex64."""
    rng = np.random.default_rng([seed, 3])
    low, turn = float(rng.uniform(0.2, 0.95)), float(rng.uniform(0.1, 2.0))
    return get_object(kind)((_OBJECT, _OBJECT), seed, (low, 1.0), (0.0, turn))


def write_weights(path: Path, network: nn.Module) -> None:
    """Write the weights as float16 by name: half the size without loss of quality."""
    arrays = {name: v.detach().cpu().numpy().astype(np.float16) for name, v in network.named_parameters()}
    write_tensors(path, arrays, {})

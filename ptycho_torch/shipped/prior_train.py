"""Train the learned prior: python -m ptycho_torch.shipped.prior_train --out DIR --seconds 700 --seed 0

First the pool of pairs (prior_pairs.py), then the network on crops of it. DIR gets pool.npz, log.csv (CPU
seconds, step, errors) and state.pt, written every minute of work; the same command goes on from them.
--write FILE.safetensors writes the averaged weights in half precision and ends.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ptycho.io.atomic import atomic_write
from ptycho_torch.refine.learned import Denoiser, denoised
from ptycho_torch.shipped.course import Course
from ptycho_torch.shipped.prior_pairs import Pair, make_pool

_RATE, _LAST_RATE, _WARM_STEPS = 1.5e-3, 0.02, 50
_DECAY = 0.997  # of the moving average that is written
_CROP_PX, _BATCH = 80, 4
_SAVE_S = 60.0
_JUDGED = 24  # the last pairs of the pool are not trained on
_DARK = 6.0  # pixels whose expected error is larger than so many times the smallest do not count


class Training(Course):
    """The denoiser and its pool of pairs; everything follows from seed and step."""

    def __init__(self, pool: list[Pair], seconds: float, seed: int) -> None:
        network = Denoiser()
        network.draw(seed)
        super().__init__(
            network, seconds, seed, rate=_RATE, last=_LAST_RATE, warm=_WARM_STEPS, decay=_DECAY, norm=1.0
        )
        self.pool = pool

    def take_step(self) -> float:
        """One batch of crops; the loss: log of the error after over the error before."""
        rng = np.random.default_rng([self.seed, 1, self.step])
        chosen = rng.integers(len(self.pool), size=_BATCH)
        crops = [_crop(self.pool[int(k)], rng) for k in chosen]
        image, truth, error = (torch.from_numpy(np.stack(part)) for part in zip(*crops, strict=True))
        self.begin_step()
        before, after = errors(self.network, image, truth, error)
        loss = torch.log((after + 1e-3 * before) / before).mean()
        loss.backward()
        self.end_step()
        return float(loss.detach())


def errors(network: nn.Module, image: Tensor, truth: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """Squared errors (B,) of an image and of the network's answer, where light falls, best complex scale."""
    lit = (error < _DARK * error.amin((-2, -1), keepdim=True)).to(error.dtype)
    found = denoised(network, image, error)
    return _misfit(image, truth, lit), _misfit(found, truth, lit)


def _misfit(image: Tensor, truth: Tensor, lit: Tensor) -> Tensor:
    over = (lit * (image.real**2 + image.imag**2)).sum((-2, -1), keepdim=True)
    scale = (lit * image.conj() * truth).sum((-2, -1), keepdim=True) / over
    away = scale * image - truth
    return (lit * (away.real**2 + away.imag**2)).sum((-2, -1))


def _crop(pair: Pair, rng: np.random.Generator) -> list[np.ndarray]:
    """A square of the pair, turned, mirrored and conjugated at random."""
    top, left = (int(rng.integers(0, max(1, side - _CROP_PX + 1))) for side in pair.image.shape)
    turns, mirrored, other = int(rng.integers(4)), rng.random() < 0.5, rng.random() < 0.5
    parts = []
    fields: tuple[np.ndarray, ...] = (pair.image, pair.truth, pair.error)
    for field in fields:
        part = field[top : top + _CROP_PX, left : left + _CROP_PX]
        short = [(0, _CROP_PX - side) for side in part.shape]
        turned = np.rot90(np.pad(part, short, mode="edge"), turns)
        turned = turned[:, ::-1] if mirrored else turned
        parts.append(np.ascontiguousarray(turned.conj() if other else turned))
    return parts


def judge(network: nn.Module, pairs: list[Pair]) -> np.ndarray:
    """Relative errors (P, 2) of whole pairs before and after."""
    rows = []
    for pair in pairs:
        short = [(0, -side % 16) for side in pair.image.shape]
        whole = [
            torch.from_numpy(np.pad(f, short, mode="edge"))[None]
            for f in (pair.image, pair.truth, pair.error)
        ]
        with torch.no_grad():
            before, after = errors(network, *whole)
        lit = pair.error < _DARK * pair.error.min()
        size = float((np.abs(pair.truth[lit]) ** 2).sum())
        rows.append([float(before[0] / size) ** 0.5, float(after[0] / size) ** 0.5])
    return np.array(rows)


def train(out: Path, seconds: float, seed: int, scans: int) -> None:
    """Make the pool, then train until so many CPU seconds are spent, with checkpoints and a log."""
    out.mkdir(parents=True, exist_ok=True)
    pool = make_pool(out / "pool.npz", scans, seed)
    judged, state, log = pool[-_JUDGED:], out / "state.pt", out / "log.csv"
    training = Training(pool[:-_JUDGED], seconds, seed)
    if state.is_file():
        training.load(state)
    before = training.spent_s - time.process_time()
    saved, recent = training.spent_s, []
    while training.spent_s < seconds:
        recent.append(training.take_step())
        training.spent_s = before + time.process_time()
        if training.spent_s - saved > _SAVE_S or training.spent_s >= seconds:
            saved = training.spent_s
            training.save(state)
            found = judge(training.average, judged)
            ratio = float(np.exp(np.log(found[:, 1] / found[:, 0]).mean()))
            with log.open("a", encoding="utf-8") as file:
                line = (
                    f"{training.step},{saved:.0f},{np.mean(recent):.4f},{ratio:.4f},{found[:, 0].mean():.4f}"
                )
                file.write(f"{line},{found[:, 1].mean():.4f}\n")
            recent = []


def write(out: Path, target: Path) -> None:
    """The averaged weights of DIR/state.pt as safetensors, half precision."""
    from safetensors.torch import save_file

    training = Training([], 1.0, 0)
    training.load(out / "state.pt")
    weights = {name: value.half().contiguous() for name, value in training.average.state_dict().items()}
    with atomic_write(target) as temporary:
        save_file(weights, temporary)


def main(given: list[str]) -> None:
    """The command of the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=700.0)
    parser.add_argument("--scans", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, metavar="FILE.safetensors")
    arguments = parser.parse_args(given)
    torch.set_num_threads(1)
    if arguments.write is not None:
        write(arguments.out, arguments.write)
        return
    train(arguments.out, arguments.seconds, arguments.seed, arguments.scans)


if __name__ == "__main__":
    main(sys.argv[1:])

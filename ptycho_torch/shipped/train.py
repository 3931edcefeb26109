"""Train the network that ships: python -m ptycho_torch.shipped.train --out DIR --seconds 1500 --seed 0

Seeded scans, drawn as they are needed. DIR gets log.csv (CPU seconds, step, errors) and state.pt, written
every minute of work; the same command goes on from it. --write FILE.safetensors writes the weights and ends.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch

from ptycho.config.settings import ModelConfig
from ptycho.io.atomic import atomic_write
from ptycho.networks.graphs import spec_from_config
from ptycho_torch.layers import build_network, neutral_weights
from ptycho_torch.shipped.blocks import Block, judge, learn, neighbours
from ptycho_torch.shipped.course import Course
from ptycho_torch.shipped.scans import Drawn, draw_scan

_RATE, _LAST_RATE, _WARM_STEPS = 2e-3, 0.01, 100
_DECAY = 0.998  # of the moving average that ships
_PATTERNS = 64
_ROUNDS = ((1, 2, 4, 8, 16), (0.1, 0.1, 0.35, 0.35, 0.1))
_POOL, _STEPS_A_SCAN = 40, 5
_SAVE_S, _JUDGE_S = 60.0, 180.0
_JUDGED = 12


def shipped_model(N: int = 64) -> ModelConfig:
    """The network that ships, for patterns of N px; its weights do not depend on N."""
    return ModelConfig(N=N, reference="coarse", rounds=4)


class Training(Course):
    """The network and its pool of scans; everything follows from seed and step."""

    def __init__(self, seconds: float, seed: int) -> None:
        network = build_network("swift", spec_from_config(shipped_model()), seed)
        super().__init__(
            network, seconds, seed, rate=_RATE, last=_LAST_RATE, warm=_WARM_STEPS, decay=_DECAY, norm=0.5
        )
        self._pool: list[Drawn] = []

    def take_step(self) -> list[float]:
        """One block of a scan; the errors before and after its rounds."""
        rng = np.random.default_rng([self.seed, 1, self.step])
        scan = self._scan(rng)
        N = scan.probe.shape[-1]
        count = _PATTERNS if N == 64 else _PATTERNS // 2
        block = Block(scan, neighbours(scan, count, rng))
        rounds = int(rng.choice(_ROUNDS[0], p=_ROUNDS[1]))
        self.begin_step()
        errors = learn(self.network, block, rounds)
        self.end_step(usable=all(map(math.isfinite, errors)))
        return errors

    def _scan(self, rng: np.random.Generator) -> Drawn:
        """One of the pool, which starts with one scan and renews its oldest every few steps."""
        if self.step % _STEPS_A_SCAN == 0 or not self._pool:
            self._pool.append(draw_scan((self.seed, 0, self.step)))
            del self._pool[:-_POOL]
        return self._pool[int(rng.integers(len(self._pool)))]


def train(out: Path, seconds: float, seed: int) -> None:
    """Train until so many CPU seconds are spent, with checkpoints and a log."""
    out.mkdir(parents=True, exist_ok=True)
    training, state, log = Training(seconds, seed), out / "state.pt", out / "log.csv"
    if state.is_file():
        training.load(state)
    judged = [draw_scan((seed, 2, number)) for number in range(_JUDGED)]
    before = training.spent_s - time.process_time()
    saved = shown = training.spent_s
    recent: list[tuple[float, float]] = []
    while training.spent_s < seconds:
        errors = training.take_step()
        training.spent_s = before + time.process_time()
        recent.append((errors[0], errors[-1]))
        if training.spent_s - saved > _SAVE_S:
            saved = training.spent_s
            training.save(state)
            start, end = np.median(recent, axis=0)
            _note(log, f"train,{training.step},{saved:.0f},{start:.4f},{end:.4f}")
            recent = []
        if training.spent_s - shown > _JUDGE_S:
            shown = training.spent_s
            _show(log, training, judged)
            before = training.spent_s - time.process_time()  # judging is no training
    training.save(state)
    _show(log, training, judged)


def write(out: Path, target: Path) -> None:
    """The averaged weights of DIR/state.pt by neutral name, as safetensors."""
    from safetensors.torch import save_file

    training = Training(1.0, 0)
    training.load(out / "state.pt")
    with atomic_write(target) as temporary:
        save_file(neutral_weights(training.average), temporary)


def _show(log: Path, training: Training, judged: list[Drawn]) -> None:
    for rounds in (1, 4, 8):
        found = np.array([judge(training.average, scan, rounds) for scan in judged])
        words = [f"{value:.4f}" for value in (*np.median(found, 0)[[0, -1]], found.mean(0)[-1])]
        _note(log, f"judge{rounds},{training.step},{training.spent_s:.0f}," + ",".join(words))


def _note(log: Path, line: str) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def main(given: list[str]) -> None:
    """The command of the module docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=1500.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, metavar="FILE.safetensors")
    arguments = parser.parse_args(given)
    torch.set_num_threads(1)
    if arguments.write is not None:
        write(arguments.out, arguments.write)
        return
    train(arguments.out, arguments.seconds, arguments.seed)


if __name__ == "__main__":
    main(sys.argv[1:])

"""A long life in one process: memory, descriptors and threads stay flat, threads give the bytes of one alone.

    python tests/safety/soak.py [--inferences 200] [--trainings 60] [--reconstructions 60]

Prints, for every tenth of each part, resident memory in MiB, open descriptors and threads. Ends with 1 where
the last quarter needs more than the second: 3 % and 8 MiB of memory, one descriptor or one thread.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from programs import SMALL, small_scan

from ptycho.cli.main import main as ptycho


def needs() -> tuple[float, int, int]:
    """Resident memory in MiB, descriptors, threads of this process."""
    import psutil

    process = psutil.Process()
    return process.memory_info().rss / 2**20, process.num_fds(), process.num_threads()


def repeated(name: str, count: int, act: Callable[[int], Any]) -> bool:
    """Do it `count` times; whether what the process needs stayed flat after the first half."""
    seen = []
    for number in range(count):
        act(number)
        gc.collect()
        seen.append(needs())
        if number % max(1, count // 10) == 0:
            print(
                f"{name:<16} {number:>4}  {seen[-1][0]:8.1f} MiB  {seen[-1][1]} files  {seen[-1][2]} threads",
                flush=True,
            )
    if count < 8:
        return True
    table = np.array(seen)
    early, late = table[count // 4 : count // 2].max(0), table[-count // 4 :].max(0)
    flat = bool(late[0] <= 1.03 * early[0] + 8 and (late[1:] <= early[1:] + 1).all())
    print(
        f"{name:<16} {'flat' if flat else 'GROWS'}: {early.round(1).tolist()} -> {late.round(1).tolist()}",
        flush=True,
    )
    return flat


def refined(path: Path, seed: int) -> bytes:
    from ptycho.scan.raw_data import RawData
    from ptycho_torch.refine import reconstruct

    made = reconstruct(RawData.from_file(path), epochs=5, seed=seed)
    return bytes(np.ascontiguousarray(made.object).tobytes())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inferences", type=int, default=200)
    parser.add_argument("--trainings", type=int, default=60)
    parser.add_argument("--reconstructions", type=int, default=60)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        folder = Path(name)
        np.savez("scan.npz", **small_scan())

        def done(*words: str) -> None:
            code = ptycho([*words, "--quiet"])
            assert code == 0, (code, words)

        done("train", "scan.npz", "-o", "run", "--nepochs", "1", *SMALL)
        image = ("infer", "--model", "run", "--data", "scan.npz", "-o", "image")
        again = ("train", "scan.npz", "-o", "again", "--nepochs", "1", *SMALL)
        made = ("reconstruct", "scan.npz", "-o", "made", "--sweeps", "2")
        flat = [
            repeated("inference", asked.inferences, lambda _: done(*image)),
            repeated("training", asked.trainings, lambda _: done(*again)),
            repeated("reconstruction", asked.reconstructions, lambda _: done(*made)),
        ]
        alone = [refined(folder / "scan.npz", seed) for seed in range(4)]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda seed: refined(folder / "scan.npz", seed), range(4)))
        same = alone == together
        print(f"four reconstructions in threads: {'the same bytes' if same else 'OTHER BYTES'} as alone")
        os.chdir("/")
    return 0 if all(flat) and same else 1


if __name__ == "__main__":
    sys.exit(main())

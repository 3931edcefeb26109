"""Time and memory of stitching a large scan, beside the time of predicting it: prints one line per size.

    OMP_NUM_THREADS=1 python benchmarks/stitching.py [--sizes 25000 50000 100000] [--seed 0]

Patches of 64 x 64 (window 32 x 32) are made a chunk at a time, outside the clock, as a network would hand
them over. Each size runs in a process of its own, so that the peak memory is that size's alone. The
prediction is the default network's on `--predicted` patterns, and scaled to each size: it is linear in
patterns.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ptycho.config.config import DEFAULT_ARCHITECTURE
from ptycho.image.canvas import chunks, make_frame, scan_order, window_weights
from ptycho.image.stitcher import Stitcher
from ptycho.networks.graphs import NetworkSpec
from ptycho_torch.layers import build_network

N, M, CHUNK, STEP_PX = 64, 32, 64, 3.0


def memory_mib(name: str) -> float:
    """VmRSS (now) or VmHWM (peak) of this process; getrusage also counts the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def measure(size: int, seed: int) -> tuple[float, float, float, tuple[int, int]]:
    """(seconds, peak MiB above what the imports take, canvas MiB, shape) of stitching `size` patches."""
    rng = np.random.default_rng(seed)
    positions = rng.uniform(0, STEP_PX * np.sqrt(size), (size, 2))
    axis = np.arange(N) - N // 2
    probe = np.exp(-(axis[:, None] ** 2 + axis**2) / 200)[None].astype(np.complex64)
    patches = torch.from_numpy(rng.standard_normal((CHUNK, N, N, 2)).astype(np.float32))
    patches = torch.view_as_complex(patches)
    before, start = memory_mib("VmRSS"), time.perf_counter()
    frame = make_frame(positions, M)
    stitcher = Stitcher(frame, window_weights(probe, M))
    order = scan_order(positions, CHUNK)
    for part in chunks(size, CHUNK):
        where = positions[order[part]]
        stitcher.add(patches[: len(where)], where)
    image = stitcher.result()
    seconds = time.perf_counter() - start
    assert image.covered.mean() > 0.9
    canvas = frame.shape[0] * frame.shape[1] * (8 + 4) / 2**20
    return seconds, memory_mib("VmHWM") - before, canvas, frame.shape


def predict(count: int, seed: int) -> float:
    """Seconds that the default network takes for `count` patterns, in batches of 64, after one to warm up."""
    network = build_network(DEFAULT_ARCHITECTURE, NetworkSpec(N=N), seed).eval()
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(CHUNK, 1, N, N, generator=generator)
    probe = torch.complex(torch.rand(1, N, N, generator=generator), torch.zeros(1, N, N))
    with torch.inference_mode():
        network(x, probe)
        start = time.perf_counter()
        for part in chunks(count, CHUNK):
            network(x[: part.stop - part.start], probe)
    return time.perf_counter() - start


def main() -> None:
    """Predict once, stitch every size in a fresh process, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[25_000, 50_000, 100_000])
    parser.add_argument("--predicted", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is not None:
        seconds, peak, canvas, shape = measure(args.one, args.seed)
        each = 1e6 * seconds / args.one
        print(f"{args.one:>9d} {seconds:>9.2f} {each:>9.1f} {peak:>9.0f} {canvas:>11.0f}  {shape}")
        return
    print(f"machine    {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"torch      {torch.__version__}, {torch.get_num_threads()} threads; seed {args.seed}")
    print(f"patches    {N} x {N}, window {M} x {M}, chunks of {CHUNK}, one every {STEP_PX:g} px each way")
    taken = predict(args.predicted, args.seed)
    per_pattern = taken / args.predicted
    print(f"prediction {DEFAULT_ARCHITECTURE}: {taken:.2f} s for {args.predicted} patterns (measured),")
    scaled = ", ".join(f"{size * per_pattern:.0f} s for {size}" for size in args.sizes)
    print(f"           scaled linearly: {scaled}\n")
    print("  patches   seconds  us/patch  peak MiB  canvas MiB  canvas (H, W)")
    for size in args.sizes:
        words = [sys.executable, __file__, "--one", str(size), "--seed", str(args.seed)]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        seconds = float(done.stdout.split()[1])
        print(f"{done.stdout.rstrip()}  {100 * seconds / (size * per_pattern):.0f} % of the prediction")
    print("\npeak: above what Python, torch and positions take; canvas: complex64 sum, float32 weight")


if __name__ == "__main__":
    main()

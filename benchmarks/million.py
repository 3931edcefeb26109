"""What a million positions cost beside the network and the engine: checks, groups, stitching, pictures.

    OMP_NUM_THREADS=1 python benchmarks/million.py [--positions 1000000] [--N 32] [--seed 0]

Patterns and patches are made when they are asked for (a block that is repeated, each pattern with its own
mark), so nothing lies on disk. Every line: processor seconds, and the most memory that the process allocated
beyond what it held before the step, sampled every 10 ms. docs/workflows/scale.md has the numbers.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from streaming import memory

_STEP_PX = 4.0


class Steps:
    """Prints what each step took."""

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure the body of a `with`."""
        begun, before = time.process_time(), memory("RssAnon")["RssAnon"]
        done, most = threading.Event(), [before]

        def look() -> None:
            while not done.wait(0.01):
                most[0] = max(most[0], memory("RssAnon")["RssAnon"])

        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        yield
        done.set()
        watcher.join()
        used = time.process_time() - begun
        print(f"{name:<44}{used:>8.1f} CPU s {(most[0] - before) / 2**20:>8.0f} MiB", flush=True)


def scan_of(count: int, N: int, seed: int) -> Any:
    """A jittered raster whose patterns are read by rows, of a block that is repeated with marks."""
    from ptycho.io.lazy import LazyPatterns
    from ptycho.scan.raw_data import RawData

    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(count)))
    raster = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)[:count] * _STEP_PX
    places = raster + rng.uniform(-1, 1, raster.shape) + N // 2 + 2
    radius = np.hypot(*np.meshgrid(np.arange(N) - N // 2, np.arange(N) - N // 2))
    block = rng.poisson(50 * np.exp(-radius / 3), (512, N, N)).astype(np.uint16)

    def read(begin: int, end: int) -> Any:
        numbers = np.arange(begin, end)
        found = block[numbers % len(block)]
        found[:, 0, 0], found[:, 0, 1] = numbers % 1000, numbers // 1000
        return found

    probe = np.exp(-0.5 * (radius / (N / 8)) ** 2).astype(np.complex64)
    patterns = LazyPatterns(read, (count, N, N), np.uint16)
    return RawData(
        places[:, 0], places[:, 1], None, None, patterns, probe, None, None, diffraction_unit="counts"
    )


def stitched(positions: Any, N: int, seed: int) -> Any:
    """A million patches, made chunk by chunk, on one canvas."""
    from ptycho.image.canvas import chunks, make_frame, scan_order, window_weights
    from ptycho.image.stitcher import Stitcher

    rng = np.random.default_rng(seed)
    radius = np.hypot(*np.meshgrid(np.arange(N) - N // 2, np.arange(N) - N // 2))
    probe = np.exp(-0.5 * (radius / (N / 8)) ** 2)[None].astype(np.complex64)
    patches = np.exp(1j * rng.normal(0, 0.1, (64, N, N))).astype(np.complex64)
    stitcher = Stitcher(make_frame(positions, N // 2), window_weights(probe, N // 2))
    order = scan_order(positions, 64)
    for part in chunks(len(positions), 64):
        where = positions[order[part]]
        stitcher.add(patches[: len(where)], where)
    return stitcher.result()


def main() -> None:
    """One line a step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--positions", type=int, default=1_000_000)
    parser.add_argument("--N", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    import torch  # noqa: F401 - what a command holds already

    from ptycho.report import charts, drawing, drawing_scan
    from ptycho.report.outputs import save_outputs
    from ptycho.report.style import save
    from ptycho.scan.grouping import group_positions
    from ptycho.scan.report import describe_scan

    step = Steps()
    print(f"{asked.positions} positions, N = {asked.N}, seed {asked.seed}")
    with step("positions"):
        raw = scan_of(asked.positions, asked.N, asked.seed)
        places = raw.positions_px
    with step("checks of the scan (ptycho validate)"):
        report = describe_scan(raw)
    with step("groups of four, six neighbours"):
        group_positions(raw.xcoords, raw.ycoords, 2, n_neighbors=6, seed=asked.seed)
    with step("stitching"):
        image = stitched(places, asked.N, asked.seed)
    print(f"  canvas {image.object.shape[0]} x {image.object.shape[1]} px; {len(report.findings)} findings")
    r = np.random.default_rng(asked.seed).uniform(0.1, 0.2, len(places))
    moved = places + np.random.default_rng(asked.seed).normal(0, 0.3, places.shape)
    with tempfile.TemporaryDirectory() as folder:
        results = {"object": image.object, "coverage": image.coverage, "origin_xy": image.frame.origin_xy}
        with step("reconstruction.npz and its picture"):
            save_outputs(np.abs(image.object), np.angle(image.object), results, folder)
        figures: dict[str, Callable[[], Any]] = {
            "picture of the image": lambda: drawing.draw_reconstruction(image.object, None, image.coverage),
            "picture of R at every position": lambda: drawing_scan.draw_r_map(places, r),
            "picture of moved positions": lambda: drawing_scan.draw_moved(places, moved),
        }
        for name, draw in figures.items():
            with step(name):
                save(draw(), Path(folder) / "figure.png")
    with step("map of R on the page"):
        charts.position_map(places, r, "R", "viridis")
    with step("map of moves on the page"):
        charts.moved_map(places, moved, "moved", "viridis")


if __name__ == "__main__":
    main()

"""What a scan costs: a model fitted to measured commands, and what it says of larger ones.

    python benchmarks/growth.py --folder scans --json rows.json
    python benchmarks/growth.py --folder scans --json rows.json --sizes 2500 --modes 3 --commands reconstruct
    python benchmarks/cost_model.py rows.json

Processor seconds of a command by non-negative least squares of relative errors:
    a K + b M N^2 + c S M P N^2 log2(N) + d S B K      (reconstruct: S sweeps and one pass for R, P modes)
    a + b M N^2 log2(N)                                (infer)
M patterns of N px, K processes, B batches of 16. Own memory of one process: m + h H + p M, H pixels of the
canvas. Every row is printed with what the model says. Then, MARKED AS EXTRAPOLATED: 1e6 patterns on 1 to 64
processes, on processors as here and on GPUs of an assumed rate; a sweep's sums as a ring of messages with
latency and bandwidth (benchmarks/messages.py), nothing hidden behind the work. Neither GPUs nor a network
were measured; the assumptions are printed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from messages import Network, Sent, boxes, halos, raster, ring_s

Row = dict[str, Any]
_BATCH, _STEP_PX = 16, 4.0
_NETWORKS = (
    Network("Ethernet, 10 Gbit/s", 30e-6, 1.2e9),
    Network("InfiniBand, 200 Gbit/s", 3e-6, 22e9),
    Network("NVLink in one machine", 3e-6, 200e9),
)
#: patterns of 64 x 64 and one mode that a GPU visits in a second: an assumption, not a measurement
_GPU_PATTERNS_A_SECOND = 5e5


def terms_reconstruct(row: Row) -> list[float]:
    """a, b, c, d's factors."""
    M, N, K = row["patterns"], row["N"], row["processes"]
    passes = row["sweeps"] + 1
    return [K, M * N**2, passes * M * row["modes"] * N**2 * np.log2(N), row["sweeps"] * M / _BATCH * (K - 1)]


def terms_infer(row: Row) -> list[float]:
    """a, b's factors."""
    return [1.0, row["patterns"] * row["N"] ** 2 * np.log2(row["N"])]


def terms_memory(row: Row) -> list[float]:
    """m, h, p's factors, GiB a byte."""
    return [1.0, row["canvas_px"] / 2**30, row["patterns"] / 2**30]


def fitted(rows: Sequence[Row], terms: Callable[[Row], list[float]], key: str) -> np.ndarray[Any, Any]:
    """Coefficients, none negative; relative errors count. What no row can tell is 0."""
    from scipy.optimize import nnls

    value = np.array([row[key] for row in rows])
    matrix = np.array([terms(row) for row in rows]) / value[:, None]
    size = np.linalg.norm(matrix, axis=0)
    size[size == 0] = 1
    return np.asarray(nnls(matrix / size, np.ones(len(rows)))[0] / size)


def told(rows: Sequence[Row], terms: Callable[[Row], list[float]], key: str, found: Any) -> float:
    """Print every row beside the model; the largest relative error."""
    worst = 0.0
    for row in rows:
        model = float(np.dot(terms(row), found))
        off = model / row[key] - 1
        worst = max(worst, abs(off))
        kind = f"N {row['N']}, {row['patterns']} patterns, {row['modes']} modes, {row['sweeps']} sweeps"
        print(
            f"  {kind}, {row['processes']} processes: {row[key]:.2f}, model {model:.2f} ({100 * off:+.0f} %)"
        )
    return worst


def extrapolated(work_s: float, rate: float, who: str) -> None:
    """A sweep over 1e6 patterns of 64 x 64, one mode, for 1 to 64 processes and three networks."""
    N, count = 64, 1_000_000
    places = raster(count, _STEP_PX)
    every = boxes(places, N, batch=_BATCH)
    large = boxes(places, N, batch=_BATCH * 16)
    print(f"\nEXTRAPOLATED, not measured: a sweep over {count:.0e} patterns of {N} x {N}, {who}; seconds")
    names = [*(network.name for network in _NETWORKS), "InfiniBand, batches of 256", "InfiniBand, tiles"]
    print("| processes | work | " + " | ".join(names) + " |\n" + "|---" * (len(names) + 2) + "|")
    for processes in (1, 2, 4, 8, 16, 64):
        own = work_s * rate * count / processes
        sums = [own + ring_s(every, processes, network) for network in _NETWORKS]
        tiled = halos(places, N, processes, steps=True) if processes > 1 else Sent(0, 0.0)
        more = [own + ring_s(large, processes, _NETWORKS[1]), own + _direct_s(tiled, _NETWORKS[1])]
        print(f"| {processes} | {own:.1f} | " + " | ".join(f"{value:.1f}" for value in (*sums, *more)) + " |")


def _direct_s(sent: Sent, network: Network) -> float:
    """Halos go to neighbours directly: four messages a step, each byte once."""
    return sent.messages * 4 * network.latency_s + sent.bytes / network.bytes_per_s


def main() -> None:
    """Fit, show, extrapolate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rows", type=Path)
    asked = parser.parse_args()
    rows: list[Row] = json.loads(asked.rows.read_text())
    rows = [row for row in rows if row["threads"] == 1]
    found = {}
    for name, terms, words in (
        ("reconstruct", terms_reconstruct, "a {:.2f} s, b {:.1f} ns, c {:.2f} ns, d {:.0f} us"),
        ("infer", terms_infer, "a {:.2f} s, b {:.1f} ns"),
    ):
        mine = [row for row in rows if row["command"] == name]
        if not mine or len(mine) < len(terms(mine[0])):
            raise SystemExit(f"{name}: {len(mine)} rows are too few for the model; measure more")
        found[name] = fitted(mine, terms, "cpu_s")
        scale = [1.0, 1e9, 1e9, 1e6][: len(found[name])]
        print(f"{name}, CPU s: " + words.format(*(found[name] * scale)))
        print(f"  every row within {100 * told(mine, terms, 'cpu_s', found[name]):.0f} %")
        memory = fitted(mine, terms_memory, "own_gib")
        print(f"{name}, own memory of a process: {memory[0]:.2f} GiB, {memory[1]:.0f} bytes a canvas pixel, "
              f"{memory[2]:.0f} bytes a pattern")  # fmt: skip
        print(f"  every row within {100 * told(mine, terms_memory, 'own_gib', memory):.0f} %")
    a_pattern = float(found["reconstruct"][2]) * 64**2 * 6
    extrapolated(a_pattern, 1.0, f"{1e3 * a_pattern:.2f} ms a pattern on one core as here")
    rate = 1 / (_GPU_PATTERNS_A_SECOND * a_pattern)
    extrapolated(a_pattern, rate, f"{_GPU_PATTERNS_A_SECOND:.0e} patterns a second on a GPU (assumed)")
    print("\nAssumed: 4 px steps; batches of 16 (but for one column); a ring of all processes; no sum "
          "is hidden behind work;\nreading, checks, R and the page left out; a GPU's rate does not fall "
          "with small parts of a batch (it does).")  # fmt: skip


if __name__ == "__main__":
    main()

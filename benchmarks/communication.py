"""Bytes that the processes of a reconstruction send, against the work: counted in a run, and modelled.

    OMP_NUM_THREADS=1 python benchmarks/communication.py [--patterns 2500] [--N 64] [--processes 2 4]
        [--seed 0]

Counted: one sweep of rPIE by K processes of this machine (torch.distributed.run, gloo); the bytes and the
number of its sums, beside what benchmarks/messages.py says, and the largest difference from the object of
one process. Modelled, per process: the sums of boxes beside tiles with halos, for larger scans. Break-even:
the bandwidth under which K processes are no faster than one, at no latency, for the processor seconds of a
sweep measured here.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from messages import boxes, break_even, halos, raster

_STEP_PX = 4.0


def sweep(count: int, N: int, seed: int, team: Any = None) -> tuple[Any, float]:
    """One sweep over a simulated scan by this process's part of a team; the result, processor seconds."""
    import torch

    from ptycho.evaluation.rfactor import predicted_amplitudes
    from ptycho_torch.refine.engine import reconstruct
    from ptycho_torch.refine.scan import make_scan

    torch.set_num_threads(1)
    places = raster(count, _STEP_PX, seed) + N
    rng = np.random.default_rng(seed)
    radius = np.hypot(*np.meshgrid(np.arange(N) - N // 2, np.arange(N) - N // 2))
    probe = np.exp(-0.5 * (radius / (N / 10)) ** 2 + 0.01j * radius**2)
    probe = (probe * np.sqrt(1e5 / np.sum(np.abs(probe) ** 2))).astype(np.complex64)
    side = int(places.max()) + 2 * N
    field = np.exp(1j * rng.normal(0, 0.3, (side, side))).astype(np.complex64)
    counts = np.square(predicted_amplitudes(field, probe, *places.T)).round()
    scan = make_scan(counts, places, probe, unit="counts")
    seen: dict[str, Any] = {}

    def watch(scan: Any, state: Any, done: int) -> None:
        # messages of the sweep alone: what comes after it is not counted
        seen[f"{done}"] = (
            time.process_time(),
            team.messages if team else 0,
            team.message_bytes if team else 0,
            team.waited_s if team else 0.0,
        )

    made = reconstruct(scan, epochs=1, levels=1, start="flat", prior="none", team=team, watch=watch)
    (t0, m0, b0, w0), (t1, m1, b1, w1) = seen["0"], seen["1"]
    return {"object": made.object, "messages": m1 - m0, "bytes": b1 - b0, "waited_s": w1 - w0}, t1 - t0


def child(folder: Path, count: int, N: int, seed: int) -> None:
    """One of the processes; the first writes what it counted."""
    from ptycho_torch.processes import team_of_environment

    with team_of_environment() as team:
        made, used = sweep(count, N, seed, team)
        if team is not None and team.rank == 0:
            np.save(folder / "object.npy", made.pop("object"))
            (folder / "counted.json").write_text(json.dumps({**made, "cpu_s": used}))


def counted(count: int, N: int, seed: int, processes: int) -> tuple[dict[str, float], Any]:
    """What K processes sent, and their object."""
    with tempfile.TemporaryDirectory() as place:
        words = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", __file__,
                 "--child", place, "--patterns", str(count), "--N", str(N), "--seed", str(seed)]  # fmt: skip
        subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True)
        return json.loads((Path(place) / "counted.json").read_text()), np.load(Path(place) / "object.npy")


def main() -> None:
    """The counted rows, then the modelled ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--patterns", type=int, default=2500)
    parser.add_argument("--N", type=int, default=64)
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    count, N, seed = asked.patterns, asked.N, asked.seed
    if asked.child is not None:
        child(asked.child, count, N, seed)
        return
    one, work_s = sweep(count, N, seed)
    expected = boxes(raster(count, _STEP_PX, seed), N, seed=seed)
    print(f"{count} patterns of {N} x {N}, one process: {work_s:.2f} CPU s a sweep")
    print(f"model: {expected.messages} sums, {expected.bytes / 1e6:.1f} MB")
    for processes in asked.processes:
        found, image = counted(count, N, seed, processes)
        off = np.abs(image - one["object"]).max() / np.abs(one["object"]).max()
        print(f"{processes} processes: {found['messages']:.0f} sums, {found['bytes'] / 1e6:.1f} MB a sweep; "
              f"the first used {found['cpu_s']:.2f} CPU s and waited {found['waited_s']:.2f} s; object "
              f"differs by {off:.1e}")  # fmt: skip
    print("| patterns | processes | boxes, MB | tiles each step, MB | tiles once a sweep, MB "
          "| break-even of boxes, MB/s | of tiles each step, MB/s |\n" + "|---" * 7 + "|")  # fmt: skip
    for size in (2500, 10_000, 160_000):
        places = raster(size, _STEP_PX, seed)
        whole = boxes(places, N, seed=seed)
        for processes in (2, 4, 8, 64):
            each, once = (halos(places, N, processes, steps=steps) for steps in (True, False))
            won = work_s / count * size * (1 - 1 / processes)
            limits = break_even(whole, processes, work_s / count * size, 0.0) / 1e6, each.bytes / won / 1e6
            print(f"| {size} | {processes} | {whole.bytes / 1e6:.0f} | {each.bytes / 1e6:.0f} | "
                  f"{once.bytes / 1e6:.1f} | {limits[0]:.0f} | {limits[1]:.0f} |")  # fmt: skip


if __name__ == "__main__":
    main()

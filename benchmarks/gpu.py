"""Is a device right, and how fast is it? Correctness against the CPU first, then every rate and peak memory.

    python benchmarks/gpu.py [--device cuda] [--sides 64 128 256] [--seconds 420] [--json FILE]
    python benchmarks/gpu.py --device cpu --quick

What matters most comes first, each part has a time limit, and what the time did not reach is listed.
`eager` is what the package runs; `compiled` is torch.compile of the network, `graphs` a CUDA graph of it.
Patterns are those of a simulated scan, and the network is untrained: rates do not depend on either.

Tolerances, relative, single precision with TF32 off: patches and image 1e-4 (L2), loss 1e-5, gradient 1e-3
(L2 of all weights), object after one sweep of the engine 1e-4 (L2). Exit code 1 where one is exceeded.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import describe
from ptycho.backends import predictor_of
from ptycho.config.config import ModelConfig, TrainingConfig
from ptycho.run.preparation import plan_training
from ptycho.run.reconstruction import reconstruct
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.normalization import normalize_probe
from ptycho.simulation import Scenario, simulate
from ptycho_torch.data import GroupDataset
from ptycho_torch.module import PtychoPINN
from ptycho_torch.refine.initial import start_state
from ptycho_torch.refine.loop import iterate
from ptycho_torch.refine.options import RefineOptions
from ptycho_torch.refine.scan import scan_from_raw

TOLERANCES = {"patches": 1e-4, "image": 1e-4, "loss": 1e-5, "gradient": 1e-3, "object after a sweep": 1e-4}
#: pattern side -> positions of the scan; patterns a batch of inference and of training
POSITIONS = {64: 1024, 128: 400, 256: 144}
BATCHES = {64: (256, 64), 128: (128, 32), 256: (32, 16)}
ONE_LEVEL = RefineOptions(start="flat", levels=1, prior="none")


class OutOfTime(Exception):
    """A part took longer than it may."""


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """OutOfTime after so many seconds, at the next line of Python."""

    def stop(number: int, frame: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """TensorFloat-32 in convolutions, which torch allows by default, on or off."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@dataclasses.dataclass
class Problem:
    """A scan of one side, a network that knows it, and the same scan for the engine, on a device."""

    module: PtychoPINN
    container: PtychoDataContainer
    batches: list[dict[str, Any]]
    raw: Any
    device: torch.device

    @classmethod
    def of(cls, N: int, count: int, batch_size: int, device: torch.device, seed: int) -> Problem:
        """Simulate it; the first batch is a plain one, the second a region."""
        raw = simulate(Scenario(N=N, n_positions=count, step_px=N / 10, photons=1e5, seed=seed)).raw
        config = TrainingConfig(model=ModelConfig(N=N), batch_size=batch_size, seed=seed)
        container = PtychoDataContainer.from_raw(raw, 1)
        module = PtychoPINN(config)
        modes, factor = normalize_probe(container.probe, config.model.probe_scale)
        module.attach_scan(modes, x_scale=container.x_scale, nphotons=container.nphotons, probe_factor=factor)
        module.to(device)
        groups = plan_training(container, None, config).scans[0][:batch_size]
        dataset = GroupDataset(container)
        made = [dataset[(groups, region)] for region in (False, True)]
        moved = [
            {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in one.items()} for one in made
        ]
        return cls(module, container, moved, raw, device)

    def finish(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


# --------------------------------------------------------------------------------------------- correctness


def differences(N: int, count: int, device: torch.device, seed: int) -> dict[str, float]:
    """Relative differences of the device from the CPU, by what was compared."""
    found = {}
    host, there = (Problem.of(N, count, 16, at, seed) for at in (torch.device("cpu"), device))
    with torch.inference_mode():
        x = torch.from_numpy(host.container.patterns[:16, None])
        patches = [one.module(x.to(one.device)).cpu().numpy() for one in (host, there)]
    found["patches"] = apart(*patches)
    images = [reconstruct(predictor_of(one.module), one.container).image.object for one in (host, there)]
    found["image"] = apart(*images)
    for kind in (0, 1):
        losses, gradients = zip(*(loss_and_gradient(one, kind) for one in (host, there)), strict=True)
        found["loss"] = max(found.get("loss", 0), abs(losses[1] - losses[0]) / abs(losses[0]))
        found["gradient"] = max(found.get("gradient", 0), apart(*gradients))
    objects = []
    for one in (host, there):
        scan = scan_from_raw(one.raw, device=one.device)
        state = start_state(scan)
        next(iterate(scan, state, epochs=1, seed=seed, options=ONE_LEVEL))
        objects.append(state.object.cpu().numpy())
    found["object after a sweep"] = apart(*objects)
    return found


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Relative L2 distance; infinite where a value is no number."""
    value = float(np.linalg.norm(one - other) / np.linalg.norm(one))
    return value if np.isfinite(value) else float("inf")


def loss_and_gradient(problem: Problem, kind: int) -> tuple[float, np.ndarray]:
    """Of one batch, plain (0) or region (1)."""
    problem.module.zero_grad()
    loss = problem.module.terms(problem.batches[kind])["loss"]
    loss.backward()
    parts = [p.grad.reshape(-1).cpu() for p in problem.module.parameters() if p.grad is not None]
    return float(loss.detach()), torch.cat(parts).numpy()


# --------------------------------------------------------------------------------------------------- rates


def rate(problem: Problem, step: Callable[[], object], patterns: int, seconds: float) -> float:
    """Patterns a second: as many steps as fit, after two to warm up."""
    for _ in range(2):
        step()
    problem.finish()
    begun, count = time.perf_counter(), 0
    while count < 3 or time.perf_counter() - begun < seconds:
        step()
        problem.finish()
        count += 1
    return patterns * count / (time.perf_counter() - begun)


def inference(problem: Problem, size: int, precision: str, how: str, seconds: float) -> float:
    """The network alone."""
    module = problem.module
    rows = np.resize(np.arange(len(problem.container.patterns)), size)
    x = torch.from_numpy(problem.container.patterns[rows][:, None]).to(problem.device)
    kept, half = module.network, autocast(problem, precision, how)

    @torch.inference_mode()
    def step() -> object:
        with half:
            return module(x)

    try:
        if how == "compiled":
            module.network = torch.compile(kept)
        if how != "graphs":
            return rate(problem, step, size, seconds)
        with torch.inference_mode():
            for _ in range(3):  # graphs need what they use to be there
                step()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step()
            return rate(problem, graph.replay, size, seconds)
    finally:
        module.network = kept


def training(problem: Problem, size: int, precision: str, how: str, seconds: float) -> float:
    """Forward, merge, diffraction, likelihood, backward, Adam; plain and region batches in turn."""
    module, kept, half = problem.module, problem.module.network, autocast(problem, precision, how)
    turn = 0

    def step() -> None:
        nonlocal turn
        turn += 1
        optimizer.zero_grad(set_to_none=True)
        with half:
            loss = module.terms(problem.batches[turn % 2])["loss"]
        loss.backward()
        optimizer.step()

    try:
        if how == "compiled":
            module.network = torch.compile(kept)
        if how == "graphs":
            x = problem.batches[0]["x"]
            sample = (x * module.counted_of().to(x.dtype), module.probe_of().detach())
            with half:  # of a copy, whose forward the call replaces for good
                module.network = torch.cuda.make_graphed_callables(copy.deepcopy(kept), sample)
        optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad])
        return rate(problem, step, len(problem.batches[0]["x"]), seconds)
    finally:
        module.network = kept


def engine(problem: Problem, size: int, precision: str, how: str, seconds: float) -> float:
    """Sweeps of rPIE over the whole scan, object and probe."""
    scan = scan_from_raw(problem.raw, device=problem.device)
    state = start_state(scan)
    sweeps = iterate(scan, state, epochs=10_000, options=ONE_LEVEL)
    return rate(problem, lambda: next(sweeps), scan.size, seconds)


def autocast(problem: Problem, precision: str, how: str) -> Any:
    """As Lightning does it for bf16-mixed; a graph must not hold weights of an earlier step."""
    half = precision == "bf16"
    return torch.autocast(problem.device.type, torch.bfloat16, enabled=half, cache_enabled=how != "graphs")


KINDS = {"training": training, "inference": inference, "engine": engine}


def plan(sides: list[int], device: torch.device, quick: bool) -> list[tuple[int, str, str, str]]:
    """(N, kind, precision, how) in the order of their importance."""
    made = [(N, kind, "fp32", "eager") for N in sides for kind in KINDS]
    made += [(N, kind, "bf16", "eager") for N in sides for kind in ("training", "inference")]
    if quick:
        return made
    more = ["compiled"] + (["graphs"] if device.type == "cuda" else [])
    return made + [
        (N, kind, p, how) for how in more for p in ("fp32", "bf16") for N in sides
        for kind in ("training", "inference")
    ]  # fmt: skip


def measure(asked: argparse.Namespace, device: torch.device, begun: float) -> list[dict[str, Any]]:
    """One row for each part of the plan, printed as it comes; what failed or was not reached says why."""
    rows: list[dict[str, Any]] = []
    known: dict[int, Problem] = {}
    seconds = 0.05 if asked.quick else 2.0
    for N, kind, precision, how in plan(asked.sides, device, asked.quick):
        row: dict[str, Any] = {"N": N, "what": kind, "precision": precision, "how": how}
        left = asked.seconds - (time.perf_counter() - begun)
        sizes = (16, 8) if asked.quick else BATCHES.get(N, (32, 16))
        size = row["batch"] = sizes[0] if kind == "inference" else sizes[1]
        try:
            if left < 5:
                raise OutOfTime
            with at_most(min(left, 60)):
                if N not in known:
                    known.clear()  # one scan at a time on the device
                    known[N] = Problem.of(N, count_of(N, asked.quick), sizes[1], device, asked.seed)
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(device)
                row["patterns_per_s"] = KINDS[kind](known[N], size, precision, how, seconds)
                if device.type == "cuda":
                    row["peak_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
        except OutOfTime:
            row["note"] = "out of time"
        except Exception as error:  # a way that this machine does not know must not end the others
            row["note"] = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        rows.append(row)
        shown = f"{row['patterns_per_s']:.0f}" if "patterns_per_s" in row else row["note"]
        memory = f"{row['peak_gib']:.2f}" if "peak_gib" in row else ""
        print(f"| {N} | {kind} | {precision} | {how} | {size} | {shown} | {memory} |", flush=True)
    return rows


def count_of(N: int, quick: bool) -> int:
    """Positions of the scan."""
    return 25 if quick else POSITIONS.get(N, 144)


def main() -> int:
    """Print both tables; 1 where the device is not right."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--seconds", type=float, default=420.0, help="of everything together")
    parser.add_argument("--quick", action="store_true", help="small, to see that the script runs")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    begun, device = time.perf_counter(), torch.device(asked.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU itself"
    print(f"{name}; {describe(asked.seed)}\n\n| compared with the CPU | difference | may be |\n|---|---|---|")
    with tf32(False), at_most(180):
        found = differences(min(asked.sides), 25 if asked.quick else 100, device, asked.seed)
    for what, value in found.items():
        print(f"| {what} | {value:.1e} | {TOLERANCES[what]:.0e} |", flush=True)
    right = all(value <= TOLERANCES[what] for what, value in found.items())
    print(f"\n{'right' if right else 'WRONG: the rates below are of wrong numbers'}\n")
    print("| N | what | precision | how | batch | patterns/s | peak GiB |\n|---|---|---|---|---|---|---|")
    rows = measure(asked, device, begun)
    if asked.json:
        report = {"device": name, "machine": describe(asked.seed), "correctness": found, "rates": rows}
        asked.json.write_text(json.dumps(report | {"right": right}, indent=1), encoding="utf-8")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())

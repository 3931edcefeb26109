"""The network that ships, beside one sweep of the engine: error, R, CPU seconds on one thread.

    OMP_NUM_THREADS=1 python benchmarks/shipped.py [--table] [--own]

Without a flag: the scan of ../shared/bench and the measured star. --table: simulated scans by dose, overlap
and modes, the table of docs/network_or_engine.md. --own: training from the shipped weights on the bench scan
as well.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scans import Known, bench_scan, siemens_star

from ptycho.backends import predictor_of
from ptycho.config.settings import InferenceConfig, ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.evaluation import evaluate
from ptycho.evaluation.rfactor import r_factor
from ptycho.run.preparation import inference_container
from ptycho.run.reconstruction import reconstruct
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.raw_data import RawData
from ptycho.simulation.scenario import Scenario, simulate
from ptycho.workflows.infer import infer
from ptycho.workflows.run import run
from ptycho.workflows.shipped import shipped_state
from ptycho.workflows.trained import restored
from ptycho_torch.refine import refine_probe


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What the work gave, and its CPU seconds."""
    begun = time.process_time()
    made = work()
    return made, time.process_time() - begun


def error(image: Any, origin: Any, known: Known | None) -> str:
    """cNRMSE, where the truth is known."""
    if known is None:
        return "-"
    found = evaluate(np.asarray(image), known.object_true, known.roi, origin_xy=origin)
    return f"{found.nrmse:.4f}"


def network(name: str, raw: RawData, known: Known | None, refine: bool = True) -> None:
    """Probe, image (coarse object included) and R of the shipped network."""
    state, probe_s = timed(lambda: shipped_state(raw, refine=refine))
    model = restored(state, "pytorch")
    seen = predictor_of(model)
    container = inference_container(
        raw, seen.config, InferenceConfig(), x_scale=seen.x_scale, nphotons=seen.nphotons
    )
    reconstruct(seen, container.select(np.arange(64)))  # the first call of torch is slower
    shape = None if known is None else known.object_true.shape
    made, image_s = timed(lambda: reconstruct(seen, container, canvas_shape=shape))
    r = rated(container, made.image.object, made.probe, made.origin_xy)
    rate = len(container) / image_s
    print(
        f"| {name} | {error(made.object, made.origin_xy, known)} | {r:.4f} | {image_s:.2f} | {rate:.0f} | "
        f"{probe_s if refine else 0:.2f} |", flush=True,
    )  # fmt: skip


def rated(container: PtychoDataContainer, image: Any, probe: Any, origin: Any) -> float:
    """R of an image."""
    x, y = container.positions_px.T
    found = r_factor(
        image, probe, x, y, container.patterns, origin_xy=origin, bad_pixels=container.bad_pixels
    )
    return found.whole


def engine(name: str, raw: RawData, known: Known | None, sweeps: int | None) -> None:
    """So many sweeps of the engine from the coarse object; None: until it stops."""
    container = PtychoDataContainer.from_raw(raw, 1)
    more = {} if sweeps is None else {"epochs": sweeps}
    counts = np.asarray(raw.amplitude()) ** 2
    made, seconds = timed(
        lambda: refine_probe(counts, raw.positions_px, raw.probe_modes, unit="counts", start="coarse", **more)  # type: ignore[arg-type]
    )
    judged = error(made.object, made.origin_xy, known)
    rate = len(container) / seconds
    print(f"| {name} | {judged} | {made.history[-1]['r']:.4f} | {seconds:.2f} | {rate:.0f} | - |", flush=True)


def own(raw: RawData, known: Known) -> None:
    """Ten epochs from the shipped weights on the scan itself."""
    for start in ("shipped", "scratch"):
        model = ModelConfig() if start == "shipped" else ModelConfig(reference="coarse")
        config = TrainingConfig(
            model=model, start_from=start, nepochs=12, scheduler="WarmupCosine", output_dir=Path()
        )
        execution = PyTorchExecutionConfig(accelerator="cpu", logger_backend="none")
        made, seconds = timed(lambda: run(raw, None, config, execution))  # noqa: B023
        image = infer(made.trained.model, raw)
        r = 0.0 if image.agreement is None else image.agreement.whole
        judged = error(image.object, image.origin_xy, known)
        print(f"| own training from {start} | {judged} | {r:.4f} | {seconds:.1f} | - | in it |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--own", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    head = "| scan, method | cNRMSE | R | CPU s | patterns/s | probe, CPU s |\n|---|---|---|---|---|---|"
    print(head)
    if given.table:
        usual: dict[str, Any] = {"object": "two_photographs", "probe_error": 0.1, "n_positions": 400}
        for name, choices in {
            "1e6 photons": {"photons": 1e6}, "1e5 photons": {}, "1e4 photons": {"photons": 1e4},
            "1e3 photons": {"photons": 1e3}, "1e2 photons": {"photons": 1e2},
            "step 9 px": {"step_px": 9.0, "n_positions": 144},
            "step 13 px": {"step_px": 13.0, "n_positions": 81},
            "disk": {"probe": "disk"}, "two modes": {"n_modes": 2, "mode_decay": 0.2},
        }.items():  # fmt: skip
            made = simulate(Scenario(**{**usual, **choices, "seed": 11}))
            known = Known(made.raw, made.object_true, made.roi)
            network(f"{name}, network", made.raw, known)
            engine(f"{name}, engine 2 sweeps", made.raw, known, 2)
            engine(f"{name}, engine 4 sweeps", made.raw, known, 4)
        return
    known = bench_scan()
    with np.load(Path(__file__).resolve().parents[2] / "shared/bench/scan_subpixel.npz") as file:
        exact = file["probe_true"]
    right = known.raw.with_probe(exact)
    network("bench, network, right probe", right, known, refine=False)
    for sweeps in (1, 2):
        engine(f"bench, engine {sweeps} sweeps, right probe", right, known, sweeps)
    network("bench, network, file's probe", known.raw, known)
    for sweeps in (1, 2, 4):
        engine(f"bench, engine {sweeps} sweeps, file's probe", known.raw, known, sweeps)
    if given.own:
        own(known.raw, known)
    star = siemens_star()
    network("star, network", star, None)
    for sweeps in (1, 2):
        engine(f"star, engine {sweeps} sweeps", star, None, sweeps)


if __name__ == "__main__":
    main()

"""From simulation to judged images in minutes, the true objects known. Meant as the first command to run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ptycho.config.settings import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.errors import DataError
from ptycho.evaluation import Evaluation, evaluate
from ptycho.io.atomic import atomic_write
from ptycho.io.images import read_image
from ptycho.report import figures
from ptycho.report.outputs import metrics_of, save_reconstruction, write_history
from ptycho.report.products import find_truth
from ptycho.simulation import Scenario, Simulated, simulate
from ptycho.workflows.infer import infer
from ptycho.workflows.run import run

#: the object that the network learns from, and one that it never sees, under the same probe
TRAINED_ON = Scenario(object="two_photographs")
UNSEEN = Scenario(object="cat_and_coins", scan="fermat")
#: how an image is made -> what the name of its folder ends with
METHODS = {"engine": "_engine", "network as it ships": "_shipped", "network trained here": ""}
SCANS = ("trained_on", "unseen")


def demo_config(
    output_dir: Path, *, seed: int, quick: bool, backend: str = "pytorch"
) -> tuple[TrainingConfig, PyTorchExecutionConfig]:
    """The settings of the demo: the package's defaults, with a schedule that ends.

    quick: two epochs from the network that ships, where the other learns for 80 from nothing.
    """
    config = TrainingConfig(
        model=ModelConfig(N=64),
        nepochs=2 if quick else 80,
        start_from="shipped" if quick else "scratch",
        scheduler="WarmupCosine",
        gradient_clip_val=1.0,
        probe_from="refine",
        output_dir=output_dir,
        seed=seed,
        backend=backend,
    )
    return config, PyTorchExecutionConfig(learning_rate=2e-3)


def run_demo(
    output_dir: Path,
    *,
    seed: int = 0,
    quick: bool = False,
    backend: str = "pytorch",
    phase: Callable[[str], Callable[..., None]] = lambda title: lambda *told: None,
) -> dict[str, Any]:
    """Simulate, refine the probe, train, reconstruct the scan and one of an unseen object, judge both.

    Writes the two scans, the model, the products with their judged numbers, and the figures under
    `output_dir`; returns the numbers. phase: makes the `progress(done, total)` of a step by its name.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    positions = 144 if quick else 676
    scans: dict[str, Simulated] = {}
    for name, scenario in (("trained_on", TRAINED_ON), ("unseen", UNSEEN)):
        scans[name] = simulate(
            dataclasses.replace(scenario, n_positions=positions, seed=seed), phase("simulating")
        )
        scans[name].to_npz(output_dir / f"{name}.npz")
    config, execution = demo_config(output_dir, seed=seed, quick=quick, backend=backend)
    trained = run(
        scans["trained_on"].raw,
        None,
        config,
        execution,
        progress=phase("training"),
        probe_progress=phase("improving the probe"),
    ).trained
    metrics: dict[str, Any] = {"history_epochs": len(trained.history["train_loss"])}
    for name, scan in scans.items():
        made = infer(trained.model, scan.raw, progress=phase(f"reconstructing {name.replace('_', ' ')}"))
        save_reconstruction(made, output_dir / name, backend=backend)
        write_history(trained.history, output_dir / name)
        origin = made.image.frame.origin_xy
        judged = evaluate(
            made.object, scan.object_true, scan.roi, origin_xy=origin, coverage=made.image.coverage
        )
        metrics[name] = {**judged.as_dict(), "r_factor": metrics_of(made)["r_factor"]}
        with atomic_write(output_dir / name / "metrics.json") as temporary:
            temporary.write_text(
                json.dumps(_numbers({**metrics_of(made), **metrics[name]}), indent=1) + "\n", encoding="utf-8"
            )
        figures.reconstruction_figure(
            output_dir / f"{name}.png",
            made.object,
            truth=scan.object_true,
            coverage=made.image.coverage,
            title=f"{name.replace('_', ' ')}: complex NRMSE {judged.nrmse:.3f}, "
            f"FRC 0.5 at {judged.frc50:.2f} Nyquist",
        )
    return metrics


def compare_methods(output_dir: Path) -> dict[str, dict[str, Evaluation]]:
    """Judge the images of all three methods in the folder of a demo; write `methods.png` and `demo.json`.

    Returns scan -> method -> judgement, as `ptycho evaluate` judges. Raises DataError for an image or a truth
    that is not there.
    """
    judged: dict[str, dict[str, Evaluation]] = {}
    numbers: dict[str, dict[str, dict[str, float]]] = {}
    for scan in SCANS:
        known = find_truth(output_dir / f"{scan}.npz")
        if known is None:
            raise DataError(f"{output_dir / scan}.npz holds no truth; run ptycho demo again")
        judged[scan], numbers[scan] = {}, {}
        for method, end in METHODS.items():
            folder = output_dir / f"{scan}{end}"
            made = read_image(folder / "reconstruction.npz")
            one = evaluate(
                made.object, known.object, known.roi, origin_xy=made.origin_xy, coverage=made.coverage
            )
            judged[scan][method] = one
            r = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["r_factor"]
            numbers[scan][method] = {"r_factor": r, **_numbers(one.as_dict())}
    figures.methods_figure(
        output_dir / "methods.png", {name.replace("_", " "): methods for name, methods in judged.items()}
    )
    with atomic_write(output_dir / "demo.json") as temporary:
        temporary.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    return judged


def _numbers(judged: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in judged.items() if isinstance(value, (int, float))}

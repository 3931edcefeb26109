"""From simulation to judged images in minutes, the true objects known. Meant as the first command to run."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ptycho.config.settings import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.errors import DataError
from ptycho.evaluation import Evaluation, evaluate
from ptycho.io.atomic import atomic_write
from ptycho.io.images import read_image
from ptycho.report import figures
from ptycho.report.outputs import save_reconstruction, write_history
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
) -> None:
    """Simulate two scans, refine the probe, train on the first, and reconstruct both with the network.

    Writes the scans, the model and a folder of products for each scan under `output_dir`; `compare_methods`
    judges them. phase: makes the `progress(done, total)` of a step by its name.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    positions = 144 if quick else 676
    scans: dict[str, Simulated] = {}
    for name, scenario in zip(SCANS, (TRAINED_ON, UNSEEN), strict=True):
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
    for name, scan in scans.items():
        made = infer(trained.model, scan.raw, progress=phase(f"reconstructing {_shown(name)}"))
        save_reconstruction(made, output_dir / name, backend=backend)
        write_history(trained.history, output_dir / name)


def compare_methods(output_dir: Path) -> dict[str, dict[str, Evaluation]]:
    """Judge the images of all three methods in the folder of a demo, as `ptycho evaluate` judges.

    Writes `methods.png` and `demo.json`; for the network that was trained here also a picture of each scan,
    and its numbers into `metrics.json`, where the other two commands have written theirs. Returns
    scan -> method -> judgement. Raises DataError for an image or a truth that is not there.
    """
    judged: dict[str, dict[str, Evaluation]] = {scan: {} for scan in SCANS}
    numbers: dict[str, dict[str, Any]] = {scan: {} for scan in SCANS}
    for scan, (method, end) in itertools.product(SCANS, METHODS.items()):
        known = find_truth(output_dir / f"{scan}.npz")
        if known is None:
            raise DataError(f"{output_dir / scan}.npz holds no truth; run ptycho demo again")
        folder = output_dir / f"{scan}{end}"
        made = read_image(folder / "reconstruction.npz")
        one = evaluate(made.object, known.object, known.roi, origin_xy=made.origin_xy, coverage=made.coverage)
        kept = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        judged[scan][method] = one
        numbers[scan][method] = {"r_factor": kept["r_factor"], **_numbers(one.as_dict())}
        if folder.name == scan:
            _write_numbers(folder / "metrics.json", {**kept, **_numbers(one.as_dict())})
            title = f"{_shown(scan)}: complex NRMSE {one.nrmse:.3f}, FRC 0.5 at {one.frc50:.2f} Nyquist"
            figures.reconstruction_figure(
                output_dir / f"{scan}.png", made.object, truth=known.object, metrics=one, title=title
            )
    figures.methods_figure(
        output_dir / "methods.png", {_shown(name): methods for name, methods in judged.items()}
    )
    _write_numbers(output_dir / "demo.json", numbers)
    return judged


def _shown(scan: str) -> str:
    return scan.replace("_", " ")


def _write_numbers(path: Path, numbers: Mapping[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


def _numbers(judged: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in judged.items() if isinstance(value, (int, float))}

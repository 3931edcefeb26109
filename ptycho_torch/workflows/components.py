"""The PyTorch path: container, training, reconstruction; the names that programs call.

Each function does one step and hands on plain results. `ptycho.workflows.components` has the same functions
for TensorFlow; `ptycho.workflows.backend_selector` chooses.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho.clients.legacy import update_legacy_dict
from ptycho.config.settings import PyTorchExecutionConfig, TrainingConfig
from ptycho.errors import ConfigError
from ptycho.objectives.stages import resolve_stages
from ptycho.report.outputs import save_outputs
from ptycho.report.run_panels import RunPanels
from ptycho.run.objective_log import log_run
from ptycho.run.preparation import (
    Grouped,
    Scan,
    Scans,
    ensure_container,
    first_scan,
    plan_training,
    train_and_test,
    with_execution,
)
from ptycho.run.reconstruction import as_outputs
from ptycho.run.starting_probe import Starts, starting_probes
from ptycho.run.state import kept_starts
from ptycho.run.validation import validate_training_config
from ptycho.scan.pattern_store import keep_patterns, start_method
from ptycho.scan.scan_set import ScanSet
from ptycho.tracking import make_recorder
from ptycho_torch.refine.starting import refined_modes
from ptycho_torch.workflows.inference import reconstruct_container
from ptycho_torch.workflows.trained import (
    TrainedModel,
    infer_scan,
    load_inference_bundle_torch,
    save_trained,
    seeing,
)

if TYPE_CHECKING:
    import lightning.pytorch
    from torch.utils.data import DataLoader

    from ptycho_torch.model import PtychoPINN_Lightning
    from ptycho_torch.training import History, Progress

__all__ = [
    "infer_scan",
    "load_inference_bundle_torch",
    "run_cdi_example_torch",
    "save_outputs",
    "save_trained",
    "train_cdi_model_torch",
]

log = logging.getLogger(__name__)

#: a grouped container from a scan; the name that `ptycho.workflows.components` gives its twin's
_ensure_container = ensure_container


def _build_lightning_dataloaders(
    train_container: Grouped,
    test_container: Grouped | None,
    config: TrainingConfig,
    execution_config: PyTorchExecutionConfig | None = None,
) -> tuple[DataLoader[dict[str, Any]], DataLoader[dict[str, Any]]]:
    """Training and validation loaders; validation is the test container, or held-out training groups."""
    from ptycho_torch.data import FixedBatches, GroupBatches, GroupDataset, make_loader

    execution = execution_config or PyTorchExecutionConfig()
    plan = plan_training(train_container, test_container, config)
    options: dict[str, Any] = {"num_workers": execution.num_workers, "pin_memory": execution.pin_memory}
    if execution.num_workers:
        options["persistent_workers"] = execution.persistent_workers
        options["prefetch_factor"] = execution.prefetch_factor
        options["multiprocessing_context"] = start_method(train_container, test_container)
    training = GroupDataset(train_container, label_scales=plan.label_scales)
    validation = GroupDataset(plan.validation_set, held_out=plan.held_out, label_scales=plan.label_scales)
    return (
        make_loader(training, GroupBatches(plan), **options),
        make_loader(validation, FixedBatches(plan.validation), **options),
    )


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Lightning's advice about workers and tips is not about this data; loggers and filters are put back."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
            warnings.filterwarnings("ignore", message=".*logs directory .* exists and is not empty.*")
            warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
            warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@dataclasses.dataclass
class LightningRun:
    """A training run that is ready to go: clients look at module and trainer before it starts."""

    module: PtychoPINN_Lightning
    trainer: lightning.pytorch.Trainer
    loaders: tuple[DataLoader[dict[str, Any]], DataLoader[dict[str, Any]]]
    history: History
    train_container: Grouped
    test_container: Grouped | None
    config: TrainingConfig
    execution: PyTorchExecutionConfig


def prepare_lightning_run(
    train_container: Grouped,
    test_container: Grouped | None,
    config: TrainingConfig,
    execution_config: PyTorchExecutionConfig | None = None,
    *,
    module: PtychoPINN_Lightning | None = None,
    progress: Progress | None = None,
) -> LightningRun:
    """Loaders, module, callbacks and trainer of a run; nothing is trained yet.

    A given `module` is trained instead of a new one; its own configurations say what it is and which
    fine-tuning stages follow.
    """
    from ptycho_torch import finetuning, training
    from ptycho_torch import model as model_module
    from ptycho_torch import stages as declared_stages
    from ptycho_torch.callbacks.report import Report
    from ptycho_torch.config_bridge import from_training_config

    execution = execution_config or PyTorchExecutionConfig()
    config = with_execution(config, execution)
    loaders = _build_lightning_dataloaders(train_container, test_container, config, execution)
    if module is None:
        data, model, train, inference = from_training_config(config, execution)
        module = model_module.PtychoPINN_Lightning(model, data, train, inference)
    directory = config.output_dir if config.output_dir not in (Path(), None) else None
    history = training.History()
    callbacks = training.make_callbacks(config, execution, directory, history)
    stages = finetuning.stages_of(module.training_config)
    if stages:
        callbacks.insert(0, finetuning.Finetuning(stages, config.nepochs))
    declared = declared_stages.make_stages(
        resolve_stages(module.config), len(loaders[0]), execution.accum_steps
    )
    if declared is not None:
        callbacks.insert(0, declared)
    panels = RunPanels.asked_for(execution, train_container, test_container, directory)
    if panels is not None:
        from ptycho_torch.callbacks.panels import ReconstructionPanels

        # before the logs, so that they have its numbers and pictures
        callbacks.insert(callbacks.index(history) + 1, ReconstructionPanels(panels, history))
    if progress is not None:
        callbacks.append(Report(history, progress))
    with _quiet_lightning():
        trainer = training.make_trainer(config, execution, callbacks, directory)
    return LightningRun(module, trainer, loaders, history, train_container, test_container, config, execution)


def fit_lightning_run(
    run: LightningRun, *, starts: Starts | None = None, resume: Path | None = None
) -> dict[str, Any]:
    """Fit a prepared run and leave the weights that validated best in its module; returns as
    `_train_with_lightning`."""
    from ptycho_torch import training
    from ptycho_torch.callbacks.resume import tell_start
    from ptycho_torch.callbacks.tracking import recorder_of

    module, trainer, train_container = run.module, run.trainer, run.train_container
    kept = kept_starts(resume) if starts is None and resume is not None else None
    starts = starts or kept or starting_probes(train_container, run.config, refined_modes)
    tell_start(trainer.callbacks, starts, resumes=resume is not None)  # type: ignore[attr-defined]
    containers = ScanSet.of(train_container).containers
    module.attach_scans([start.known(one) for start, one in zip(starts, containers, strict=True)])
    if resume is not None:
        training.check_checkpoint(resume, module)
    log_run(module.manifest, run.config, run.execution)
    with _quiet_lightning(), training.deterministic_algorithms(run.execution.deterministic):
        trainer.fit(
            module,
            *run.loaders,
            ckpt_path=str(resume) if resume else None,
            weights_only=True if resume else None,
        )
        if trainer.interrupted:
            raise KeyboardInterrupt
        training.restore_best(module, trainer)
    module.eval()
    return {
        "history": run.history.epochs,
        "models": {"diffraction_to_obj": module, "autoencoder": TrainedModel(module)},
        "train_container": train_container,
        "test_container": run.test_container,
        "intensity_scale": module.intensity_scale,
        "config": run.config,
        "backend": "pytorch",
        "recorder": recorder_of(trainer),
    }


def _train_with_lightning(
    train_container: Grouped,
    test_container: Grouped | None,
    config: TrainingConfig,
    execution_config: PyTorchExecutionConfig | None = None,
    *,
    starts: Starts | None = None,
    resume: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Build the module from all four configurations, fit it, and give back the model that validated best.

    Returns `history` (lists by metric name), `models` (the Lightning module under 'diffraction_to_obj' and
    the predictor under 'autoencoder'), `train_container`, `test_container`, `intensity_scale`, `recorder`
    (its logs, or None). `resume` is a checkpoint of the same run, continued exactly. Time linear in groups x
    epochs; memory: the containers and one batch.
    """
    run = prepare_lightning_run(train_container, test_container, config, execution_config, progress=progress)
    return fit_lightning_run(run, starts=starts, resume=resume)


def train_cdi_model_torch(
    train_data: Scans,
    test_data: Scan | None,
    config: TrainingConfig,
    execution_config: PyTorchExecutionConfig | None = None,
    *,
    resume: Path | None = None,
    progress: Progress | None = None,
    probe_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Train on one scan, or on a list of them, each with a probe and scale of its own; see
    `_train_with_lightning` for what comes back.

    Everything that can be wrong with configuration and data is found before the first step.
    """
    from ptycho.clients import model_manager, params

    validate_training_config(config, require_files=False)
    if config.backend != "pytorch":
        raise ConfigError(f"backend = {config.backend!r}: this is the PyTorch path; use backend_selector")
    make_recorder(config, execution_config or PyTorchExecutionConfig())  # says now which package is missing
    update_legacy_dict(params.cfg, config)
    train_data, test_data = keep_patterns((train_data, test_data), execution_config, config.output_dir)
    train, test = train_and_test(train_data, test_data, config)
    kept = kept_starts(resume) if resume is not None else None
    starts = kept or starting_probes(train, config, refined_modes, probe_progress)
    results = _train_with_lightning(
        train, test, config, execution_config, starts=starts, resume=resume, progress=progress
    )
    params.cfg["intensity_scale"] = results["intensity_scale"]
    module = results["models"]["diffraction_to_obj"]
    model_manager.remember(lambda folder: save_trained(module, folder))
    return results


def _reassemble_cdi_image_torch(
    test_data: Scan,
    config: TrainingConfig,
    flip_x: bool = False,
    flip_y: bool = False,
    transpose: bool = False,
    M: int | None = 20,
    coord_scale: float = 1.0,
    *,
    train_results: dict[str, Any] | None = None,
    canvas_shape: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Any, Any, dict[str, Any]]:
    """Predict every group and stitch: (amplitude (H, W), phase (H, W), results).

    `flip_x`, `flip_y` mirror the positions, `transpose` exchanges x and y (in this order), `coord_scale`
    multiplies them: for scans whose stage axes differ from the detector's. M is the stitched window's side in
    pixels, None takes what the probe lights. Results: `obj_tensor_full` (K, N, N) patches, `global_offsets`,
    `coords_nominal`, `recon_amp`, `recon_phase`, `coverage`, `origin_xy`, `object`. Time linear in patches.
    """
    if train_results is None or "models" not in train_results:
        raise ConfigError("no trained model: pass train_results, as train_cdi_model_torch returns it")
    module = seeing(TrainedModel(train_results["models"]["diffraction_to_obj"]), test_data)
    once = dataclasses.replace(config, n_groups=None, n_images=None)
    test_data = keep_patterns(test_data, train_results.get("execution_config"), config.output_dir)
    container = _ensure_container(test_data, once, x_scale=module.x_scale, nphotons=module.nphotons)
    execution = train_results.get("execution_config") or PyTorchExecutionConfig()
    made = reconstruct_container(
        module,
        container,
        flip_x=flip_x,
        flip_y=flip_y,
        transpose=transpose,
        coord_scale=coord_scale,
        M=M,
        canvas_shape=canvas_shape,
        batch_size=execution.inference_batch_size,
        keep_patches=True,
        progress=progress,
    )
    return as_outputs(made, container)


def run_cdi_example_torch(
    train_data: Scans,
    test_data: Scan | None,
    config: TrainingConfig,
    flip_x: bool = False,
    flip_y: bool = False,
    transpose: bool = False,
    M: int | None = 20,
    do_stitching: bool = False,
    execution_config: PyTorchExecutionConfig | None = None,
    **options: Any,
) -> tuple[Any, Any, dict[str, Any]]:
    """Train, save the bundle where an output directory is set, and stitch if asked.

    Returns (amplitude or None, phase or None, results); without `test_data` the (first) training scan is
    stitched.
    """
    results = train_cdi_model_torch(train_data, test_data, config, execution_config, **options)
    results["execution_config"] = execution_config
    if config.output_dir not in (Path(), None):
        results["bundle"] = save_trained(results["models"]["diffraction_to_obj"], config.output_dir)
        if results["recorder"] is not None:
            results["recorder"].add_bundle(results["bundle"])
    amplitude = phase = None
    if do_stitching:
        amplitude, phase, stitched = _reassemble_cdi_image_torch(
            test_data if test_data is not None else first_scan(train_data),
            config,
            flip_x,
            flip_y,
            transpose,
            M,
            train_results=results,
        )
        results.update(stitched)
    return amplitude, phase, results

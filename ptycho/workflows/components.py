"""The TensorFlow path: container, training, reconstruction; the names that programs call.

Twin of `ptycho_torch.workflows.components`, function for function. It imports without TensorFlow, because
clients import it to open bundles, which either backend does; what needs TensorFlow says how to install it.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho.clients.legacy import update_legacy_dict
from ptycho.config.settings import InferenceConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.errors import ConfigError, MissingDependencyError
from ptycho.models.bundle import load_bundle
from ptycho.report.outputs import save_outputs
from ptycho.run.preparation import Grouped, Scan, Scans, ensure_container, first_scan, train_and_test
from ptycho.run.reconstruction import as_outputs
from ptycho.run.starting_probe import Starts, starting_probes
from ptycho.run.state import kept_starts
from ptycho.run.validation import validate_training_config
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.pattern_store import keep_patterns
from ptycho.scan.raw_data import RawData

if TYPE_CHECKING:
    from ptycho.tf.callbacks import Progress

__all__ = [
    "create_ptycho_data_container",
    "infer_scan",
    "load_inference_bundle",
    "reassemble_cdi_image",
    "run_cdi_example",
    "save_outputs",
    "save_trained",
    "train_cdi_model",
]

log = logging.getLogger(__name__)


def require_tensorflow() -> None:
    """MissingDependencyError with the install command where TensorFlow is not there."""
    if find_spec("tensorflow") is None or find_spec("keras") is None:
        raise MissingDependencyError(
            "backend 'tensorflow' needs TensorFlow: pip install 'ptychopinn[tf]' - or use --backend pytorch"
        )


def create_ptycho_data_container(data: Scan, config: TrainingConfig) -> PtychoDataContainer:
    """A grouped container from a scan; a container passes through. See `ptycho.run.preparation`."""
    return ensure_container(data, config)


def _starting_probes(
    scans: Grouped,
    config: TrainingConfig,
    progress: Callable[[int, int], None] | None = None,
) -> Starts:
    """The probes a run starts from; the iterative engine that refines them is the same for both backends."""

    def refine(*arguments: Any) -> Any:
        from ptycho_torch.refine.starting import refined_modes

        return refined_modes(*arguments)

    return starting_probes(scans, config, refine, progress)


def train_cdi_model(
    train_data: Scans,
    test_data: Scan | None,
    config: TrainingConfig,
    execution_config: PyTorchExecutionConfig | None = None,
    *,
    resume: Path | None = None,
    progress: Progress | None = None,
    probe_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Train on one scan, or on a list of them, each with a probe and scale of its own, with TensorFlow,
    whatever `config.backend` says: this is its path.

    Returns `history` (lists by metric name), `models` (the Keras model under 'diffraction_to_obj' and the
    predictor under 'autoencoder'), `train_container`, `test_container`, `intensity_scale`, `config`,
    `recorder` (its logs, or None). `resume` is a checkpoint of the same run. Everything that can be wrong
    with configuration and data is found before the first step. Time linear in groups x epochs; memory: the
    containers, the patterns once more, one batch.
    """
    require_tensorflow()
    from ptycho.clients import model_manager, params
    from ptycho.tf.trained import TrainedModel
    from ptycho.tf.training import check_execution, train_with_keras

    validate_training_config(config, require_files=False)
    config = dataclasses.replace(config, backend="tensorflow")
    check_execution(config, execution_config or PyTorchExecutionConfig())
    update_legacy_dict(params.cfg, config)
    train_data, test_data = keep_patterns((train_data, test_data), execution_config, config.output_dir)
    train, test = train_and_test(train_data, test_data, config)
    kept = kept_starts(resume) if resume is not None else None
    starts = kept or _starting_probes(train, config, probe_progress)
    module, history, recorder = train_with_keras(
        train, test, config, execution_config, starts=starts, resume=resume, progress=progress
    )
    params.cfg["intensity_scale"] = module.intensity_scale
    model_manager.remember(lambda folder: save_trained(module, folder))
    return {
        "history": history,
        "models": {"diffraction_to_obj": module, "autoencoder": TrainedModel(module)},
        "train_container": train,
        "test_container": test,
        "intensity_scale": module.intensity_scale,
        "config": module.config,
        "backend": "tensorflow",
        "recorder": recorder,
    }


def save_trained(module: Any, directory: Path) -> Path:
    """Write `wts.h5.zip` of a trained Keras model: configuration, weights, normalisation, probe. Atomic."""
    require_tensorflow()
    from ptycho.tf import trained

    return trained.save_trained(module, directory)


def reassemble_cdi_image(
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
        raise ConfigError("no trained model: pass train_results, as train_cdi_model returns it")
    require_tensorflow()
    from ptycho.tf.inference import reconstruct_container
    from ptycho.tf.trained import TrainedModel, seeing

    module = seeing(TrainedModel(train_results["models"]["diffraction_to_obj"]), test_data)
    once = dataclasses.replace(config, n_groups=None, n_images=None)
    test_data = keep_patterns(test_data, train_results.get("execution_config"), config.output_dir)
    container = ensure_container(test_data, once, x_scale=module.x_scale, nphotons=module.nphotons)
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


def run_cdi_example(
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
    An `output_dir` of Path() writes nothing.
    """
    results = train_cdi_model(train_data, test_data, config, execution_config, **options)
    results["execution_config"] = execution_config
    if config.output_dir not in (Path(), None):
        results["bundle"] = save_trained(results["models"]["diffraction_to_obj"], config.output_dir)
        if results["recorder"] is not None:
            results["recorder"].add_bundle(results["bundle"])
    amplitude = phase = None
    if do_stitching:
        amplitude, phase, stitched = reassemble_cdi_image(
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


def load_inference_bundle(directory: Path, *, backend: str | None = None) -> tuple[Any, dict[str, Any]]:
    """(model with `.predict`, configuration under legacy names) of a bundle that either backend wrote.

    It is opened by the backend asked for, or else by the one that wrote it; a TensorFlow bundle where
    TensorFlow is not installed opens in PyTorch, with a warning in the log, because both compute the same.
    params.cfg follows the bundle. Raises BundleError; MissingDependencyError where TensorFlow was asked for.
    """
    chosen = backend or load_bundle(Path(directory)).backend
    if backend is None and chosen == "tensorflow" and find_spec("tensorflow") is None:
        log.warning("%s: trained in TensorFlow, which is not installed: opened in PyTorch", directory)
        chosen = "pytorch"
    if chosen == "tensorflow":
        require_tensorflow()
        from ptycho.tf.trained import load_inference_bundle_tf

        return load_inference_bundle_tf(Path(directory))
    if chosen != "pytorch":
        raise ConfigError(f"backend = {chosen!r}: must be 'pytorch' or 'tensorflow'")
    from ptycho_torch.workflows.trained import load_inference_bundle_torch

    return load_inference_bundle_torch(Path(directory))


def infer_scan(
    model: Any,
    raw: RawData,
    *,
    config: InferenceConfig | None = None,
    execution_config: PyTorchExecutionConfig | None = None,
    M: int | None = None,
    canvas_shape: tuple[int, int] | None = None,
    weighting: str = "probe",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Any, Any, dict[str, Any]]:
    """Reconstruct a scan in TensorFlow with a bundle (path) or a trained model: (amplitude, phase, results).

    See `ptycho.tf.trained.infer_scan`.
    """
    require_tensorflow()
    from ptycho.tf import trained

    return trained.infer_scan(
        model,
        raw,
        config=config,
        execution_config=execution_config,
        M=M,
        canvas_shape=canvas_shape,
        weighting=weighting,
        progress=progress,
    )

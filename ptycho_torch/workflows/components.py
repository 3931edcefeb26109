"""The PyTorch path under the names that clients import; see `ptycho.clients.workflow`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho.clients import workflow as client
from ptycho.clients.results import training_results
from ptycho.clients.workflow import reassemble_cdi_image as _reassemble_cdi_image_torch
from ptycho.config.settings import PyTorchExecutionConfig, TrainingConfig
from ptycho.errors import ConfigError
from ptycho.report.outputs import save_outputs as save_outputs
from ptycho.run.job import Job, Progress
from ptycho.run.preparation import Grouped, Scan, Scans
from ptycho.run.preparation import ensure_container as _ensure_container
from ptycho.run.starting_probe import Starts
from ptycho.workflows import train as training
from ptycho_torch.workflows.trained import infer_scan, load_inference_bundle_torch, save_trained

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from ptycho_torch.model import PtychoPINN_Lightning

__all__ = [
    "_build_lightning_dataloaders",
    "_ensure_container",
    "_reassemble_cdi_image_torch",
    "_train_with_lightning",
    "infer_scan",
    "load_inference_bundle_torch",
    "run_cdi_example_torch",
    "save_outputs",
    "save_trained",
    "train_cdi_model_torch",
]

BACKEND = "pytorch"


def module_of_four(
    config: TrainingConfig, execution: PyTorchExecutionConfig | None = None
) -> PtychoPINN_Lightning:
    """The module that clients know, made from their four configurations."""
    from ptycho.clients.config_bridge import from_training_config
    from ptycho_torch import model

    data, network, train, inference = from_training_config(config, execution)
    return model.PtychoPINN_Lightning(network, data, train, inference)


def _build_lightning_dataloaders(
    train_container: Grouped,
    test_container: Grouped | None,
    config: TrainingConfig,
    execution_config: PyTorchExecutionConfig | None = None,
) -> tuple[DataLoader[dict[str, Any]], DataLoader[dict[str, Any]]]:
    """Training and validation loaders; validation is the test container, or held-out training groups."""
    from ptycho_torch.fit.run import loaders_of

    return loaders_of(Job.of(train_container, test_container, config, execution_config))


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

    Results as `ptycho.clients.results.training_results`. `resume` is a checkpoint of the same run, continued
    exactly. Time linear in groups x epochs; memory: the containers and one batch.
    """
    starts = starts or training.find_starts(train_container, config, resume)
    job = Job.of(
        train_container,
        test_container,
        config,
        execution_config,
        starts=starts,
        resume=resume,
        progress=progress,
    )
    return training_results(training.fit(job, module_of_four(job.config, job.execution)))


def _check(config: TrainingConfig) -> None:
    if config.backend != BACKEND:
        raise ConfigError(f"backend = {config.backend!r}: this is the PyTorch path; use backend_selector")


def train_cdi_model_torch(
    train_data: Scans,
    test_data: Scan | None,
    config: TrainingConfig,
    execution_config: PyTorchExecutionConfig | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Train with PyTorch; see `ptycho.clients.workflow.train_cdi_model`. ConfigError for another backend."""
    _check(config)
    return client.train_cdi_model(
        BACKEND, train_data, test_data, config, execution_config, build=module_of_four, **options
    )


def run_cdi_example_torch(
    train_data: Scans, test_data: Scan | None, config: TrainingConfig, *placement: Any, **options: Any
) -> tuple[Any, Any, dict[str, Any]]:
    """Train, save and stitch with PyTorch; see `ptycho.clients.workflow.run_cdi_example`.

    `placement` are flip_x, flip_y, transpose, M, do_stitching and execution_config, where they are not given
    by name. ConfigError for another backend.
    """
    _check(config)
    return client.run_cdi_example(
        BACKEND, train_data, test_data, config, *placement, build=module_of_four, **options
    )

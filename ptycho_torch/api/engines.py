"""Training and inference as the client calls them; both are the workflow's own functions."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.clients.canvas import client_canvas, spacing_px
from ptycho.clients.config_manager import ConfigManager
from ptycho.clients.dataloader import PtychoDataLoader
from ptycho.clients.legacy import update_legacy_dict
from ptycho.run.job import Job
from ptycho.run.preparation import train_and_test
from ptycho.run.validation import validate_training_config
from ptycho.workflows.infer import infer
from ptycho.workflows.train import find_starts
from ptycho_torch.api.models import PtychoModel, as_module
from ptycho_torch.fit.run import LightningRun, fit, prepare

log = logging.getLogger(__name__)


class Trainer:
    """A prepared run; `_trainer` is Lightning's own, whose callbacks may be added to before `train`."""

    def __init__(self, run: LightningRun) -> None:
        self.run = run
        self._trainer = run.trainer

    @classmethod
    def _from_lightning(
        cls,
        model: PtychoModel,
        dataloader: PtychoDataLoader,
        orchestration: str = "lightning",
        config_manager: ConfigManager | None = None,
    ) -> Trainer:
        """Check everything and prepare the run. Raises ConfigError or DataError before anything long."""
        manager = config_manager or dataloader.config_manager
        config = manager.training(dataloader.output_dir)
        validate_training_config(config, require_files=False)
        train, test = train_and_test(list(dataloader.scans), dataloader.held_out, config)
        module = as_module(model)
        module.trained_scans = dataloader.extents
        return cls(prepare(Job.of(train, test, config, manager.execution()), module))

    def train(self, orchestration: str = "lightning", experiment_name: str = "") -> Path:
        """Refine the probe, train, and keep the best weights in the module; returns the run's folder.

        Time linear in groups x epochs; memory: the scan and one batch.
        """
        from ptycho.clients import params

        job = self.run.job
        update_legacy_dict(params.cfg, job.config)
        made = fit(self.run, find_starts(job.train, job.config))
        params.cfg["intensity_scale"] = made.model.intensity_scale
        return Path(job.config.output_dir)


class InferenceEngine:
    """A trained model that makes images of scans."""

    def __init__(self, config_manager: ConfigManager, ptycho_model: PtychoModel) -> None:
        self.config_manager = config_manager
        self.ptycho_model = ptycho_model

    def predict_and_stitch(self, dataloader: PtychoDataLoader) -> NDArray[np.complex64]:
        """The object (H, W) complex64 on the client's canvas, zero where no pattern reached.

        See `client_canvas` for the canvas. The window is `middle_trim`, or what the probe lights where that
        leaves holes. Raises DataError where the patterns are not of the model's size. Time linear in
        positions; memory: the scan, the canvas and one batch.
        """
        module, scan = as_module(self.ptycho_model), dataloader.train
        shape, reason = client_canvas(
            scan.positions_px, scan.N, module.trained_scans, dataloader.object_shape
        )
        log.info("canvas of %d x %d px: %s", *shape, reason)
        settings = self.config_manager.inference_config
        made = infer(
            module,
            scan,
            self.config_manager.inference(),
            self.config_manager.execution(),
            M=self._window(scan.positions_px, scan.N),
            weighting=settings.patch_weighting,
            canvas_shape=shape,
        )
        if made.agreement is not None:
            log.info("%d patterns explained to R = %.4f", scan.n_positions, made.agreement.whole)
        return made.object

    def _window(self, positions_xy: NDArray[Any], N: int) -> int | None:
        wanted = self.config_manager.inference_config.middle_trim
        if not wanted:
            return None
        side = max(2, min(wanted, N))
        if 1.5 * spacing_px(positions_xy) <= side:
            return side
        log.info("middle_trim = %d is too small for this scan's steps: what the probe lights is taken", side)
        return None

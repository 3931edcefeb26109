"""The adapter between Lightning and the observers of `ptycho.run.observers`."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L
import torch
from numpy.typing import NDArray

from ptycho.backends import predictor_of
from ptycho.forward.seen import explained
from ptycho.image.canvas import Stitched
from ptycho.io.resources import GPU_MEMORY, RATE
from ptycho.report.run_panels import Panels, RunPanels
from ptycho.run.batches import Index
from ptycho.run.job import Job
from ptycho.run.observers import (
    History,
    Observer,
    Observers,
    Report,
    Throughput,
    observers_of,
)
from ptycho.run.reconstruction import reconstruct
from ptycho.scan.container import PtychoDataContainer
from ptycho.tracking import Recorder
from ptycho_torch.diagnostics import Watch
from ptycho_torch.fit.telling import Telling
from ptycho_torch.module import PtychoPINN


class Observing(Telling):
    """Tells the observers of a run; stands first, so that the row of an epoch has no later numbers.

    What an epoch did not see is no entry of its row.
    """

    def __init__(self, job: Job, module: PtychoPINN, recorder: Recorder | None) -> None:
        history = History()
        self._throughput = Throughput(self._total) if job.execution.log_throughput else None
        self._trainer: L.Trainer | None = None
        super().__init__(history, self._observers_of(job, module, history, recorder))

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._trainer = trainer

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self._throughput is not None:  # a run that goes on within an epoch begins no epoch
            self._throughput.start()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.callback_metrics.clear()  # or a term of an earlier stage would be taken down again
        if isinstance(pl_module, PtychoPINN):
            pl_module.watching.reset()
        if self._throughput is not None:
            self._throughput.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._throughput is not None:
            if trainer.is_last_batch and pl_module.device.type == "cuda":
                torch.cuda.synchronize(pl_module.device)
            self._throughput.count(batch["x"].shape[0] * batch["x"].shape[1])

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if isinstance(pl_module, PtychoPINN):
            pl_module.watching_validation.reset()

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if isinstance(pl_module, PtychoPINN):
            _log_diagnostics(trainer, pl_module, pl_module.watching_validation, "val/diagnostics/")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if isinstance(pl_module, PtychoPINN):
            if trainer.is_global_zero:  # every process has the same probe; one of them counts it
                now = torch.view_as_complex(pl_module.probe.detach()).cpu()
                pl_module.watching.see_probe(now, pl_module.starting_probe.cpu())
            _log_diagnostics(trainer, pl_module, pl_module.watching, "diagnostics/")
        super().on_train_epoch_end(trainer, pl_module)

    def _observers_of(
        self, job: Job, module: PtychoPINN, history: History, recorder: Recorder | None
    ) -> Observers:
        panels = RunPanels.asked_for(job.execution, job.train, job.test, job.directory)
        asked = _Asked(module)
        drawn = Panels(panels, asked.explain, asked.image) if panels is not None else None
        made: list[Observer] = observers_of(job, history, recorder, drawn, self._throughput)
        if job.progress is not None:  # before the checkpoint of the epoch, which Lightning writes last
            made.append(Report(job.progress, job.epochs + sum(stage.epochs for stage in module.tuning)))
        return Observers(made)

    def _total(self, values: dict[str, float]) -> dict[str, float]:
        """The rate of all processes together, and their mean memory."""
        trainer = self._trainer
        assert trainer is not None
        device = trainer.strategy.root_device
        if device.type == "cuda":
            values = {**values, GPU_MEMORY: torch.cuda.max_memory_allocated(device) / 2**30}
        found = torch.tensor(list(values.values()), device=device, dtype=torch.float32)
        total = trainer.strategy.reduce(found, reduce_op="sum")
        assert isinstance(total, torch.Tensor)
        share = trainer.world_size
        return {n: v if n == RATE else v / share for n, v in zip(values, total.tolist(), strict=True)}


def _log_diagnostics(trainer: L.Trainer, module: PtychoPINN, watch: Watch, prefix: str) -> None:
    """The diagnostics of a pass, of all processes; what nothing was seen of is left out."""

    def add(values: torch.Tensor) -> torch.Tensor:
        total = trainer.strategy.reduce(values.to(module.device), reduce_op="sum")
        assert isinstance(total, torch.Tensor)
        return total.cpu()

    for name, value in watch.finish(add).items():
        if value == value:
            module.log(f"{prefix}{name}", value, on_step=False, on_epoch=True, sync_dist=False)


class _Asked:
    """Answers what the panels ask of the module, and leaves its mode as it was."""

    def __init__(self, module: PtychoPINN) -> None:
        self._module = module

    @torch.no_grad()
    def explain(
        self, container: PtychoDataContainer, members: Index, scan: int
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        module, was_training = self._module, self._module.training
        module.eval()
        try:
            x = torch.from_numpy(container.patterns[members]).to(module.probe.device)
            positions = torch.from_numpy(container.positions_px[members]).to(module.probe.device)
            batch = {"x": x, "positions_xy": positions, "region": False, "scan": scan}
            if container.reference is not None:
                near = torch.from_numpy(container.pattern_references(members))
                batch["reference"] = near.to(module.probe.device)
            return explained(module, batch)
        finally:
            module.train(was_training)

    def image(self, container: PtychoDataContainer, scan: int) -> Stitched:
        module, was_training = self._module, self._module.training
        try:
            return reconstruct(predictor_of(module, scan), container).image
        finally:
            module.train(was_training)

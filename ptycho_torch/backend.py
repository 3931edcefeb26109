"""What PyTorch supplies to `ptycho.backends`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptycho.config.settings import PyTorchExecutionConfig, TrainingConfig
from ptycho.errors import ConfigError
from ptycho.models.trained_state import TrainedState
from ptycho.run.job import Fitted, Job
from ptycho.scan.scan_set import KnownScan
from ptycho_torch.imaging import Imaging
from ptycho_torch.layers import load_neutral_weights, neutral_weights

if TYPE_CHECKING:
    from ptycho_torch.module import PtychoPINN


class TorchBackend:
    """`ptycho.backends.Backend` with PyTorch and Lightning."""

    name = "pytorch"

    def check(
        self, config: TrainingConfig, execution: PyTorchExecutionConfig, resume: Path | None = None
    ) -> None:
        """Devices and stages that Lightning cannot combine."""
        from ptycho_torch.devices import check_devices

        check_devices(execution)
        if resume is not None:
            from ptycho_torch.fit.within_epoch import check_processes

            check_processes(resume, execution.devices)

    def build(self, config: TrainingConfig, execution: PyTorchExecutionConfig) -> PtychoPINN:
        from ptycho_torch.module import PtychoPINN

        return PtychoPINN(config, execution.learning_rate)

    def build_to_predict(self, config: TrainingConfig) -> Imaging:
        return Imaging.of(config)

    def load(self, model: Imaging, state: TrainedState) -> None:
        self.load_weights(model, state.weights)
        model.attach_scans(state.scans)
        model.eval()

    def load_weights(self, model: Imaging, weights: Mapping[str, NDArray[Any]]) -> None:
        held = {name: torch.from_numpy(np.array(value)) for name, value in weights.items()}
        load_neutral_weights(model.network, held)

    def fit(self, job: Job, model: PtychoPINN | None = None) -> Fitted[PtychoPINN]:
        from ptycho_torch.fit.run import fit, prepare

        if job.starts is None:
            raise ConfigError("the job has no starting probes: find them first")
        return fit(prepare(job, model or self.build(job.config, job.execution)), job.starts)

    @torch.inference_mode()
    def predict(
        self,
        model: Imaging,
        x: NDArray[np.float32],
        scan: int = 0,
        reference: NDArray[np.complex64] | None = None,
    ) -> Tensor:
        if model.training:
            model.eval()
        device = model.probe.device
        near = None if reference is None else torch.from_numpy(reference).to(device)
        patches: Tensor = model(torch.from_numpy(x).to(device), scan, near)
        return patches.cpu()

    def state(self, model: Imaging) -> TrainedState:
        return TrainedState(
            config=model.config,
            weights={name: value.numpy() for name, value in neutral_weights(model.network).items()},
            scans=tuple(self.known_scan(model, number) for number in range(model.n_scans)),
        )

    def known_scan(self, model: Imaging, scan: int) -> KnownScan:
        x_scale, nphotons, factor = model.of_scan(model.gauge, scan).tolist()
        probe = model.probe_of(scan).detach().cpu().numpy()
        guess = torch.view_as_complex(model.guesses[scan]).cpu().numpy() if model.n_scans > 1 else probe
        return KnownScan(
            probe=probe,
            x_scale=x_scale,
            nphotons=nphotons,
            probe_factor=factor,
            bad_pixels=model.of_scan(model.bad_pixels, scan).cpu().numpy(),
            guess=guess,
            log_scale=model.of_scan(model.log_scale, scan).item(),
            geometry=model.geometry_of(scan),
        )

    def placed(self, model: Imaging, execution: PyTorchExecutionConfig) -> AbstractContextManager[object]:
        from ptycho_torch.devices import resolve_accelerator

        accelerator, _ = resolve_accelerator(execution)
        if accelerator != "cpu":
            model.to("cuda" if accelerator in ("auto", "gpu", "cuda") else accelerator)
        return nullcontext()

    def has_gpu(self) -> bool:
        return torch.cuda.is_available()


BACKEND = TorchBackend()

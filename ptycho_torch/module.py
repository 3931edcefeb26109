"""The Lightning module: network, probe and scale, and the objective that ties them to the measured counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ptycho.config.settings import TrainingConfig
from ptycho.forward.merging import group_views
from ptycho.forward.region import block_views
from ptycho.forward.seen import Seen, check_reference, illumination
from ptycho.forward.terms import evaluate
from ptycho.io.geometry import Geometry
from ptycho.networks.graphs import spec_from_config
from ptycho.objectives.manifest import resolve
from ptycho.objectives.stages import Stage
from ptycho.run.tuning import TuningStage
from ptycho.scan.normalization import intensity_scale
from ptycho.scan.scan_set import KnownScan, stacked
from ptycho_torch.diagnostics import Watch
from ptycho_torch.layers import build_network
from ptycho_torch.optimizers import StagedRates, configure_optimizers

__all__ = ["PtychoPINN"]


def plain(value: Any) -> Any:
    """Configuration values as what a checkpoint may hold without running code when it is read."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


class PtychoPINN(L.LightningModule):
    """Physics-informed network for one kind of scan, trained on diffraction alone (or on labels: supervised).

    Takes the canonical training configuration and the learning rate. `attach_scan` gives it the measured
    probe and the normalisation; all of it is stored in the checkpoint as plain numbers. `noted`: what the
    checkpoint holds instead of the configuration, where a client's model has others. With `attach_scans` it
    knows several scans, each with a probe and a scale of its own: `probe`, `log_scale`, `gauge` and
    `bad_pixels` then have a first axis over the scans, and whatever is asked without a number is of scan 0.

    forward: x (B, C, N, N) float32 in the gauge of `ptycho.scan.normalization` -> complex (B, C_out, N, N).
    """

    #: the backend that it runs in, see `ptycho.backends`
    backend = "pytorch"
    #: keys under which the objective is logged, for clients that follow a run by callback
    loss_name = "train_loss"
    val_loss_name = "val_loss"

    probe: nn.Parameter
    log_scale: nn.Parameter
    bad_pixels: Tensor
    gauge: Tensor
    guesses: Tensor

    def __init__(
        self,
        config: TrainingConfig,
        learning_rate: float = 1e-3,
        *,
        tuning: tuple[TuningStage, ...] = (),
        noted: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.learning_rate = learning_rate
        #: stages after the main epochs, where a client asks for them
        self.tuning = tuning
        self.save_hyperparameters(noted or {"config": plain(asdict(config)), "learning_rate": learning_rate})
        model = config.model
        self.network = build_network(model.architecture, spec_from_config(model), self.config.seed)
        self.probe = nn.Parameter(
            torch.zeros(1, model.N, model.N, 2), requires_grad=self.config.probe_trainable
        )
        self.log_scale = nn.Parameter(
            torch.zeros(()), requires_grad=self.config.intensity_scale_trainable and not self._supervised
        )
        self.register_buffer("bad_pixels", torch.zeros(model.N, model.N, dtype=torch.bool))
        self.register_buffer("gauge", torch.ones(3, dtype=torch.float64))  # x_scale, nphotons, probe_factor
        #: extent and object shape of the scans it was trained on, where a client told; kept in checkpoints
        self.trained_scans: list[dict[str, Any]] = []
        self.manifest = resolve(self.config)
        #: the learning rates of a run that has stages
        self.rates: StagedRates | None = None
        #: the stage that runs now, of a run that has stages
        self.stage: Stage | None = None
        self.watching = Watch(self.manifest.diagnostics)
        self.watching_validation = Watch(self.manifest.diagnostics)
        self.starting_probe = torch.zeros(0)
        #: what each scan says of its metres
        self.geometries: tuple[Geometry, ...] = (Geometry(),)

    # --------------------------------------------------------------------------------------------- the scan

    def attach_scan(
        self,
        probe: NDArray[np.complex64],
        *,
        x_scale: float,
        nphotons: float,
        probe_factor: float,
        bad_pixels: NDArray[np.bool_] | None = None,
    ) -> None:
        """Take the normalised probe (P, N, N) and the numbers of `ptycho.scan.normalization`."""
        N = self.config.model.N
        none = np.zeros((N, N), bool)
        bad = none if bad_pixels is None else np.asarray(bad_pixels, bool)
        corrected = float(self.of_scan(self.log_scale).detach())
        self.attach_scans([KnownScan(probe, x_scale, nphotons, probe_factor, bad, probe, corrected)])

    def attach_scans(self, scans: Sequence[KnownScan]) -> None:
        """Take what is known of every scan that the model is trained on, in their order."""
        several = len(scans) > 1

        def every(values: Any) -> Tensor:
            made = torch.as_tensor(np.asarray(values), device=self.device)
            return made if several else made[0]

        probes = stacked([scan.probe for scan in scans])
        self.starting_probe = every(probes)
        self.probe = nn.Parameter(
            torch.view_as_real(self.starting_probe.clone()), requires_grad=self.config.probe_trainable
        )
        self.log_scale = nn.Parameter(
            every(np.array([scan.log_scale for scan in scans], np.float32)),
            requires_grad=self.log_scale.requires_grad,
        )
        numbers = [(scan.x_scale, scan.nphotons, scan.probe_factor) for scan in scans]
        self.gauge = every(np.array(numbers, np.float64))
        self.geometries = tuple(scan.geometry for scan in scans)
        self.bad_pixels = every([scan.bad_pixels for scan in scans])
        if several:
            guesses = stacked([scan.guess for scan in scans])
            self.register_buffer("guesses", torch.view_as_real(every(guesses)))

    @property
    def n_scans(self) -> int:
        """Scans that the model knows."""
        return 1 if self.gauge.ndim == 1 else len(self.gauge)

    def of_scan(self, values: Tensor, scan: int = 0) -> Tensor:
        """The part of `probe`, `log_scale`, `gauge` or `bad_pixels` that belongs to one scan."""
        return values if self.n_scans == 1 else values[scan]

    def probe_of(self, scan: int = 0) -> Tensor:
        """The probe (P, N, N) complex64 of a scan as it stands now."""
        return torch.view_as_complex(self.of_scan(self.probe, scan))

    def counted_of(self, scan: int = 0) -> Tensor:
        """(N, N) bool, False where the detector of a scan is bad."""
        return ~self.of_scan(self.bad_pixels, scan)

    def intensity_scale_of(self, scan: int = 0) -> float:
        """s = 2 sqrt(nphotons) / N: s * x has nphotons counts a pattern."""
        return intensity_scale(float(self.of_scan(self.gauge, scan)[1]), self.config.model.N)

    @property
    def x_scale(self) -> float:
        """Factor from measured amplitude to x."""
        return float(self.of_scan(self.gauge)[0])

    @property
    def nphotons(self) -> float:
        """Counts in the mean pattern."""
        return float(self.of_scan(self.gauge)[1])

    @property
    def intensity_scale(self) -> float:
        """`intensity_scale_of` the first scan."""
        return self.intensity_scale_of()

    @property
    def complex_probe(self) -> Tensor:
        """`probe_of` the first scan."""
        return self.probe_of()

    @property
    def _supervised(self) -> bool:
        return self.config.model.model_type == "supervised"

    # ------------------------------------------------------------------------------------------ the network

    def forward(self, x: Tensor, scan: int = 0, reference: Tensor | None = None) -> Tensor:
        counted, probe = self.counted_of(scan), self.probe_of(scan).detach()
        if self.config.model.reference == "flat":
            modulus, phase = self.network(x * counted.to(x.dtype), probe)
        else:
            check_reference(reference)
            modulus, phase = self.network(torch.where(counted, x, -1), probe, reference)
        # back from half precision under autocast; the probe has the precision of the whole module
        modulus, phase = modulus.to(self.probe.dtype), phase.to(self.probe.dtype)
        # not torch.polar: swish may dip below zero, which is a phase of pi
        return torch.complex(modulus * torch.cos(phase), modulus * torch.sin(phase))

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Complex patches of one batch of groups."""
        patches: Tensor = self(batch["x"], batch.get("scan", 0), batch.get("reference"))
        return patches

    def views(self, patches: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """O'_k: what each pattern sees after the patches of its group, or of its region, were merged."""
        positions = batch["positions_xy"]
        lit = illumination(self.probe_of(batch.get("scan", 0)))
        reference = batch.get("reference")
        changed = patches if reference is None else patches - reference
        if batch["region"] and len(patches) > 1:
            made: Tensor = block_views(changed, positions, lit)
        else:
            made = group_views(changed, positions, self.config.model.merge_window, lit)
        return made if reference is None else made + reference

    # ---------------------------------------------------------------------------------------- the objective

    def terms(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Every term of the objective on one batch, and their weighted sum under `loss`."""
        return self._terms(Seen(self, batch))

    def _terms(self, seen: Seen) -> dict[str, Tensor]:
        with torch.autocast(self.device.type, enabled=False):
            return evaluate(seen, self.manifest.active(self.stage))

    def _log_terms(self, terms: dict[str, Tensor], prefix: str, total: str, size: int) -> None:
        together = {f"{prefix}loss/{name}": value.detach() for name, value in terms.items() if name != "loss"}
        self.log_dict(together, on_step=False, on_epoch=True, batch_size=size, sync_dist=True)
        self.log(
            total,
            terms["loss"].detach(),
            on_step=False,
            on_epoch=True,
            batch_size=size,
            prog_bar=True,
            sync_dist=True,
        )

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """One step of either context; automatic optimisation does the rest."""
        seen = Seen(self, batch)
        terms = self._terms(seen)
        if batch.get("idle", False):  # another process trains on it; all must take as many steps
            self._log_terms(terms, "", self.loss_name, 0)
            return 0 * terms["loss"]
        self._log_terms(terms, "", self.loss_name, len(batch["x"]))
        self.watching.see(seen)
        return terms["loss"]

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """The same objective on held-out patterns."""
        seen = Seen(self, batch)
        judged = int(batch["counted"].sum())
        self._log_terms(self._terms(seen), "val/", self.val_loss_name, judged)
        if judged:  # or another process has it
            self.watching_validation.see(seen)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """The gradient as it is before clipping."""
        self.watching.see_gradient(self.parameters())

    def configure_optimizers(self) -> Any:
        return configure_optimizers(self)

    # ------------------------------------------------------------------------------------------ checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Beside the weights: which scans, so that a client gets the same scan on the same canvas."""
        checkpoint["trained_scans"] = self.trained_scans

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The numbers of scans and of probe modes are the file's, not the constructor's."""
        self.trained_scans = checkpoint.get("trained_scans", [])
        stored = checkpoint["state_dict"]
        for name in ("probe", "log_scale"):
            own = getattr(self, name)
            if stored[name].shape != own.shape:
                setattr(self, name, nn.Parameter(torch.zeros_like(stored[name]), own.requires_grad))
        for name in ("gauge", "bad_pixels", "guesses"):
            if name in stored:
                self.register_buffer(name, torch.zeros_like(stored[name]))

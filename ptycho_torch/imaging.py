"""What a trained model needs to see a scan: network, probe, scale; plain torch, without Lightning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ptycho.config.settings import TrainingConfig
from ptycho.forward.seen import check_reference
from ptycho.io.geometry import Geometry
from ptycho.networks.graphs import spec_from_config
from ptycho.scan.normalization import intensity_scale
from ptycho.scan.scan_set import KnownScan, stacked
from ptycho_torch.layers import build_network


class Imaging(nn.Module):
    """Network, measured probe and normalisation of one kind of scan; `ptycho_torch.module` trains one.

    With `attach_scans` it knows several scans, each with a probe and a scale of its own: `probe`,
    `log_scale`, `gauge` and `bad_pixels` then have a first axis over the scans, and whatever is asked
    without a number is of scan 0.

    forward: x (B, C, N, N) float32 in the gauge of `ptycho.scan.normalization` -> complex (B, C_out, N, N).
    """

    #: the backend that it runs in, see `ptycho.backends`
    backend = "pytorch"

    config: TrainingConfig
    probe: nn.Parameter
    log_scale: nn.Parameter
    bad_pixels: Tensor
    gauge: Tensor
    guesses: Tensor

    def assemble(self, config: TrainingConfig) -> None:
        """Make network and buffers for a configuration; weights follow from its seed."""
        self.config = config
        model = config.model
        self.network = build_network(model.architecture, spec_from_config(model), config.seed)
        self.probe = nn.Parameter(torch.zeros(1, model.N, model.N, 2), requires_grad=config.probe_trainable)
        self.log_scale = nn.Parameter(
            torch.zeros(()), requires_grad=config.intensity_scale_trainable and not self._supervised
        )
        self.register_buffer("bad_pixels", torch.zeros(model.N, model.N, dtype=torch.bool))
        self.register_buffer("gauge", torch.ones(3, dtype=torch.float64))  # x_scale, nphotons, probe_factor
        self.starting_probe = torch.zeros(0)
        #: what each scan says of its metres
        self.geometries: tuple[Geometry, ...] = (Geometry(),)

    @classmethod
    def of(cls, config: TrainingConfig) -> Imaging:
        """A model that can only predict."""
        made = cls()
        made.assemble(config)
        return made

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

        def every(values: ArrayLike) -> Tensor:
            made = torch.as_tensor(np.asarray(values), device=self.probe.device)
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

    def geometry_of(self, scan: int = 0) -> Geometry:
        """What a scan says of its metres; nothing for one of a checkpoint, which holds tensors only."""
        return self.geometries[scan] if scan < len(self.geometries) else Geometry()

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

    def intensity_scale_of(self, scan: int = 0) -> Tensor:
        """s = 2 sqrt(nphotons) / N, (): s * x has nphotons counts a pattern. It stays on the device."""
        scale = 2 * torch.sqrt(self.of_scan(self.gauge, scan)[1]) / self.config.model.N
        return scale.to(self.log_scale.dtype)

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
        """`intensity_scale_of` the first scan, as a number."""
        return intensity_scale(self.nphotons, self.config.model.N)

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

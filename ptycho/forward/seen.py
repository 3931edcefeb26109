"""One batch as the terms of the objective see it, and what a model must offer for that."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Protocol

from numpy.typing import NDArray

from ptycho.config.settings import TrainingConfig
from ptycho.errors import ConfigError
from ptycho.forward import diffraction
from ptycho.forward.fields import squared
from ptycho.ops import Array, ops_of

#: x (B, C, N, N), positions_xy (B, C, 2), counted (B, C) bool, region () bool; where there are any, labels
#: (B, C, N, N) and the number of the scan: `specs/tensor_correspondence.md`
Batch = Mapping[str, Any]
#: the number of a scan: an int, or a scalar tensor in a traced TensorFlow function
Scan = Any


class Model(Protocol):
    """What the terms ask of a model, whichever package it is built with."""

    config: TrainingConfig
    log_scale: Any

    def __call__(self, x: Array, *, scan: Scan, reference: Array | None = None) -> Array:
        """x (B, C, N, N) in the gauge of `ptycho.scan.normalization` -> patches (B, C_out, N, N) complex.

        reference (B, C, N, N) complex: the image around each pattern, where the network starts from one.
        """

    def views(self, patches: Array, batch: Batch) -> Array:
        """(B, C, N, N) complex: what each pattern sees of the merged patches."""

    def probe_of(self, scan: Scan) -> Array:
        """(P, N, N) complex, with its gradient."""

    def of_scan(self, values: Any, scan: Scan) -> Array:
        """The part of a tensor over the scans, such as `log_scale`, that belongs to one."""

    def intensity_scale_of(self, scan: Scan) -> Any:
        """s: (s x)^2 are counts."""

    def counted_of(self, scan: Scan) -> Array:
        """(N, N) bool, False where the detector is bad."""


class Seen:
    """One batch as the terms see it; what several of them need is computed once, and only if one asks."""

    def __init__(self, model: Model, batch: Batch) -> None:
        self.model, self.batch = model, batch
        self.scan: Scan = batch.get("scan", 0)
        near = {"reference": batch["reference"]} if "reference" in batch else {}
        self.patches: Array = model(batch["x"], scan=self.scan, **near)

    @cached_property
    def probe(self) -> Array:
        """(P, N, N) complex, with its gradient."""
        return self.model.probe_of(self.scan)

    @cached_property
    def illumination(self) -> Array:
        """(N, N) sum |P|^2, without a gradient: a weight."""
        return illumination(self.probe)

    @cached_property
    def views(self) -> Array:
        """(B, C, N, N) what every pattern sees of the merged patches."""
        return self.model.views(self.patches, self.batch)

    @cached_property
    def intensity(self) -> Array:
        """(B, C, N, N) of the views, in the gauge of x."""
        return diffraction.diffract(self.views, self.probe)

    @cached_property
    def scale(self) -> Array:
        """The trained correction to the intensity scale."""
        logarithm = self.model.of_scan(self.model.log_scale, self.scan)
        return ops_of(logarithm).exp(logarithm)

    @cached_property
    def expected(self) -> Array:
        """Expected counts."""
        return diffraction.rate(self.intensity, self.model.intensity_scale_of(self.scan) * self.scale)

    @cached_property
    def amplitude(self) -> Array:
        """Predicted diffraction amplitude, to be compared with x."""
        return self.scale * diffraction.amplitude(self.intensity)

    @cached_property
    def counts(self) -> Array:
        """Measured counts."""
        x = self.batch["x"]
        return ops_of(x).square(self.model.intensity_scale_of(self.scan) * x)

    @cached_property
    def counted(self) -> Array:
        """(B, C, N, N) bool: pixels that count."""
        return self.batch["counted"][:, :, None, None] & self.model.counted_of(self.scan)

    @property
    def labels(self) -> Array:
        """(B, C, N, N) complex object patches in the network's gauge."""
        return self.batch["labels"]

    @property
    def starting_power(self) -> float:
        """sum |P|^2 of a normalised probe, see `ptycho.scan.normalization.normalize_probe`."""
        model = self.model.config.model
        return (model.N * model.probe_scale / 4) ** 2


def check_reference(reference: Array | None) -> None:
    """ConfigError where a network that starts from an image is given none."""
    if reference is None:
        raise ConfigError(
            "reference = 'coarse': the network needs the image around each pattern - use ptycho infer, or "
            "give reference (B, C, N, N)"
        )


def explained(model: Model, batch: Batch) -> tuple[NDArray[Any], NDArray[Any]]:
    """Measured and predicted amplitude (B, N, N) of the first pattern of every group, in root counts."""
    seen, first = Seen(model, batch), batch["x"][:, 0]
    ops, scale = ops_of(first), model.intensity_scale_of(seen.scan)
    return ops.to_numpy(scale * first), ops.to_numpy(scale * seen.amplitude[:, 0])


def illumination(probe: Array) -> Array:
    """Power of all modes of a probe (P, N, N), a constant for the gradient: (N, N) real."""
    ops = ops_of(probe)
    return ops.sum(squared(ops.stop_gradient(probe)), 0)

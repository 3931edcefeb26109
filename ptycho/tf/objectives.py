"""The declared objectives in TensorFlow: one function a term, and their weighted sum on a batch.

Twin of `ptycho_torch.objectives`. Which terms there are is known when a step is traced, so the graph holds
those of the run and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from ptycho.objectives.manifest import Module
from ptycho.scan.probe import probe_mask
from ptycho.tf import label_losses, losses, penalties
from ptycho.tf.physics import amplitude, diffract, rate

if TYPE_CHECKING:
    from ptycho.tf.model import PtychoPINN_Keras

Tensor = Any


class Seen:
    """One batch as the terms see it; what several of them need is computed once, and only if one asks."""

    def __init__(self, model: PtychoPINN_Keras, batch: Mapping[str, Any]) -> None:
        self.model, self.batch = model, batch
        self.scan: Tensor | int = batch.get("scan", 0)
        self.patches: Tensor = model(batch["x"], scan=self.scan)

    @cached_property
    def probe(self) -> Tensor:
        """(P, N, N) complex, with its gradient."""
        return self.model.probe_of(self.scan)

    @cached_property
    def illumination(self) -> Tensor:
        """(N, N) sum |P|^2, without a gradient: a weight."""
        return tf.reduce_sum(penalties.squared(tf.stop_gradient(self.probe)), 0)

    @cached_property
    def views(self) -> Tensor:
        """(B, C, N, N) what every pattern sees of the merged patches."""
        return self.model.views(self.patches, self.batch)

    @cached_property
    def intensity(self) -> Tensor:
        """(B, C, N, N) of the views, in the gauge of x."""
        return diffract(self.views, self.probe)

    @cached_property
    def scale(self) -> Tensor:
        """The trained correction to the intensity scale."""
        return tf.exp(self.model.of_scan(self.model.log_scale, self.scan))

    @cached_property
    def expected(self) -> Tensor:
        """Expected counts."""
        return rate(self.intensity, self.model.intensity_scale_of(self.scan) * self.scale)

    @cached_property
    def amplitude(self) -> Tensor:
        """Predicted diffraction amplitude, to be compared with x."""
        return self.scale * amplitude(self.intensity)

    @cached_property
    def counts(self) -> Tensor:
        """Measured counts."""
        return tf.square(self.model.intensity_scale_of(self.scan) * self.batch["x"])

    @cached_property
    def counted(self) -> Tensor:
        """(B, C, N, N) bool: pixels that count."""
        return self.batch["counted"][:, :, None, None] & self.model.counted_of(self.scan)

    @property
    def labels(self) -> Tensor:
        """(B, C, N, N) complex object patches in the network's gauge."""
        return self.batch["labels"]

    @property
    def starting_power(self) -> float:
        """sum |P|^2 of a normalised probe, see `ptycho.scan.normalization.normalize_probe`."""
        model = self.model.config.model
        return (model.N * model.probe_scale / 4) ** 2


#: a term's value, and what is logged of it by name (None: the value under the term's own name)
Found = tuple[Tensor, dict[str, Tensor] | None]


def _poisson(seen: Seen, settings: Any) -> Found:
    # the deviance has the gradient of the likelihood and keeps its digits at any dose
    deviance = losses.poisson_deviance(seen.expected, seen.counts, seen.counted)
    nll = losses.poisson_nll(tf.stop_gradient(seen.expected), seen.counts, seen.counted)
    return deviance, {"poisson_deviance": deviance, "poisson_nll": nll}


def _gaussian_poisson(seen: Seen, settings: Any) -> Found:
    variance = settings.read_noise_counts**2
    return losses.shifted_poisson(seen.expected, seen.counts, seen.counted, variance), None


def _charbonnier(seen: Seen, settings: Any) -> Found:
    value = losses.amplitude_charbonnier(seen.amplitude, seen.batch["x"], seen.counted, settings.epsilon)
    return value, None


def _support(seen: Seen, settings: Any) -> Found:
    inside = probe_mask(seen.probe.shape[-1], settings.sigma_px, settings.diameter_px)
    return penalties.probe_support(seen.probe, tf.constant(inside, seen.illumination.dtype)), None


TERMS: dict[str, Callable[[Seen, Any], Found]] = {
    "poisson_nll": _poisson,
    "gaussian_poisson": _gaussian_poisson,
    "amplitude_mae": lambda s, o: (losses.amplitude_mae(s.amplitude, s.batch["x"], s.counted), None),
    "amplitude_charbonnier": _charbonnier,
    "total_variation": lambda s, o: (losses.total_variation(s.patches), None),
    "smoothness": lambda s, o: (penalties.smoothness(s.patches), None),
    "overlap_consistency": lambda s, o: (
        penalties.overlap_consistency(s.patches, s.views, s.illumination), None
    ),
    "probe_power": lambda s, o: (penalties.probe_power(s.probe, s.starting_power), None),
    "probe_support": _support,
    "supervised": lambda s, o: (losses.supervised(s.patches, s.labels, s.illumination), None),
    "realspace_mae": lambda s, o: (losses.realspace_mae(s.patches, s.labels, s.illumination), None),
    "label_phase": lambda s, o: (label_losses.label_phase(s.patches, s.labels, s.illumination), None),
    "label_ssim": lambda s, o: (
        label_losses.label_ssim(s.patches, s.labels, o.sigma_px, o.data_range), None
    ),
    "label_edges": lambda s, o: (label_losses.label_edges(s.patches, s.labels, s.illumination), None),
    "label_orientation": lambda s, o: (
        label_losses.label_orientation(s.patches, s.labels, s.illumination), None
    ),
}  # fmt: skip


def logged_names(modules: tuple[Module, ...]) -> tuple[str, ...]:
    """The names under which `evaluate` gives the terms of a list, in its order."""
    several = {"poisson_nll": ("poisson_deviance", "poisson_nll")}
    return tuple(name for module in modules for name in several.get(module.name, (module.name,)))


def evaluate(seen: Seen, modules: tuple[Module, ...]) -> dict[str, Tensor]:
    """Every term of the list on one batch by logged name, and their weighted sum under `loss`."""
    total: Tensor | None = None
    found: dict[str, Tensor] = {}
    for module in modules:
        value, shown = TERMS[module.name](seen, module.settings())
        weighted = value if module.weight == 1 else module.weight * value
        total = weighted if total is None else total + weighted
        found.update(shown or {module.name: value})
    assert total is not None, "the manifest of a run is never empty"
    return {"loss": total, **found}

"""The declared objectives in torch: one function a term, and their weighted sum on a batch.

`ptycho.objectives` says what there is and what a run asks for; `ptycho/tf/objectives.py` is the twin.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ptycho.objectives.manifest import Module
from ptycho.scan.probe import probe_mask
from ptycho_torch import label_losses, losses, penalties
from ptycho_torch.physics import amplitude, diffract, rate

if TYPE_CHECKING:
    from ptycho_torch.module import PtychoPINN


class Seen:
    """One batch as the terms see it; what several of them need is computed once, and only if one asks."""

    def __init__(self, module: PtychoPINN, batch: dict[str, Any]) -> None:
        self.module, self.batch = module, batch
        self.scan: int = batch.get("scan", 0)
        self.patches: Tensor = module(batch["x"], self.scan)

    @cached_property
    def probe(self) -> Tensor:
        """(P, N, N) complex, with its gradient."""
        return self.module.probe_of(self.scan)

    @cached_property
    def illumination(self) -> Tensor:
        """(N, N) sum |P|^2, without a gradient: a weight."""
        return self.probe.detach().abs().square().sum(0)

    @cached_property
    def views(self) -> Tensor:
        """(B, C, N, N) what every pattern sees of the merged patches."""
        return self.module.views(self.patches, self.batch)

    @cached_property
    def intensity(self) -> Tensor:
        """(B, C, N, N) of the views, in the gauge of x."""
        return diffract(self.views, self.probe)

    @cached_property
    def scale(self) -> Tensor:
        """The trained correction to the intensity scale."""
        return torch.exp(self.module.of_scan(self.module.log_scale, self.scan))

    @cached_property
    def expected(self) -> Tensor:
        """Expected counts."""
        return rate(self.intensity, self.module.intensity_scale_of(self.scan) * self.scale)

    @cached_property
    def amplitude(self) -> Tensor:
        """Predicted diffraction amplitude, to be compared with x."""
        return self.scale * amplitude(self.intensity)

    @cached_property
    def counts(self) -> Tensor:
        """Measured counts."""
        return (self.module.intensity_scale_of(self.scan) * self.batch["x"]).square()

    @cached_property
    def counted(self) -> Tensor:
        """(B, C, N, N) bool: pixels that count."""
        bad = self.module.of_scan(self.module.bad_pixels, self.scan)
        return self.batch["counted"][:, :, None, None] & ~bad

    @property
    def labels(self) -> Tensor:
        """(B, C, N, N) complex object patches in the network's gauge."""
        labels: Tensor = self.batch["labels"]
        return labels

    @property
    def starting_power(self) -> float:
        """sum |P|^2 of a normalised probe, see `ptycho.scan.normalization.normalize_probe`."""
        model = self.module.config.model
        return (model.N * model.probe_scale / 4) ** 2


#: a term's value, and what is logged of it by name (None: the value under the term's own name)
Found = tuple[Tensor, dict[str, Tensor] | None]


def _poisson(seen: Seen, settings: Any) -> Found:
    # the deviance has the gradient of the likelihood and keeps its digits at any dose
    deviance = losses.poisson_deviance(seen.expected, seen.counts, seen.counted)
    nll = losses.poisson_nll(seen.expected.detach(), seen.counts, seen.counted)
    return deviance, {"poisson_deviance": deviance, "poisson_nll": nll}


def _gaussian_poisson(seen: Seen, settings: Any) -> Found:
    variance = settings.read_noise_counts**2
    return losses.shifted_poisson(seen.expected, seen.counts, seen.counted, variance), None


def _charbonnier(seen: Seen, settings: Any) -> Found:
    value = losses.amplitude_charbonnier(seen.amplitude, seen.batch["x"], seen.counted, settings.epsilon)
    return value, None


def _support(seen: Seen, settings: Any) -> Found:
    inside = probe_mask(seen.probe.shape[-1], settings.sigma_px, settings.diameter_px)
    mask = torch.from_numpy(inside).to(seen.illumination)
    return penalties.probe_support(seen.probe, mask), None


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

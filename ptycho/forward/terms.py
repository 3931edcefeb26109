"""The declared objectives: one function a term, and their weighted sum on a batch.

`ptycho.objectives` says what there is and what a run asks for. Which terms a run has is known before a step
is traced, so a TensorFlow graph holds those and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ptycho.errors import ConfigError
from ptycho.forward import label_losses, losses, penalties
from ptycho.forward.seen import Seen
from ptycho.objectives.manifest import Module
from ptycho.ops import Array, ops_of
from ptycho.scan.probe import probe_mask

#: a term's value, and what is logged of it by name (None: the value under the term's own name)
Found = tuple[Array, dict[str, Array] | None]


def _poisson(seen: Seen, settings: Any) -> Found:
    # the deviance has the gradient of the likelihood and keeps its digits at any dose
    deviance = losses.poisson_deviance(seen.expected, seen.counts, seen.counted)
    constant = ops_of(seen.expected).stop_gradient(seen.expected)
    nll = losses.poisson_nll(constant, seen.counts, seen.counted)
    return deviance, {"poisson_deviance": deviance, "poisson_nll": nll}


def _gaussian_poisson(seen: Seen, settings: Any) -> Found:
    variance = settings.read_noise_counts**2
    return losses.shifted_poisson(seen.expected, seen.counts, seen.counted, variance), None


def _charbonnier(seen: Seen, settings: Any) -> Found:
    value = losses.amplitude_charbonnier(seen.amplitude, seen.batch["x"], seen.counted, settings.epsilon)
    return value, None


def _decoded(seen: Seen, settings: Any) -> Found:
    compute = getattr(seen.model, "decoded_deviance", None)
    if compute is None:
        raise ConfigError("objectives: decoded_positions runs in pytorch only; drop it or use that backend")
    return compute(seen, settings), None


def _support(seen: Seen, settings: Any) -> Found:
    inside = probe_mask(seen.probe.shape[-1], settings.sigma_px, settings.diameter_px)
    return penalties.probe_support(seen.probe, ops_of(seen.probe).constant(inside, seen.probe)), None


TERMS: dict[str, Callable[[Seen, Any], Found]] = {
    "poisson_nll": _poisson,
    "gaussian_poisson": _gaussian_poisson,
    "amplitude_mae": lambda s, o: (losses.amplitude_mae(s.amplitude, s.batch["x"], s.counted), None),
    "amplitude_charbonnier": _charbonnier,
    "decoded_positions": _decoded,
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


def evaluate(seen: Seen, modules: tuple[Module, ...]) -> dict[str, Array]:
    """Every term of the list on one batch by logged name, and their weighted sum under `loss`."""
    total: Array | None = None
    found: dict[str, Array] = {}
    for module in modules:
        value, shown = TERMS[module.name](seen, module.settings())
        weighted = value if module.weight == 1 else module.weight * value
        total = weighted if total is None else total + weighted
        found.update(shown or {module.name: value})
    assert total is not None, "the manifest of a run is never empty"
    return {"loss": total, **found}

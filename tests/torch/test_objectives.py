"""Terms of the objective in torch: gradients against finite differences, laws, and the manifest minimised.

Values are compared with NumPy in tests/parity/test_objectives.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from ptycho.config.config import TrainingConfig
from ptycho.objectives.manifest import Module, resolve
from ptycho.objectives.terms import OBJECTIVES
from ptycho_torch import label_losses, losses, penalties
from ptycho_torch.objectives import TERMS, Seen, evaluate

N, B, C = 32, 2, 4


def fields(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(patches, labels, weight) with structure and noise, float64."""
    rng = np.random.default_rng(seed)

    def one() -> np.ndarray:
        parts = ndimage.gaussian_filter(rng.standard_normal((2, B, C, N, N)), (0, 0, 0, 2, 2)) * 4
        return (0.6 + 0.2 * parts[0]) * np.exp(1j * parts[1])

    axis = np.arange(N) - N // 2
    return one(), one(), np.exp(-(axis[:, None] ** 2 + axis**2) / 100)


@pytest.mark.parametrize("name", ["label_phase", "label_edges", "label_orientation", "label_ssim"])
def test_labels_themselves_cost_nothing(name):
    patches, _, weight = fields()
    p, w = torch.from_numpy(patches), torch.from_numpy(weight)
    value = {
        "label_phase": lambda: label_losses.label_phase(p, p, w),
        "label_edges": lambda: label_losses.label_edges(p, p, w),
        "label_orientation": lambda: label_losses.label_orientation(p, p, w),
        "label_ssim": lambda: label_losses.label_ssim(p, p, 1.5, 1.0),
    }[name]()
    assert abs(float(value)) < 1e-6


def test_a_phase_jump_of_two_pi_costs_nothing():
    _, labels, weight = fields()
    turned = torch.from_numpy(np.abs(labels) * np.exp(1j * (np.angle(labels) + 2 * np.pi)))
    assert float(label_losses.label_phase(turned, torch.from_numpy(labels), torch.from_numpy(weight))) < 1e-7


class TestGradients:
    """Against finite differences, float64, on small fields."""

    def check(self, term, *others):
        rng = np.random.default_rng(3)
        start = 0.7 + 0.1 * rng.standard_normal((1, 2, 14, 14)) + 0.3j * rng.standard_normal((1, 2, 14, 14))
        assert torch.autograd.gradcheck(term, (torch.from_numpy(start).requires_grad_(), *others))

    def labels(self) -> torch.Tensor:
        rng = np.random.default_rng(4)
        return torch.from_numpy(0.8 * np.exp(1j * rng.uniform(-1, 1, (1, 2, 14, 14))) + 0.1)

    def test_label_terms(self):
        q, w = self.labels(), torch.ones(14, 14, dtype=torch.float64)
        self.check(lambda p: label_losses.label_phase(p, q, w))
        self.check(lambda p: label_losses.label_edges(p, q, w))
        self.check(lambda p: label_losses.label_orientation(p, q, w))
        self.check(lambda p: label_losses.label_ssim(p, q, 1.0, 1.0))

    def test_penalties(self):
        q, w = self.labels(), torch.rand(14, 14, dtype=torch.float64)
        self.check(penalties.smoothness)
        self.check(lambda p: penalties.overlap_consistency(p, q, w))
        self.check(lambda p: penalties.probe_power(p[0], 100.0))
        self.check(lambda p: penalties.probe_support(p[0], w))

    def test_data_terms(self):
        rng = np.random.default_rng(5)
        counts = torch.from_numpy(rng.poisson(4, (2, 6, 6)).astype(float))
        counted = torch.ones(2, 6, 6, dtype=torch.bool)
        rate = torch.from_numpy(rng.uniform(0.5, 9, (2, 6, 6))).requires_grad_()
        assert torch.autograd.gradcheck(lambda r: losses.shifted_poisson(r, counts, counted, 2.0), (rate,))
        assert torch.autograd.gradcheck(
            lambda r: losses.amplitude_charbonnier(r.sqrt(), counts.sqrt(), counted, 0.1), (rate,)
        )


def test_every_declared_term_is_computed():
    assert set(TERMS) == set(OBJECTIVES)


@pytest.fixture
def module_and_batch():
    """A small module with a scan attached, and one batch with labels, gridsize 2."""
    from ptycho.config.config import ModelConfig
    from ptycho.preparation import ensure_container, plan_training
    from ptycho.probe_start import starting_probe
    from ptycho.simulation import Scenario, simulate
    from ptycho_torch.config_bridge import from_training_config
    from ptycho_torch.data import GroupDataset
    from ptycho_torch.model import PtychoPINN_Lightning
    from ptycho_torch.refine.starting import refined_modes

    raw = simulate(Scenario(N=N, n_positions=36, seed=0)).raw
    config = TrainingConfig(
        model=ModelConfig(N=N, gridsize=2, n_filters_scale=1), probe_from="guess", realspace_mae_weight=0.1
    )
    container = ensure_container(raw, config)
    data, model, training, inference = from_training_config(config)
    module = PtychoPINN_Lightning(model, data, training, inference)
    start = starting_probe(container, config, refined_modes)
    module.attach_scan(
        start.modes, x_scale=container.x_scale, nphotons=container.nphotons, probe_factor=start.factor
    )
    with torch.no_grad():  # away from the flat start, where some terms are at their minimum
        for i, weight in enumerate(module.network.parameters()):
            weight += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(i))
    plan = plan_training(container, None, config)
    batch = GroupDataset(container, label_scale=plan.label_scale)[plan.epoch(0)[0]]
    return module, batch


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_term_is_a_number_with_a_gradient(module_and_batch, name):
    module, batch = module_and_batch
    module.probe.requires_grad_(True)
    found = evaluate(Seen(module, batch), (Module(name, 0.7, None, resolved(name)),))
    assert torch.isfinite(found["loss"])
    found["loss"].backward()
    moved = [p.grad for p in module.parameters() if p.grad is not None]
    assert moved and all(torch.isfinite(g).all() for g in moved)
    assert any(bool((g != 0).any()) for g in moved) or name == "probe_power"  # starts at its minimum


def resolved(name: str) -> tuple[tuple[str, object], ...]:
    config = TrainingConfig(objectives=[{"name": name}], probe_trainable=True)
    if name == "supervised":
        config.model.model_type = "supervised"
    return resolve(config).objectives[0].config

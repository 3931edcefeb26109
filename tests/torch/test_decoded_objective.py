"""Training with positions free: the term that judges each pattern at its decoded place, and its gradient."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ptycho.config.settings import ModelConfig, TrainingConfig
from ptycho.errors import ConfigError
from ptycho.forward.diffraction import diffract, rate
from ptycho.forward.region import block_views
from ptycho.forward.terms import TERMS
from ptycho.objectives.manifest import resolve
from ptycho.objectives.terms import DecodedPositions
from ptycho.simulation.scenario import Scenario, simulate
from ptycho_torch.refine.decoded_loss import decoded_deviance, decoded_shifts

N = 32


@pytest.fixture(scope="module")
def truth():
    """A block whose network is right: true patches, true probe, counts without noise."""
    made = simulate(Scenario(N=N, n_positions=25, step_px=3.0, jitter_px=1.0, photons=1e6))
    positions = torch.from_numpy(np.round(made.raw.positions_px))[:, None]
    image = torch.from_numpy(made.object_true).to(torch.complex128)
    corners = (positions[:, 0] - N // 2).to(torch.int64).tolist()
    patches = torch.stack([image[y : y + N, x : x + N] for x, y in corners])[:, None]
    probe = torch.from_numpy(made.probe_true).to(torch.complex128)
    return patches, positions, probe


def seen_at(truth, errors):
    """The block as a term sees it, its positions off by `errors` (25, 2) px."""
    patches, positions, probe = truth
    x = diffract(patches, probe).sqrt()
    given = positions + errors[:, None]
    light = probe.abs().square().sum(0)

    class Model:
        def views(self, patches, batch):
            return block_views(patches, batch["positions_xy"], light)

        def intensity_scale_of(self, scan):
            return 1.0

        def decoded_deviance(self, seen, settings):
            return decoded_deviance(seen, settings)

    model, patches = Model(), patches.clone().requires_grad_(True)
    batch = {"x": x, "positions_xy": given, "region": True}
    seen = SimpleNamespace(
        model=model, batch=batch, scan=0, patches=patches, probe=probe, illumination=light,
        scale=torch.ones((), dtype=torch.float64), counts=x.square(),
        counted=torch.ones(N, N, dtype=torch.bool),
    )  # fmt: skip
    seen.expected = rate(diffract(model.views(patches, batch), probe), 1.0)
    return seen


def errors_of(rms_px: float):
    """Errors of a few patterns of a block, all others right."""
    errors = torch.zeros(25, 2, dtype=torch.float64)
    errors[[6, 12, 18]] = torch.tensor([[2.0, 0.0], [-1.0, 1.0], [0.0, -2.0]], dtype=torch.float64) * rms_px
    return errors


@pytest.mark.parametrize("kind", ["exp", "st"])
def test_a_pattern_that_is_off_is_put_back_by_its_neighbours(truth, kind):
    seen = seen_at(truth, errors_of(1.0))
    settings = DecodedPositions(kind=kind, numbers=300.0)
    with torch.no_grad():
        shifts = decoded_shifts(seen, settings)[:, 0]
        given, decoded = (TERMS[name](seen, settings)[0] for name in ("poisson_nll", "decoded_positions"))
    wrong = [6, 12, 18]
    assert float((shifts + errors_of(1.0))[wrong].norm(dim=1).max()) < 0.5
    assert float(decoded) < 0.6 * float(given)


def test_right_positions_stay_and_cost_nothing(truth):
    seen = seen_at(truth, torch.zeros(25, 2, dtype=torch.float64))
    with torch.no_grad():
        shifts = decoded_shifts(seen, DecodedPositions(kind="st"))
    assert float(shifts.norm(dim=-1).max()) < 0.2


def test_forward_differs_and_gradients_flow_to_the_patches(truth):
    seen = seen_at(truth, errors_of(0.7))
    shifts = {kind: decoded_shifts(seen, DecodedPositions(kind=kind)) for kind in ("exp", "st")}
    assert float((shifts["exp"] - shifts["st"]).detach().abs().max()) > 1e-2
    slopes = [
        torch.autograd.grad(s.square().sum(), seen.patches, retain_graph=True)[0] for s in shifts.values()
    ]
    assert all(float(slope.abs().max()) > 0 for slope in slopes)
    weights = torch.arange(50, dtype=torch.float64).reshape(25, 1, 2)
    same = [
        torch.autograd.grad((s * weights).sum(), seen.patches, retain_graph=True)[0] for s in shifts.values()
    ]
    torch.testing.assert_close(*same)
    loss = decoded_deviance(seen, DecodedPositions())
    (slope,) = torch.autograd.grad(loss, seen.patches)
    assert torch.isfinite(slope).all() and float(slope.abs().max()) > 0


def test_without_a_block_it_is_the_plain_likelihood(truth):
    seen = seen_at(truth, errors_of(1.0))
    seen.batch = seen.batch | {"region": False}
    plain, declared = (
        TERMS["poisson_nll"](seen, None)[0],
        TERMS["decoded_positions"](seen, DecodedPositions())[0],
    )
    assert torch.equal(plain, declared)


@pytest.mark.parametrize(
    "config, message",
    [
        ({"kind": "soft"}, "kind = 'soft': must be one of 'exp', 'st'"),
        ({"step_px": 0.3}, "step_px = 0.3: must be one of"),
        ({"radius_px": 1}, "radius_px = 1: must be"),
    ],
)
def test_a_grid_that_cannot_be_is_refused_before_the_run(config, message):
    with pytest.raises(ConfigError, match=message):
        resolve(TrainingConfig(objectives=[{"name": "decoded_positions", "config": config}]))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"backend": "tensorflow"}, "decoded_positions runs in pytorch only"),
        ({"model": ModelConfig(object_big=False)}, "decoded_positions needs object_big"),
        ({"model": ModelConfig(reference="coarse")}, "decoded_positions needs reference 'flat'"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(changes, message):
    config = TrainingConfig(objectives=[{"name": "decoded_positions"}])
    with pytest.raises(ConfigError, match=message):
        resolve(dataclasses.replace(config, **changes))


def test_a_model_of_the_other_backend_refuses_it_by_name(truth):
    seen = seen_at(truth, errors_of(1.0))
    seen.model = SimpleNamespace()
    with pytest.raises(ConfigError, match="decoded_positions runs in pytorch only"):
        TERMS["decoded_positions"](seen, DecodedPositions())

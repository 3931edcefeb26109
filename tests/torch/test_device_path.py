"""The path of a device: nothing on it reads a value back or meets a constant that lies elsewhere.

Torch's `meta` device has shapes and no values, so `.item()`, `.numpy()`, and a tensor left on the CPU are
errors on it. What has to be read, because a shape depends on it, is named here.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from ptycho.config.config import ModelConfig, TrainingConfig
from ptycho.forward.seen import Seen
from ptycho.forward.terms import evaluate
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.normalization import normalize_probe
from ptycho.simulation import Scenario, simulate
from ptycho_torch.data import GroupDataset
from ptycho_torch.module import PtychoPINN
from ptycho_torch.refine import forward, noise, operators, unknowns
from ptycho_torch.refine.initial import start_state
from ptycho_torch.refine.lsqml import LSQML
from ptycho_torch.refine.raar import RAAR
from ptycho_torch.refine.scan import scan_from_raw

TERMS = [
    {"name": "poisson_nll"}, {"name": "amplitude_mae"}, {"name": "amplitude_charbonnier"},
    {"name": "total_variation"}, {"name": "smoothness"}, {"name": "overlap_consistency"},
    {"name": "probe_power"}, {"name": "gaussian_poisson"},
]  # fmt: skip


def module_on_meta(N: int, architecture: str = "swift", **model) -> PtychoPINN:
    raw = simulate(Scenario(N=N, n_positions=9, photons=1e4)).raw
    settings = ModelConfig(N=N, architecture=architecture, n_filters_scale=1, **model)
    config = TrainingConfig(model=settings, objectives=TERMS, probe_trainable=True)
    module = PtychoPINN(config)
    container = PtychoDataContainer.from_raw(raw, 1)
    modes, factor = normalize_probe(container.probe, 4.0)
    module.attach_scan(modes, x_scale=container.x_scale, nphotons=container.nphotons, probe_factor=factor)
    return module.to("meta")


def on_meta(values: dict) -> dict:
    return {name: value.to("meta") if isinstance(value, Tensor) else value for name, value in values.items()}


@pytest.mark.parametrize("N", [64, 128, 256])
@pytest.mark.parametrize("architecture", ["swift", "cnn"])
def test_inference_has_the_shape_of_a_patch_on_every_device(N, architecture):
    module = module_on_meta(N, architecture)
    patches = module(torch.empty(3, 1, N, N, device="meta"))
    assert patches.shape == (3, 1, N, N) and patches.is_meta and patches.dtype == torch.complex64


def test_a_network_that_starts_from_an_image_too():
    module = module_on_meta(64, reference="coarse")
    near = torch.empty(2, 1, 64, 64, device="meta", dtype=torch.complex64)
    assert module(torch.empty(2, 1, 64, 64, device="meta"), 0, near).is_meta


def test_a_training_step_reads_nothing_back():
    """Forward, every term, backward. The canvas of a region needs its size, which is read from positions."""
    raw = simulate(Scenario(N=32, n_positions=16, photons=1e4)).raw
    module = module_on_meta(32)
    batch = on_meta(GroupDataset(PtychoDataContainer.from_raw(raw, 1))[(torch.arange(8).numpy(), False)])
    loss = evaluate(Seen(module, batch), module.manifest.active(None))["loss"]  # autocast knows no meta
    assert loss.is_meta and loss.shape == ()
    loss.backward()
    assert all(p.grad is not None for p in module.parameters() if p.requires_grad)


def problem_on_meta(modes: int):
    """A scan of 16 patterns of 32 x 32 and its state with every unknown, without values."""
    scan = scan_from_raw(simulate(Scenario(N=32, n_positions=16, photons=1e4)).raw)
    state = start_state(scan, modes=modes, intensity=True, background=True)
    scan = dataclasses.replace(scan, **on_meta(vars(scan)))
    return scan, dataclasses.replace(state, **on_meta(vars(state)))


@pytest.mark.parametrize("modes", [1, 2])
def test_the_operators_of_a_sweep_read_nothing_back(modes):
    """All but the box that a batch reaches on the canvas, whose size is read once a batch."""
    scan, state = problem_on_meta(modes)
    index = torch.arange(8, device="meta")
    exit = forward.predict(scan, state, index)
    change = forward.residual(scan, exit, noise.check_noise("bounded"))
    assert change.shape == (8, modes, 32, 32) and change.is_meta
    canvas, n = torch.zeros_like(state.object), 32
    operators.scatter_add(canvas, exit.patches, exit.corners_yx)
    assert operators.gather(canvas, exit.corners_yx, n).shape == (8, 32, 32)
    canvas.requires_grad_()
    operators.gather(canvas, exit.corners_yx, n).abs().sum().backward()
    pulled, weight = forward.probe_sums(state, exit, change)
    assert pulled.shape == (modes, 32, 32)
    assert forward.regularised(weight, 0.3, weight.max()).is_meta
    along = [exit.probes, operators.shift_fourier(pulled, exit.ramps)]
    assert LSQML()._line_search(along, change).shape == (8, 2)


@pytest.mark.parametrize("modes", [1, 2])
def test_a_sweep_of_raar_reads_nothing_back(modes):
    """All of it: its sums are those of the whole canvas, so that no box is asked for."""
    scan, state = problem_on_meta(modes)
    rule = RAAR()
    rule.start(scan, state)
    for index in torch.arange(16, device="meta").split(8):
        exit = rule.step(scan, state, index, 1.0, True)
        assert exit.far.shape == (8, modes, 32, 32) and exit.far.is_meta
    rule.end_epoch(scan, state, 1.0, True)
    assert state.object.is_meta and state.probe.is_meta and rule.tensors()["kept"].is_meta


def test_the_other_unknowns_of_a_batch_read_nothing_back():
    """Positions, intensities, background, and the misfit whose number is read at last."""
    scan, state = problem_on_meta(1)
    exit = forward.predict(scan, state, torch.arange(8, device="meta"))
    step, information = unknowns.position_step(scan, state, exit)
    assert step.shape == (8, 2) and information.shape == (8, 2, 2) and information.is_meta
    unknowns.intensity_step(scan, state, exit, 1.0)
    assert state.intensity.is_meta and unknowns.background_ratio(scan, exit).shape == (32, 32)
    assert noise.misfit(scan.of(exit.index), exit.intensity, scan.good).shape == (8,)

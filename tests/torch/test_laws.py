"""Laws of the physics, through the code that trains: the objective, the loader, the optimiser, the default
network.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from ptycho import physics as oracle
from ptycho.config.config import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.evaluation import evaluate
from ptycho.run.batches import label_scale
from ptycho.run.schedules import learning_rate_factor
from ptycho.scan.normalization import normalize_probe
from ptycho.scan.raw_data import RawData
from ptycho.simulation import Scenario, simulate
from ptycho_torch import data
from ptycho_torch.config_bridge import from_training_config
from ptycho_torch.fit import trainer as training
from ptycho_torch.fit.trainer import quiet_lightning
from ptycho_torch.model import PtychoPINN_Lightning
from ptycho_torch.workflows import components

N = 32
RIVALS = ("flat", "mirrored", "upside down", "shifted by 1 px", "conjugated", "blurred")


class Given(nn.Module):
    """A network that answers with patches (B, C, N, N) that it was handed, in the network's gauge."""

    def __init__(self, patches: torch.Tensor) -> None:
        super().__init__()
        self.patches = patches

    def forward(self, diffraction: torch.Tensor, probe: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.patches.abs(), self.patches.angle()


def true_object(side: int) -> np.ndarray:
    """Smooth, without any symmetry, amplitude 0.7 to 1.3, phase within +-1.2 rad."""
    rng = np.random.default_rng(5)
    parts = [gaussian_filter(rng.standard_normal((side, side)), 3.0, mode="wrap") for _ in range(2)]
    amplitude, phase = (part / np.abs(part).max() for part in parts)
    return (1 + 0.3 * amplitude) * np.exp(1.2j * phase)


def rivals_of(obj: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "flat": np.full_like(obj, np.sqrt(np.mean(np.abs(obj) ** 2))),
        "mirrored": obj[:, ::-1],
        "upside down": obj[::-1],
        "shifted by 1 px": np.roll(obj, 1, 1),
        "conjugated": obj.conj(),
        "blurred": gaussian_filter(obj.real, 2) + 1j * gaussian_filter(obj.imag, 2),
    }


def measured(modes: int = 1, photons: float = 1e5) -> tuple[RawData, np.ndarray]:
    """36 sub-pixel positions on the true object, expected counts, the true probe; and the object."""
    rng = np.random.default_rng(3)
    grid = np.stack(np.meshgrid(np.arange(6), np.arange(6)), -1).reshape(-1, 2) * 3.0
    positions = grid + rng.uniform(-1, 1, grid.shape) + N // 2 + 4
    obj = true_object(64)
    axis = np.arange(N) - N // 2
    radius2 = axis[:, None] ** 2 + axis**2
    beam = np.exp(-radius2 / (2 * 4.0**2) + 0.03j * radius2)
    probe = np.stack([beam, 0.5 * beam * axis / 4.0 + 0.1j * beam])[:modes]
    probe *= np.sqrt(photons / np.sum(np.abs(probe) ** 2))
    counts = oracle.diffract(oracle.extract(obj, positions[:, 0], positions[:, 1], N), probe)
    raw = RawData.from_coords_without_pc(
        positions[:, 0],
        positions[:, 1],
        counts,
        probe.astype(np.complex64),
        objectGuess=obj.astype(np.complex64),
        diffraction_unit="counts",
    )
    return raw, obj


def module_for(raw: RawData, config) -> tuple[PtychoPINN_Lightning, data.PtychoDataContainer]:
    """The module as training builds it, with the scan attached."""
    container = components._ensure_container(raw, config)
    scan, model, run, inference = from_training_config(config, PyTorchExecutionConfig())
    module = PtychoPINN_Lightning(model, scan, run, inference)
    modes, factor = normalize_probe(container.probe, config.model.probe_scale)
    module.attach_scan(modes, x_scale=container.x_scale, nphotons=container.nphotons, probe_factor=factor)
    return module, container


def loss_of(module, container, obj: np.ndarray, batch, shared: bool = False) -> float:
    """The training loss of one batch if the network answered with this object."""
    places = batch["positions_xy"].numpy()
    places = places.mean(1, keepdims=True) if shared else places
    flat = places.reshape(-1, 2)
    patches = oracle.extract(obj, flat[:, 0], flat[:, 1], N).reshape(*places.shape[:2], N, N)
    gauge = container.x_scale / float(module.gauge[2])
    module.network = Given(torch.from_numpy(patches * gauge).to(torch.complex64))
    with torch.no_grad():
        return float(module.terms(batch)["loss"])


class TestTheTrueObjectMinimisesTheTrainingLoss:
    @pytest.mark.parametrize("modes", [1, 2])
    @pytest.mark.parametrize("mode", ["poisson", "mae"])
    @pytest.mark.parametrize("region", [False, True], ids=["group", "region"])
    @pytest.mark.parametrize("gridsize", [1, 2])
    def test_torch(self, small_config, gridsize, region, mode, modes):
        raw, obj = measured(modes)
        module, container = module_for(raw, small_config(raw, gridsize=gridsize, torch_loss_mode=mode))
        batch = data.GroupDataset(container)[(np.arange(len(container)), region)]
        best = loss_of(module, container, obj, batch)
        losses = {name: loss_of(module, container, other, batch) for name, other in rivals_of(obj).items()}
        assert set(losses) == set(RIVALS)
        assert best < 0.5 * min(losses.values()), (best, losses)

    @pytest.mark.parametrize("window", ["central", "probe", "uniform"])
    def test_whatever_weights_the_merge(self, small_config, window):
        raw, obj = measured()
        module, container = module_for(raw, small_config(raw, gridsize=2, merge_window=window))
        batch = data.GroupDataset(container)[(np.arange(len(container)), False)]
        best = loss_of(module, container, obj, batch)
        assert best < 0.5 * min(loss_of(module, container, other, batch) for other in rivals_of(obj).values())

    @pytest.mark.parametrize("region", [False, True], ids=["group", "region"])
    def test_one_shared_patch_a_group(self, small_config, region):
        raw, obj = measured()
        module, container = module_for(raw, small_config(raw, gridsize=2, object_big=False))
        batch = data.GroupDataset(container)[(np.arange(len(container)), region)]
        best = loss_of(module, container, obj, batch, shared=True)
        others = (loss_of(module, container, other, batch, shared=True) for other in rivals_of(obj).values())
        assert best < 0.5 * min(others)

    @pytest.mark.parametrize("modes", [1, 2])
    @pytest.mark.parametrize("gridsize", [1, 2])
    def test_numpy(self, small_config, gridsize, modes):
        raw, obj = measured(modes)
        _, container = module_for(raw, small_config(raw, gridsize=gridsize))
        groups = container.nn_indices[::3]
        probe, factor = normalize_probe(container.probe, 4.0)
        window, s = oracle.central_window(N), container.intensity_scale

        def losses(candidate: np.ndarray) -> tuple[float, float]:
            nll = mae = 0.0
            for members in groups:
                positions = container.positions_px[members]
                relative = positions - positions.mean(0)
                patches = oracle.extract(candidate, positions[:, 0], positions[:, 1], N)
                canvas = oracle.merge(patches * container.x_scale / factor, relative, window)
                intensity = oracle.diffract(oracle.extract_group(canvas, relative, N), probe)
                x = container.patterns[members].astype(np.float64)
                floor = oracle.poisson_nll_floor((s * x) ** 2)
                nll += oracle.poisson_nll(oracle.rate(intensity, s), (s * x) ** 2) - floor
                mae += oracle.amplitude_mae(intensity, x)
            return nll, mae

        best = losses(obj)
        others = [losses(other) for other in rivals_of(obj).values()]
        assert best[0] < 0.5 * min(other[0] for other in others)
        assert best[1] < 0.5 * min(other[1] for other in others)

    def test_supervised(self, small_config):
        raw, obj = measured()
        module, container = module_for(raw, small_config(raw, gridsize=2, model_type="supervised"))
        scale = label_scale(container, 4.0)
        batch = data.GroupDataset(container, label_scales=[scale])[(np.arange(len(container)), False)]
        candidates = {"true": obj, **rivals_of(obj)}
        losses = {name: loss_of(module, container, other, batch) for name, other in candidates.items()}
        assert losses["true"] < 0.2 * min(value for name, value in losses.items() if name != "true")


class TestNormalisation:
    @pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64])
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_dtype_and_layout_change_nothing(self, make_scan, scan_arrays, small_config, dtype, order):
        plain = components._ensure_container(make_scan(), small_config(make_scan()))
        counts = np.asarray(scan_arrays["diff3d"], dtype=dtype, order=order)
        raw = make_scan(diff3d=counts, diffraction_unit="counts")
        container = components._ensure_container(raw, small_config(raw))
        np.testing.assert_array_equal(container.patterns, plain.patterns)
        assert (container.x_scale, container.nphotons) == (plain.x_scale, plain.nphotons)

    @pytest.mark.parametrize("factor", [2, 7, 1000])
    def test_more_photons_change_nothing_but_their_number(self, make_scan, scan_arrays, small_config, factor):
        counts = scan_arrays["diff3d"].astype(np.int64)
        one, more = (make_scan(diff3d=c, diffraction_unit="counts") for c in (counts, factor * counts))
        first, second = (components._ensure_container(raw, small_config(raw)) for raw in (one, more))
        np.testing.assert_allclose(second.patterns, first.patterns, rtol=1e-6)
        assert second.nphotons == pytest.approx(factor * first.nphotons)

    def test_patterns_and_labels_are_each_scaled_by_one_number_and_phase_never(self, make_scan, small_config):
        raw = make_scan()
        container = components._ensure_container(raw, small_config(raw, gridsize=2))
        np.testing.assert_allclose(container.patterns, raw.amplitude() * container.x_scale, rtol=1e-6)
        scale = label_scale(container, 4.0)
        labels = data.GroupDataset(container, label_scales=[scale])[(np.arange(5), False)]["labels"].numpy()
        plain = container.pattern_labels(container.nn_indices[:5])
        np.testing.assert_allclose(np.abs(labels), scale * np.abs(plain), rtol=1e-5)
        np.testing.assert_allclose(np.angle(labels), np.angle(plain), atol=1e-6)


class Gradients(L.Callback):
    """Keeps the gradients that each optimiser step used, clipped as they were."""

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        given = [p.grad.flatten() for p in pl_module.parameters() if p.grad is not None]
        self.steps.append(torch.cat(given).clone())


def fit(raw, config, batches: list[np.ndarray], **execution) -> tuple[Gradients, PtychoPINN_Lightning]:
    """One epoch over the given batches with the trainer that runs use."""
    module, container = module_for(raw, config)
    settings = PyTorchExecutionConfig(
        logger_backend="none", enable_checkpointing=False, accelerator="cpu", **execution
    )
    seen = Gradients()
    loader = data.make_loader(data.GroupDataset(container), data.FixedBatches([(b, False) for b in batches]))
    with quiet_lightning():
        training.make_trainer(config, settings, [seen], None).fit(module, loader, loader)
    return seen, module


class TestOptimisation:
    @pytest.mark.parametrize("name", ["Default", "Exponential", "WarmupCosine", "OneCycle"])
    def test_learning_rates_follow_their_course(self, make_scan, small_config, silent, name):
        raw = make_scan()
        config = small_config(raw, nepochs=6, scheduler=name, lr_gamma=0.5, lr_warmup_epochs=1)
        rates = components.train_cdi_model_torch(raw, None, config, silent)["history"]["learning_rate"]
        steps = 4  # 27 training groups in batches of 8
        expected = [
            silent.learning_rate * learning_rate_factor(config, name, steps * (e + 1), steps, 6 * steps)
            for e in range(6)
        ]
        np.testing.assert_allclose(rates, expected, rtol=1e-6)
        assert (len(set(rates)) == 1) == (name == "Default")

    def test_the_plateau_scheduler_halves_a_rate_that_achieves_nothing(self, make_scan, small_config, silent):
        raw = make_scan()
        config = small_config(
            raw, nepochs=4, scheduler="ReduceLROnPlateau", plateau_patience=0, optimizer="sgd",
            gradient_clip_val=1e-9,
        )  # fmt: skip
        rates = components.train_cdi_model_torch(raw, None, config, silent)["history"]["learning_rate"]
        # the first epoch sets the mark, the second misses it
        np.testing.assert_allclose(rates, silent.learning_rate * 0.5 ** np.array([0, 0, 1, 2]), rtol=1e-6)

    @pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
    def test_every_optimiser_lowers_the_loss(self, make_scan, small_config, silent, optimizer):
        raw = make_scan(n_positions=64)
        config = small_config(raw, nepochs=4, optimizer=optimizer, gradient_clip_val=1.0)
        history = components.train_cdi_model_torch(raw, None, config, silent)["history"]
        assert history["train_loss"][-1] < history["train_loss"][0]

    def test_clipping_by_norm(self, make_scan, small_config):
        raw = make_scan()
        free, _ = fit(raw, small_config(raw), [np.arange(8)])
        size = float(free.steps[0].norm())
        clipped, _ = fit(raw, small_config(raw, gradient_clip_val=0.25 * size), [np.arange(8)])
        assert float(clipped.steps[0].norm()) == pytest.approx(0.25 * size, rel=1e-4)
        torch.testing.assert_close(4 * clipped.steps[0], free.steps[0], rtol=1e-3, atol=1e-6 * size)
        by_execution, _ = fit(raw, small_config(raw), [np.arange(8)], gradient_clip_val=0.25 * size)
        assert torch.equal(by_execution.steps[0], clipped.steps[0])

    def test_clipping_by_value(self, make_scan, small_config):
        raw = make_scan()
        free, _ = fit(raw, small_config(raw), [np.arange(8)])
        bound = 0.1 * float(free.steps[0].abs().max())
        config = small_config(raw, gradient_clip_val=bound, gradient_clip_algorithm="value")
        clipped, _ = fit(raw, config, [np.arange(8)])
        torch.testing.assert_close(clipped.steps[0], free.steps[0].clamp(-bound, bound))

    def test_accumulated_batches_are_one_large_batch(self, make_scan, small_config):
        raw = make_scan()
        once, large = fit(raw, small_config(raw, nepochs=1, optimizer="sgd"), [np.arange(16)])
        halves = [np.arange(8), np.arange(8, 16)]
        twice, small = fit(raw, small_config(raw, nepochs=1, optimizer="sgd"), halves, accum_steps=2)
        size = float(once.steps[0].abs().max())
        torch.testing.assert_close(twice.steps[1], once.steps[0], rtol=1e-4, atol=1e-5 * size)
        for a, b in zip(small.parameters(), large.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)

    def test_half_precision_is_close(self, make_scan, small_config, silent):
        raw = make_scan()
        losses = []
        for precision in ("32-true", "bf16-mixed"):
            execution = dataclasses.replace(silent, precision=precision)
            history = components.train_cdi_model_torch(raw, None, small_config(raw), execution)["history"]
            losses.append(history["train_loss"])
        np.testing.assert_allclose(losses[1], losses[0], rtol=0.05)


#: side: positions, epochs - as many as it takes for some tens of optimiser steps on a small scan; seeds
COLLAPSE_RUNS = {64: (49, 10, 5), 128: (36, 12, 2), 256: (25, 12, 1)}


@pytest.mark.slow
@pytest.mark.parametrize("N, seed", [(N, seed) for N, run in COLLAPSE_RUNS.items() for seed in range(run[2])])
def test_default_settings_do_not_collapse(N, seed):
    """Pearson correlation with the truth, from the wrong probe guess: a flat or dead image has none."""
    n_positions, nepochs, _ = COLLAPSE_RUNS[N]
    made = simulate(Scenario(N=N, n_positions=n_positions, step_px=5 * N / 64, seed=seed))
    config = TrainingConfig(model=ModelConfig(N=N), seed=seed, nepochs=nepochs, output_dir=Path())
    execution = PyTorchExecutionConfig(logger_backend="none", enable_checkpointing=False, accelerator="cpu")
    results = components.train_cdi_model_torch(made.raw, None, config, execution)
    _, _, found = components.infer_scan(results["models"]["autoencoder"], made.raw)
    verdict = evaluate(found["object"], made.object_true, made.roi, origin_xy=found["origin_xy"])
    correlations = (verdict.amplitude_pearson, verdict.phase_pearson)
    assert min(correlations) > 0.3, correlations

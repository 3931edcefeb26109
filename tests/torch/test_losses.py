"""Every loss against the NumPy oracle or a plain formula, and its gradient against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ptycho import physics as oracle
from ptycho_torch import losses
from ptycho_torch.physics import amplitude, rate

SHAPE = (3, 2, 8, 8)
EVERYTHING = torch.ones(1, 1, 1, 1, dtype=torch.bool)


def counts_and_rate() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    expected = rng.uniform(0.1, 20, SHAPE)
    return rng.poisson(expected).astype(float), expected


def some_patches(seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    modulus, phase = rng.uniform(0.3, 1, SHAPE), rng.uniform(-2.5, 2.5, SHAPE)
    return torch.from_numpy(modulus * np.exp(1j * phase))


def weight() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(9).uniform(0, 2, SHAPE[-2:]))


def bad_pixels() -> np.ndarray:
    return np.random.default_rng(4).random(SHAPE[-2:]) < 0.2


class TestPoisson:
    def test_equals_the_oracle(self):
        counts, expected = counts_and_rate()
        bad = bad_pixels()
        ours = losses.poisson_nll(
            torch.from_numpy(expected), torch.from_numpy(counts), torch.from_numpy(~bad)
        )
        assert ours.item() == pytest.approx(oracle.poisson_nll(expected, counts, bad), rel=1e-12)

    def test_the_deviance_is_the_likelihood_above_its_floor(self):
        counts, expected = counts_and_rate()
        deviance = losses.poisson_deviance(torch.from_numpy(expected), torch.from_numpy(counts), EVERYTHING)
        # the oracle's floor keeps 1e-6 counts where there are none
        above = oracle.poisson_nll(expected, counts) - oracle.poisson_nll_floor(counts)
        assert deviance.item() == pytest.approx(above, abs=2e-6)

    def test_the_deviance_is_zero_where_the_rate_is_the_count_and_nowhere_less(self):
        counts = torch.from_numpy(counts_and_rate()[0]).clamp_min(1)
        assert losses.poisson_deviance(counts, counts, EVERYTHING).item() == pytest.approx(0, abs=1e-12)
        for factor in (0.9, 0.999, 1.001, 1.1):
            assert losses.poisson_deviance(factor * counts, counts, EVERYTHING) > 0

    def test_the_deviance_keeps_its_digits_at_a_billion_photons(self):
        counts = torch.full(SHAPE, 1e9)
        expected = torch.full(SHAPE, 1e9 * (1 + 2**-10))
        exact = 1e9 * (2**-10 - math.log1p(2**-10))
        assert losses.poisson_deviance(expected, counts, EVERYTHING).item() == pytest.approx(exact, rel=0.05)

    @pytest.mark.parametrize("loss", [losses.poisson_nll, losses.poisson_deviance])
    def test_gradient_is_one_minus_n_over_rate(self, loss):
        counts, expected = (torch.from_numpy(values) for values in counts_and_rate())
        expected.requires_grad_()
        loss(expected, counts, EVERYTHING).backward()
        wanted = (1 - counts / expected.detach()) / counts.numel()
        torch.testing.assert_close(expected.grad, wanted, rtol=1e-10, atol=1e-14)

    @pytest.mark.parametrize("loss", [losses.poisson_nll, losses.poisson_deviance])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_dark_pixels_give_finite_values_and_gradients(self, loss, dtype):
        field = torch.zeros(SHAPE, dtype=dtype, requires_grad=True)
        value = loss(rate(field.square(), 3.0), torch.zeros(SHAPE, dtype=dtype), EVERYTHING)
        value.backward()
        assert torch.isfinite(value) and torch.isfinite(field.grad).all()


class TestAmplitude:
    def test_equals_the_oracle(self):
        counts, intensity = counts_and_rate()
        x, bad = np.sqrt(counts), bad_pixels()
        root = amplitude(torch.from_numpy(intensity))
        ours = losses.amplitude_mae(root, torch.from_numpy(x), torch.from_numpy(~bad))
        assert ours.item() == pytest.approx(oracle.amplitude_mae(intensity, x, bad), rel=1e-9)

    def test_a_dark_pixel_has_a_finite_gradient(self):
        intensity = torch.zeros(SHAPE, requires_grad=True)
        losses.amplitude_mae(amplitude(intensity), torch.ones(SHAPE), EVERYTHING).backward()
        assert torch.isfinite(intensity.grad).all()


class TestCounted:
    def test_bad_pixels_and_held_out_patterns_do_not_count(self):
        counts, expected = (torch.from_numpy(values) for values in counts_and_rate())
        patterns = torch.tensor([[True, False], [True, True], [False, False]])
        counted = patterns[:, :, None, None] & ~torch.from_numpy(bad_pixels())
        for loss in (losses.poisson_nll, losses.poisson_deviance, losses.amplitude_mae):
            value = loss(expected, counts, counted)
            spoilt = torch.where(counted, counts, 1e12)
            assert loss(expected, spoilt, counted).item() == pytest.approx(value.item(), rel=1e-12)
            chosen = counted.expand(SHAPE)
            plain = loss(expected[chosen], counts[chosen], torch.ones(()))
            assert value.item() == pytest.approx(plain.item(), rel=1e-12)

    def test_nothing_counted_is_zero(self):
        values = torch.ones(SHAPE, requires_grad=True)
        mean = losses.masked_mean(values, torch.zeros(1, dtype=torch.bool))
        mean.backward()
        assert mean == 0 and (values.grad == 0).all()


class TestRealSpace:
    def test_total_variation_against_the_plain_formula(self):
        patches = some_patches(1)
        o = patches.numpy()
        rows, columns = o[..., 1:, :-1] - o[..., :-1, :-1], o[..., :-1, 1:] - o[..., :-1, :-1]
        plain = np.sqrt(np.abs(rows) ** 2 + np.abs(columns) ** 2).mean()
        assert losses.total_variation(patches).item() == pytest.approx(plain, rel=1e-9)
        assert losses.total_variation(torch.ones(SHAPE, dtype=torch.complex128)).item() < 2e-6

    def test_mae_against_the_plain_formula(self):
        patches, labels, w = some_patches(1), some_patches(2), weight()
        plain = np.average(np.abs((patches - labels).numpy()), weights=w.expand(SHAPE).numpy())
        assert losses.realspace_mae(patches, labels, w).item() == pytest.approx(plain, rel=1e-9)

    def test_supervised_against_the_plain_formula(self):
        patches, labels, w = some_patches(1), some_patches(2), weight()
        difference = np.angle(patches.numpy()) - np.angle(labels.numpy())
        wrapped = np.abs((difference + np.pi) % (2 * np.pi) - np.pi) / np.pi
        amplitude_error = np.abs(np.abs(patches.numpy()) - np.abs(labels.numpy()))
        plain = np.average(amplitude_error + wrapped, weights=w.expand(SHAPE).numpy())
        assert losses.supervised(patches, labels, w).item() == pytest.approx(plain, rel=1e-9)

    def test_a_jump_of_two_pi_costs_nothing(self):
        near, label = (torch.full(SHAPE, value) for value in (math.pi - 0.01, -math.pi + 0.01))
        one, other = (torch.polar(torch.ones(SHAPE), angle) for angle in (near, label))
        assert losses.supervised(one, other, torch.ones(8, 8)).item() == pytest.approx(
            0.02 / math.pi, rel=1e-3
        )

    @pytest.mark.parametrize(
        "loss",
        [
            lambda p: losses.total_variation(p),
            lambda p: losses.realspace_mae(p, some_patches(2), weight()),
            lambda p: losses.supervised(p, some_patches(2), weight()),
        ],
        ids=["total variation", "real-space MAE", "supervised"],
    )
    def test_gradient_against_finite_differences(self, loss):
        patches = some_patches(1).requires_grad_()
        assert torch.autograd.gradcheck(loss, patches, atol=1e-6)

    @pytest.mark.parametrize("value", [0.0, 1.0])
    def test_perfect_or_empty_patches_have_finite_gradients(self, value):
        patches = torch.full(SHAPE, value, dtype=torch.complex64).requires_grad_()
        labels = torch.full(SHAPE, value, dtype=torch.complex64)
        total = losses.total_variation(patches) + losses.realspace_mae(patches, labels, torch.ones(8, 8))
        (total + losses.supervised(patches, labels, torch.ones(8, 8))).backward()
        assert torch.isfinite(torch.view_as_real(patches.grad)).all()

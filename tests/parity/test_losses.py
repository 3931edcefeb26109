"""Every term of the objective on NumPy, PyTorch and TensorFlow arrays: the plain formula, its laws, and its
gradient against central differences.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import oracle_terms
import pytest
from array_kinds import NumPy, in_precision

from ptycho import physics as oracle
from ptycho.forward import label_losses, losses, penalties
from ptycho.forward.diffraction import amplitude, diffract, rate
from ptycho.forward.fields import masked_mean
from ptycho.forward.terms import TERMS as DECLARED
from ptycho.objectives.terms import OBJECTIVES

TERMS = sorted(oracle_terms.values(oracle_terms.fields()))
SHAPE = (3, 2, 8, 8)
both_precisions = pytest.mark.parametrize("dtype", ["float32", "float64"])
likelihoods = pytest.mark.parametrize("loss", [losses.poisson_nll, losses.poisson_deviance])


def term(kind: Any, name: str, dtype: str) -> tuple[np.ndarray, Any]:
    """Where the gradient of a term is taken, and the term as a function of an array of this kind."""
    fields = in_precision(oracle_terms.fields(), dtype)
    given = {n: kind.asarray(array) for n, array in fields.items()}
    argument, call = oracle_terms.calls(given)[name]
    return fields[argument], call


def counts_and_rate() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    expected = rng.uniform(0.1, 20, SHAPE)
    return rng.poisson(expected).astype(float), expected


def bad_pixels() -> np.ndarray:
    return np.random.default_rng(4).random(SHAPE[-2:]) < 0.2


def number(kind: Any, function: Any, *arrays: Any) -> float:
    """The value of a loss of NumPy arrays; other arguments as they are."""
    made = [kind.asarray(a) if isinstance(a, np.ndarray) else a for a in arrays]
    return float(kind.numpy(function(*made)))


EVERYTHING = np.ones((1, 1, 1, 1), bool)


def test_every_declared_term_has_a_function_and_a_formula():
    both = {name for name, info in OBJECTIVES.items() if not info.only}
    assert set(TERMS) == both | {"poisson_deviance"}
    assert set(DECLARED) == set(OBJECTIVES)


@both_precisions
@pytest.mark.parametrize("name", TERMS)
def test_value_is_the_formula(name, dtype, kind):
    at, call = term(kind, name, dtype)
    made = kind.numpy(call(kind.asarray(at)))
    assert made.dtype == dtype and made.shape == ()
    wanted = oracle_terms.values(oracle_terms.fields())[name]
    # roots and directions are kept finite at zero by 1e-12 under the root, which the formulas leave out
    assert float(made) == pytest.approx(wanted, rel={"float32": 2e-6, "float64": 1e-6}[dtype])


@pytest.mark.parametrize("name", TERMS)
def test_gradient_is_the_central_difference(name, kind):
    at, call = term(kind, name, "float64")
    rng = np.random.default_rng(1)
    direction = rng.normal(size=at.shape) + (1j * rng.normal(size=at.shape) if np.iscomplexobj(at) else 0)
    if name == "label_orientation":
        direction *= 1e-2  # its direction turns within 1e-6 of a flat pixel
    measured = NumPy().slope(term(NumPy(), name, "float64")[1], at, direction)
    # absolute values have a kink within a step of some pixels
    assert kind.slope(call, at, direction) == pytest.approx(measured, rel=1e-4)


@both_precisions
@pytest.mark.tf
@pytest.mark.parametrize("name", TERMS)
def test_both_backends_have_one_gradient(name, dtype, tf):
    from array_kinds import KINDS

    sides = [KINDS[side]() for side in ("pytorch", "tensorflow")]
    found = []
    for side in sides:
        at, call = term(side, name, dtype)
        found.append(side.gradient(call, at))
    (value, gradient), (other, slope) = found
    assert other == pytest.approx(value, rel={"float32": 1e-6, "float64": 1e-12}[dtype])
    allowed = {"float32": 1e-4, "float64": 1e-9}[dtype]
    if name == "label_orientation" and dtype == "float32":
        allowed = 5e-4  # the direction of a slope near zero is rounding
    assert np.linalg.norm(slope - gradient) < allowed * np.linalg.norm(gradient)


class TestPoisson:
    def test_equals_the_oracle_with_bad_pixels_left_out(self, kind):
        counts, expected = counts_and_rate()
        bad = bad_pixels()
        counts[..., bad] = 1e5  # bright where it must not count
        made = number(kind, losses.poisson_nll, expected, counts, ~bad)
        assert made == pytest.approx(oracle.poisson_nll(expected, counts, bad), rel=1e-12)

    def test_the_deviance_is_the_likelihood_above_its_floor(self, kind):
        counts, expected = counts_and_rate()
        above = oracle.poisson_nll(expected, counts) - oracle.poisson_nll_floor(counts)
        # the oracle's floor keeps 1e-6 counts where there are none
        made = number(kind, losses.poisson_deviance, expected, counts, EVERYTHING)
        assert made == pytest.approx(above, abs=2e-6)

    def test_the_deviance_is_zero_where_the_rate_is_the_count_and_nowhere_less(self, kind):
        counts = np.maximum(counts_and_rate()[0], 1)
        deviance = [number(kind, losses.poisson_deviance, f * counts, counts, EVERYTHING) for f in FACTORS]
        assert deviance[0] == pytest.approx(0, abs=1e-12)
        assert all(value > 1e-9 for value in deviance[1:])

    def test_the_deviance_keeps_its_digits_at_a_billion_photons(self, kind):
        counts = np.full(SHAPE, 1e9, np.float32)
        expected = np.full(SHAPE, 1e9 * (1 + 2**-10), np.float32)
        exact = 1e9 * (2**-10 - math.log1p(2**-10))
        made = number(kind, losses.poisson_deviance, expected, counts, EVERYTHING)
        assert made == pytest.approx(exact, rel=0.05)

    @likelihoods
    def test_gradient_is_one_minus_n_over_rate(self, loss, differentiable):
        counts, expected = counts_and_rate()
        n, everything = map(differentiable.asarray, (counts, EVERYTHING))
        _, gradient = differentiable.gradient(lambda r: loss(r, n, everything), expected)
        np.testing.assert_allclose(gradient, (1 - counts / expected) / counts.size, rtol=1e-10, atol=1e-14)

    @likelihoods
    @both_precisions
    @pytest.mark.parametrize("count", [0, 1e9])
    def test_dark_pixels_give_finite_values_and_gradients(self, loss, dtype, count, differentiable):
        dark = np.zeros(SHAPE, {"float32": "complex64", "float64": "complex128"}[dtype])
        probe = differentiable.asarray(np.ones((1, 8, 8), dark.dtype))
        n, everything = map(differentiable.asarray, (np.full(SHAPE, count, dtype), EVERYTHING))
        value, gradient = differentiable.gradient(
            lambda o: loss(rate(diffract(o, probe), 3.0), n, everything), dark
        )
        assert np.isfinite(value) and np.isfinite(gradient).all()

    def test_read_noise_shifts_counts_and_rate_and_never_below_zero(self, kind):
        counts, expected = counts_and_rate()
        counts[0, 0, 0, :3] = -9  # a dark-subtracted detector
        made = number(kind, losses.shifted_poisson, expected, counts, EVERYTHING, 4.0)
        plain = number(kind, losses.poisson_deviance, expected + 4, np.maximum(counts + 4, 0), EVERYTHING)
        assert made == pytest.approx(plain, rel=1e-12)
        assert made != pytest.approx(number(kind, losses.shifted_poisson, expected, counts, EVERYTHING, 1.0))


FACTORS = (1, 0.9, 0.999, 1.001, 1.1)


class TestAmplitude:
    def test_equals_the_oracle(self, kind):
        counts, intensity = counts_and_rate()
        x, bad = np.sqrt(counts), bad_pixels()
        x[..., bad] = 1e3
        root = kind.numpy(amplitude(kind.asarray(intensity)))
        made = number(kind, losses.amplitude_mae, root, x, ~bad)
        assert made == pytest.approx(oracle.amplitude_mae(intensity, x, bad), rel=1e-9)

    def test_a_dark_pixel_has_a_finite_gradient(self, differentiable):
        x, everything = differentiable.asarray(np.ones(SHAPE)), differentiable.asarray(EVERYTHING)
        _, gradient = differentiable.gradient(
            lambda i: losses.amplitude_mae(amplitude(i), x, everything), np.zeros(SHAPE)
        )
        assert np.isfinite(gradient).all()


class TestCounted:
    def test_bad_pixels_and_held_out_patterns_do_not_count(self, kind):
        counts, expected = counts_and_rate()
        patterns = np.array([[True, False], [True, True], [False, False]])
        counted = patterns[:, :, None, None] & ~bad_pixels()
        chosen = np.broadcast_to(counted, SHAPE)
        for loss in (losses.poisson_nll, losses.poisson_deviance, losses.amplitude_mae):
            value = number(kind, loss, expected, counts, counted)
            spoilt = number(kind, loss, expected, np.where(counted, counts, 1e12), counted)
            alone = number(kind, loss, expected[chosen], counts[chosen], np.ones(1, bool))
            assert value == pytest.approx(spoilt, rel=1e-12) == pytest.approx(alone, rel=1e-12)

    def test_nothing_counted_is_zero(self, differentiable):
        nothing = differentiable.asarray(np.zeros(1, bool))
        value, gradient = differentiable.gradient(lambda v: masked_mean(v, nothing), np.ones(SHAPE))
        assert value == 0 and (gradient == 0).all()

    def test_one_pixel_counted_is_its_own_mean(self, kind):
        counted = np.zeros(SHAPE, bool)
        counted[1, 0, 3, 4] = True
        values = np.arange(np.prod(SHAPE), dtype=float).reshape(SHAPE)
        assert number(kind, masked_mean, values, counted) == values[1, 0, 3, 4]


class TestRealSpace:
    def test_a_constant_object_has_no_variation_and_no_curvature(self, kind):
        flat = np.full(SHAPE, 0.3 + 0.4j)
        assert number(kind, losses.total_variation, flat) < 2e-6
        assert number(kind, penalties.smoothness, flat) < 1e-30

    def test_a_jump_of_two_pi_costs_nothing(self, kind):
        near, label = np.exp(1j * (math.pi - 0.01)), np.exp(1j * (-math.pi + 0.01))
        arrays = np.full(SHAPE, near), np.full(SHAPE, label), np.ones(SHAPE[-2:])
        for loss in (losses.supervised, label_losses.label_phase):
            assert number(kind, loss, *arrays) == pytest.approx(0.02 / math.pi, rel=1e-3)

    @pytest.mark.parametrize("name", ["label_phase", "label_edges", "label_orientation", "label_ssim"])
    def test_labels_themselves_cost_nothing(self, name, kind):
        given = oracle_terms.fields()
        given["patches"] = given["labels"]
        _, call = oracle_terms.calls({n: kind.asarray(a) for n, a in given.items()})[name]
        assert abs(float(kind.numpy(call(kind.asarray(given["labels"]))))) < 1e-6

    def test_what_is_not_lit_is_not_judged(self, kind):
        given = oracle_terms.fields()
        weight = np.zeros_like(given["weight"])
        weight[10:20, 10:20] = given["weight"][10:20, 10:20]
        spoilt = given["patches"].copy()
        spoilt[..., :6, :] = 50  # farther from the light than a filter reaches
        for loss in (
            losses.supervised, losses.realspace_mae, label_losses.label_phase, label_losses.label_edges,
            label_losses.label_orientation, penalties.overlap_consistency,
        ):  # fmt: skip
            values = [number(kind, loss, p, given["labels"], weight) for p in (given["patches"], spoilt)]
            assert values[0] == pytest.approx(values[1], rel=1e-12)

    @pytest.mark.parametrize("value", [0.0, 1.0])
    def test_perfect_or_empty_patches_have_finite_gradients(self, value, differentiable):
        patches = np.full(SHAPE, value, np.complex64)
        labels, weight = map(differentiable.asarray, (patches, np.ones((8, 8), np.float32)))

        def total(p: Any) -> Any:
            return (
                losses.total_variation(p)
                + losses.realspace_mae(p, labels, weight)
                + losses.supervised(p, labels, weight)
                + label_losses.label_edges(p, labels, weight)
                + label_losses.label_orientation(p, labels, weight)
            )

        found, gradient = differentiable.gradient(total, patches)
        assert np.isfinite(found) and np.isfinite(gradient).all()

    def test_ssim_settings_count(self, kind):
        given = oracle_terms.fields()
        found = {
            (sigma, span): number(
                kind, label_losses.label_ssim, given["patches"], given["labels"], sigma, span
            )
            for sigma, span in ((1.5, 1.0), (1.0, 1.0), (1.5, 2.0))
        }
        assert len({round(value, 4) for value in found.values()}) == 3
        taps = label_losses.gaussian_taps(1.5)
        assert (
            len(taps) == 11
            and sum(taps) == pytest.approx(1)
            and taps[5] / taps[8] == pytest.approx(math.exp(2))
        )


class TestProbe:
    def test_power_is_judged_against_the_start(self, kind):
        probe = np.full((2, 4, 4), 1 + 1j)
        assert number(kind, penalties.probe_power, probe, 64.0) == 0
        assert number(kind, penalties.probe_power, probe, 32.0) == pytest.approx(1)

    def test_support_is_the_share_outside(self, kind):
        probe, inside = np.full((2, 4, 4), 1 + 1j), np.zeros((4, 4))
        inside[0], inside[1] = 1, 0.5
        assert number(kind, penalties.probe_support, probe, inside) == pytest.approx(10 / 16)

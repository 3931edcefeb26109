"""Every term of the objective: both backends equal each other and the NumPy formula, value and gradient."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import numpy as np
import oracle_terms
import pytest
import torch

from ptycho.objectives.terms import OBJECTIVES

ROOMS = ("losses", "penalties", "label_losses")
TERMS = sorted(oracle_terms.values(oracle_terms.fields()))
#: tf.image.ssim computes in single precision whatever it is given
SINGLE = ("label_ssim",)


def rooms(package: str) -> SimpleNamespace:
    return SimpleNamespace(**{name: importlib.import_module(f"{package}.{name}") for name in ROOMS})


def in_precision(given: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    kinds = {"f": dtype, "c": "complex64" if dtype == "float32" else "complex128", "b": "bool"}
    return {name: array.astype(kinds[array.dtype.kind]) for name, array in given.items()}


def by_torch(name: str, dtype: str) -> tuple[float, np.ndarray]:
    given = {n: torch.from_numpy(a) for n, a in in_precision(oracle_terms.fields(), dtype).items()}
    calls = oracle_terms.calls(rooms("ptycho_torch"), given, torch.sqrt)
    start = calls[name][0].requires_grad_()
    value = calls[name][1](start)
    value.backward()
    return value.item(), start.grad.numpy()


def by_tensorflow(tf, name: str, dtype: str) -> tuple[float, np.ndarray]:
    given = {n: tf.constant(a) for n, a in in_precision(oracle_terms.fields(), dtype).items()}
    start, call = oracle_terms.calls(rooms("ptycho.tf"), given, tf.sqrt)[name]
    with tf.GradientTape() as tape:
        tape.watch(start)
        value = call(start)
    assert value.dtype == dtype
    return float(value), tape.gradient(value, start).numpy()


def test_the_oracle_has_every_term():
    assert set(TERMS) == set(OBJECTIVES) | {"poisson_deviance"}


@pytest.mark.parametrize("name", TERMS)
def test_torch_is_the_formula(name):
    wanted = oracle_terms.values(oracle_terms.fields())[name]
    # gradients of roots and directions are kept finite at zero by 1e-12 under the root
    assert by_torch(name, "float64")[0] == pytest.approx(wanted, rel=2e-6)
    assert by_torch(name, "float32")[0] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.tf
@pytest.mark.parametrize("name", TERMS)
def test_tensorflow_is_torch(name, tf):
    for dtype, of_value, of_gradient in (("float32", 1e-6, 1e-4), ("float64", 1e-9, 1e-9)):
        if name in SINGLE:
            of_value, of_gradient = 1e-5, 1e-4
        if name == "label_orientation" and dtype == "float32":
            of_gradient = 2e-3  # the direction of a slope near zero is rounding, in either
        value, gradient = by_torch(name, dtype)
        found, slope = by_tensorflow(tf, name, dtype)
        assert found == pytest.approx(value, rel=of_value), dtype
        assert np.linalg.norm(slope - gradient) < of_gradient * np.linalg.norm(gradient), dtype

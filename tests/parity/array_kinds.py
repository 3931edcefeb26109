"""NumPy, PyTorch and TensorFlow arrays behind one small door, so that a formula is tested once on all three.

`slope` is the derivative along a direction: by automatic differentiation, and for NumPy by central
differences, which is what the other two are held to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

COMPLEX = {"float32": "complex64", "float64": "complex128"}


def in_precision(given: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    """The same arrays with real numbers of this dtype and complex ones to match; others as they are."""
    kinds = {"f": dtype, "c": COMPLEX[dtype]}
    return {name: array.astype(kinds.get(array.dtype.kind, array.dtype)) for name, array in given.items()}


class NumPy:
    """Plain arrays; derivatives by central differences."""

    name = "numpy"

    def asarray(self, value: np.ndarray) -> Any:
        return np.array(value)

    def numpy(self, value: Any) -> np.ndarray:
        return np.asarray(value)

    def slope(self, function: Callable[[Any], Any], at: np.ndarray, direction: np.ndarray) -> float:
        step = 1e-6
        return float(function(at + step * direction) - function(at - step * direction)) / (2 * step)


class Differentiable:
    """A kind of array with gradients of its own."""

    def gradient(self, function: Callable[[Any], Any], at: np.ndarray) -> tuple[float, np.ndarray]:
        raise NotImplementedError

    def slope(self, function: Callable[[Any], Any], at: np.ndarray, direction: np.ndarray) -> float:
        _, gradient = self.gradient(function, at)
        return float(np.sum(np.real(np.conj(gradient) * direction)))


class TorchArrays(Differentiable):
    """Tensors of PyTorch."""

    name = "pytorch"

    def asarray(self, value: np.ndarray) -> Any:
        import torch

        return torch.from_numpy(np.array(value))

    def numpy(self, value: Any) -> np.ndarray:
        return value.detach().resolve_conj().numpy()

    def gradient(self, function: Callable[[Any], Any], at: np.ndarray) -> tuple[float, np.ndarray]:
        """Value and gradient of a scalar function of one array; zero where it does not depend on it."""
        point = self.asarray(at).requires_grad_()
        value = function(point)
        if value.requires_grad:
            value.backward()
        return value.item(), np.zeros_like(at) if point.grad is None else self.numpy(point.grad)


class TensorFlowArrays(Differentiable):
    """Tensors of TensorFlow."""

    name = "tensorflow"

    def asarray(self, value: np.ndarray) -> Any:
        import tensorflow as tf

        return tf.convert_to_tensor(np.array(value))

    def numpy(self, value: Any) -> np.ndarray:
        return value.numpy()

    def gradient(self, function: Callable[[Any], Any], at: np.ndarray) -> tuple[float, np.ndarray]:
        """Value and gradient of a scalar function of one array; zero where it does not depend on it."""
        import tensorflow as tf

        point = self.asarray(at)
        with tf.GradientTape() as tape:
            tape.watch(point)
            value = function(point)
        return float(value), tape.gradient(value, point, unconnected_gradients="zero").numpy()


Kind = NumPy | TorchArrays | TensorFlowArrays
KINDS: dict[str, type[Kind]] = {"numpy": NumPy, "pytorch": TorchArrays, "tensorflow": TensorFlowArrays}

"""The stem around a reference as ONNX: complex numbers as pairs, Fourier transforms as matrix products.

The input `reference` (batch, 2 C, N, N) holds C real parts, then C imaginary ones. Formulas:
`backproject_around` of the backends' layers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ptycho.networks.graphs import Node

REFERENCE = "reference"
#: as in the backends' layers
_DAMPING, _FLOOR = 0.05, 0.0025


def backproject_around(w: Any, node: Node, x: list[str]) -> str:
    """The writer's operation: (B, C, N, N) of x and the file's reference to (B, 4 C + 1, N, N)."""
    C, N = w.spec.channels, w.spec.N
    probe = np.asarray(w.scan.probe, np.complex128)
    P, lit = len(probe), (np.abs(probe) ** 2).sum(0)
    damped = lit + _DAMPING * lit.max()
    re, im = (w.constant(f"probe_{name}", part) for name, part in (("re", probe.real), ("im", probe.imag)))
    real, imaginary = parts(w, C)
    wide = [w.add("Reshape", part, w.integers(0, C, 1, N, N)) for part in (real, imaginary)]
    exits = _times(w, wide, [re, im])
    waves = _forward(w, w.add("Concat", *exits, axis=4), N)
    waves = w.add("Reshape", waves, w.integers(0, C, 2 * P, N, N))
    power = w.add("ReduceSum", w.add("Mul", waves, waves), w.integers(2), keepdims=1)
    modulus = w.add("Sqrt", w.add("Add", power, w.constant("least_power", 1e-6)))
    measured = w.add("Reshape", x[0], w.integers(0, C, 1, N, N))
    excess = w.add("Sub", w.add("Div", measured, modulus), w.constant("one", 1))
    if w.scan.bad_pixels.any():
        excess = w.add("Mul", excess, w.constant("measured", ~w.scan.bad_pixels))
    excess = w.add("Reshape", w.add("Mul", waves, excess), w.integers(0, C, P, 2 * N, N))
    residual = _inverse(w, excess, N)
    back = probe.conj() / damped
    change = []
    for name, pair in (("re", (back.real, -back.imag)), ("im", (back.imag, back.real))):
        product = w.add("Mul", residual, w.constant(f"back_{name}", np.concatenate(pair, axis=-1)))
        product = w.add("Reshape", product, w.integers(0, C, P, N, 2, N))
        change.append(w.add("ReduceSum", product, w.integers(2, 4), keepdims=0))
    squared = _squared(w, [real, imaginary])
    safe = w.add("Add", squared, w.constant("reference_floor", _FLOOR))
    conjugate = [real, w.add("Neg", imaginary)]
    ratio = [w.add("Div", part, safe) for part in _times(w, change, conjugate)]
    seen = _turned(w, [real, imaginary], squared, lit / lit.sum())
    batch = w.add("Shape", x[0], start=0, end=1)
    shape = w.add("Concat", batch, w.integers(1, N, N), axis=0)
    window = w.add("Expand", w.constant("lit_window", (lit / damped)[None, None]), shape)
    return str(w.add("Concat", *ratio, *seen, window, axis=1, name=f"node:{node.name}"))


def around_amplitude(w: Any, node: Node, x: list[str]) -> str:
    """|reference| exp(x)."""
    modulus = w.add("Sqrt", _squared(w, list(parts(w, w.spec.channels))))
    return str(w.add("Mul", modulus, w.add("Exp", x[0]), name=f"node:{node.name}"))


def around_phase(w: Any, node: Node, x: list[str]) -> str:
    """Angle of the reference plus x; the angle by half angles, each side of zero by the stable one."""
    real, imaginary = parts(w, w.spec.channels)
    modulus = w.add("Sqrt", _squared(w, [real, imaginary]))
    zero, tiny = w.constant("zero", 0), w.constant("tiny", 1e-20)
    right = w.add("Div", imaginary, w.add("Max", w.add("Add", modulus, real), tiny))
    is_zero = w.add("Equal", imaginary, zero)
    left = w.add("Div", w.add("Sub", modulus, real), w.add("Where", is_zero, tiny, imaginary))
    half = w.add("Atan", w.add("Where", w.add("Less", real, zero), left, right))
    return str(w.add("Add", w.add("Add", half, half), x[0], name=f"node:{node.name}"))


def parts(w: Any, channels: int) -> tuple[str, str]:
    """Real and imaginary part of the file's input, each (B, C, N, N)."""
    ends = (w.integers(0), w.integers(channels), w.integers(2 * channels))
    found = [w.add("Slice", REFERENCE, ends[i], ends[i + 1], w.integers(1)) for i in range(2)]
    return found[0], found[1]


def _turned(w: Any, reference: list[str], squared: str, share: Any) -> list[str]:
    """The reference, turned and scaled to one in the light's mean."""
    light = w.constant("light_share", share)
    axes = w.integers(2, 3)
    mean = [w.add("ReduceSum", w.add("Mul", part, light), axes, keepdims=1) for part in reference]
    size = w.add("Add", w.add("Sqrt", _squared(w, mean)), w.constant("least_power", 1e-6))
    turn = [w.add("Div", mean[0], size), w.add("Neg", w.add("Div", mean[1], size))]
    power = w.add("ReduceSum", w.add("Mul", squared, light), axes, keepdims=1)
    spread = w.add("Sqrt", w.add("Add", power, w.constant("least_power", 1e-6)))
    return [w.add("Div", part, spread) for part in _times(w, reference, turn)]


def _squared(w: Any, pair: list[str]) -> str:
    return str(w.add("Add", *(w.add("Mul", part, part) for part in pair)))


def _times(w: Any, one: list[str], other: list[str]) -> list[str]:
    """The product of two complex numbers given as pairs."""
    (a, b), (c, d) = one, other
    real = w.add("Sub", w.add("Mul", a, c), w.add("Mul", b, d))
    return [real, w.add("Add", w.add("Mul", a, d), w.add("Mul", b, c))]


def _matrices(N: int) -> Any:
    """The inverse transform from frequencies around zero: (pixels, frequencies), unitary."""
    return np.exp(2j * np.pi * np.outer(np.arange(N), np.arange(N) - N // 2) / N) / math.sqrt(N)


def _forward(w: Any, beside: str, N: int) -> str:
    """[Re | Im] (..., N, 2 N) to its transform [Re; Im] (..., 2 N, N)."""
    A = _matrices(N).conj().T
    turned = w.add("MatMul", beside, w.constant("dft_columns", _columns(A)))
    ends = (w.integers(0), w.integers(N), w.integers(2 * N))
    halves = [w.add("Slice", turned, ends[i], ends[i + 1], w.integers(4)) for i in range(2)]
    return str(w.add("MatMul", w.constant("dft_rows", _rows(A)), w.add("Concat", *halves, axis=3)))


def _inverse(w: Any, stacked: str, N: int) -> str:
    """[Re; Im] (..., 2 N, N) to its inverse transform [Re | Im] (..., N, 2 N)."""
    A = _matrices(N)
    turned = w.add("MatMul", w.constant("inverse_dft_rows", _rows(A)), stacked)
    ends = (w.integers(0), w.integers(N), w.integers(2 * N))
    halves = [w.add("Slice", turned, ends[i], ends[i + 1], w.integers(3)) for i in range(2)]
    return str(
        w.add("MatMul", w.add("Concat", *halves, axis=4), w.constant("inverse_dft_columns", _columns(A)))
    )


def _columns(A: Any) -> Any:
    return np.block([[A.real.T, A.imag.T], [-A.imag.T, A.real.T]])


def _rows(A: Any) -> Any:
    return np.block([[A.real, -A.imag], [A.imag, A.real]])

"""What a table of array operations holds: names, shapes and meanings, the same for every backend.

Arithmetic (+ - * /), comparison, `&`, `~`, slicing with constants and `.shape[i]` of a known axis are the
same in all three and are used as they are. Axes count from the end where the leading ones are free.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

#: a NumPy array, a torch tensor or a TensorFlow tensor; all arrays of one call are of one kind
Array = Any
#: a number of elements: an int, or in a traced TensorFlow function a scalar int32 tensor
Size = Any


class Ops(Protocol):
    """The names that `ptycho.forward` is written in. `like` gives dtype, device and, where said, shape."""

    # ------------------------------------------------------------------------------------ shapes and kinds

    def shape(self, x: Array) -> tuple[Size, ...]:
        """Sides of x; in a traced function an int where it is known and a tensor where it is not."""

    def reshape(self, x: Array, shape: Sequence[Size]) -> Array:
        """x with another shape; one side may be -1."""

    def broadcast_like(self, x: Array, like: Array) -> Array:
        """x repeated to the shape of `like`."""

    def concat(self, parts: Sequence[Array], axis: int) -> Array:
        """Arrays one after another along an axis."""

    def pad(self, x: Array, widths: Sequence[tuple[Size, Size]]) -> Array:
        """Zeros around x: (before, after) for every axis."""

    def cast_like(self, x: Array, like: Array) -> Array:
        """Real or boolean x in the real dtype of `like` (float32 for complex64)."""

    def constant(self, values: NDArray[Any], like: Array) -> Array:
        """Real NumPy values as an array of the kind, real dtype and device of `like`."""

    def double(self, values: NDArray[np.float64], like: Array) -> Array:
        """NumPy values as a float64 array of the kind and device of `like`."""

    def to_numpy(self, x: Array) -> NDArray[Any]:
        """x as a NumPy array in memory, without a gradient. On a GPU this waits for the device."""

    def take(self, x: Array, rows: NDArray[np.int64]) -> Array:
        """x[rows], of the first axis."""

    def number(self, size: Size, like: Array) -> Array:
        """A size as a number that can be added to real `like`."""

    def sizes(self, x: Array) -> Sequence[Size]:
        """The elements of x (n,), which are whole, as sizes. On a GPU this waits for the device."""

    def repeat_index(self, n: Size, times: Size, like: Array) -> Array:
        """Integers 0 .. n-1, each `times` times in a row: shape (n * times,)."""

    def masked(self, x: Array, mask: Array) -> Array:
        """x (B, C, N, N) where mask (N, N) is true: (B, C, pixels)."""

    # -------------------------------------------------------------------------------------------- elements

    def real(self, x: Array) -> Array:
        """Real part."""

    def imag(self, x: Array) -> Array:
        """Imaginary part."""

    def conj(self, x: Array) -> Array:
        """Complex conjugate."""

    def angle(self, x: Array) -> Array:
        """Phase in rad, in (-pi, pi]."""

    def abs(self, x: Array) -> Array:
        """Modulus of real or complex x. Its gradient at complex zero may be NaN: see `modulus`."""

    def modulus(self, x: Array) -> Array:
        """Modulus of complex x with the gradient zero at zero."""

    def square(self, x: Array) -> Array:
        """x * x of real x."""

    def sqrt(self, x: Array) -> Array:
        """Square root of real x."""

    def log(self, x: Array) -> Array:
        """Natural logarithm."""

    def exp(self, x: Array) -> Array:
        """e to the x."""

    def floor(self, x: Array) -> Array:
        """Largest whole number not above x."""

    def ceil(self, x: Array) -> Array:
        """Smallest whole number not below x."""

    def atan2(self, y: Array, x: Array) -> Array:
        """Angle of (x, y) in rad."""

    def maximum(self, x: Array, number: float) -> Array:
        """The larger of x and a number; the gradient goes to x where both are equal."""

    def where(self, condition: Array, x: Array, number: float) -> Array:
        """x where the condition holds, else a number."""

    def times(self, x: Array, factor: Array) -> Array:
        """Real or complex x times a real array of the same precision."""

    # ------------------------------------------------------------------------------------------ reductions

    def sum(self, x: Array, axis: int | None = None) -> Array:
        """Sum over one axis, or over all."""

    def mean(self, x: Array, axis: int | None = None, keepdims: bool = False) -> Array:
        """Mean over one axis, or over all."""

    def max(self, x: Array, axis: int | None = None) -> Array:
        """Largest element along one axis, or of all."""

    def min(self, x: Array, axis: int | None = None) -> Array:
        """Smallest element along one axis, or of all."""

    # ---------------------------------------------------------------------------------------- whole images

    def fft2(self, x: Array) -> Array:
        """Discrete Fourier transform of the last two axes, without a factor, zero frequency first."""

    def fftshift(self, x: Array) -> Array:
        """Zero frequency of the last two axes to (N//2, N//2)."""

    def splat(
        self, patches: Array, corners_xy: Array, canvas: Array, n_canvases: Size, shape: tuple[Size, Size]
    ) -> Array:
        """Add every patch to its canvas at its own sub-pixel place (bilinear interpolation).

        Shapes: patches (K, N, N) real or complex; corners_xy (K, 2) float64, the canvas pixel under patch
        pixel (0, 0), at least 0 and at most side - N - 1; canvas (K,) integer, which canvas; shape (H, W).
        Returns (n_canvases, H, W). Time and memory O(K N^2). Deterministic on the CPU. Differentiable in the
        patches; in TensorFlow not in the corners.
        """

    def gather(self, canvases: Array, corners_xy: Array, canvas: Array, N: Size) -> Array:
        """Cut the patch under every corner out of its canvas (bilinear): the adjoint of `splat`.

        Shapes: canvases (n, H, W); corners_xy (K, 2) float64; canvas (K,) integer; returns (K, N, N).
        """

    def correlate(self, x: Array, taps: Sequence[float], axis: int) -> Array:
        """Sum over k of taps[k] x[i + k] along rows (-2) or columns (-1) of real x (..., N, N).

        Only windows inside x: the axis loses len(taps) - 1 pixels.
        """

    # -------------------------------------------------------------------------------------------- gradient

    def stop_gradient(self, x: Array) -> Array:
        """x as a constant."""

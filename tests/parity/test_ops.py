"""Every operation of `ptycho.ops`, in all three tables, against a plain NumPy expression; and its gradient
against central differences.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from array_kinds import COMPLEX, NumPy, in_precision

from ptycho import physics as oracle
from ptycho.ops import Ops, ops_of
from ptycho.ops import numpy as numpy_table

NAMES = sorted(name for name in vars(Ops) if not name.startswith("_"))
B, C, N, H, W = 2, 3, 6, 13, 17


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)

    def field(*shape: int) -> np.ndarray:
        return rng.normal(size=shape) + 1j * rng.normal(size=shape)

    return {
        "z": field(B, C, N, N), "y": field(B, C, N, N), "r": rng.uniform(0.5, 3, (B, C, N, N)),
        "s": rng.normal(size=(B, C, N, N)), "w": rng.uniform(0.1, 1, (N, N)), "v": np.array([3.0, 0.0, 7.0]),
        "mask": rng.uniform(size=(N, N)) > 0.4, "patches": field(4, N, N), "canvases": field(2, H, W),
        "corners": rng.uniform(0, 1, (4, 2)) * (W - N - 1, H - N - 1), "canvas": np.array([1, 0, 1, 1]),
    }  # fmt: skip


def laid(patches: np.ndarray, corners: np.ndarray, canvas: np.ndarray) -> np.ndarray:
    """Splat by the oracle's shift: each patch at the corner of a canvas, moved as a whole."""
    out = np.zeros((2, H, W), complex)
    for patch, corner, which in zip(patches, corners, canvas, strict=True):
        out[which] += oracle.shift_bilinear(np.pad(patch, ((0, H - N), (0, W - N))), corner)
    return out


def cut(canvases: np.ndarray, corners: np.ndarray, canvas: np.ndarray) -> np.ndarray:
    """Gather by the oracle's extraction, whose positions are those under pixel N//2."""
    return np.stack(
        [
            oracle.extract(canvases[which], [x + N // 2], [y + N // 2], N)[0]
            for (x, y), which in zip(corners, canvas, strict=True)
        ]
    )


TAPS = (0.5, -2.0, 0.0, 1.0)


def correlated(x: np.ndarray, axis: int) -> np.ndarray:
    return np.apply_along_axis(lambda line: np.correlate(line, TAPS, "valid"), axis, x)


#: name -> (argument that a gradient is taken of, call of a table, the same in NumPy)
CASES: dict[str, tuple[str, Any, Any]] = {
    "shape": ("", lambda o, a: o.shape(a["z"]), lambda a: [B, C, N, N]),
    "reshape": ("z", lambda o, a: o.reshape(a["z"], (-1, N, N)), lambda a: a["z"].reshape(B * C, N, N)),
    "broadcast_like": (
        "w", lambda o, a: o.broadcast_like(a["w"], a["z"]), lambda a: np.tile(a["w"], (B, C, 1, 1)),
    ),
    "concat": ("z", lambda o, a: o.concat([a["z"], a["y"]], 1), lambda a: np.hstack([a["z"], a["y"]])),
    "pad": (
        "z", lambda o, a: o.pad(a["z"], ((0, 0), (1, 2), (0, 3), (4, 0))),
        lambda a: np.pad(a["z"], ((0, 0), (1, 2), (0, 3), (4, 0))),
    ),
    "cast_like": ("", lambda o, a: o.cast_like(a["mask"], a["z"]), lambda a: a["mask"].astype(a["r"].dtype)),
    "constant": ("", lambda o, a: o.constant(np.eye(3), a["z"]), lambda a: np.eye(3, dtype=a["r"].dtype)),
    "double": ("", lambda o, a: o.double(np.eye(3, dtype="f4"), a["z"]), lambda a: np.eye(3)),
    "to_numpy": ("", lambda o, a: o.to_numpy(a["z"]), lambda a: a["z"]),
    "take": ("", lambda o, a: o.take(a["y"], np.array([1, 0])), lambda a: a["y"][::-1]),
    "number": ("r", lambda o, a: a["r"] + o.number(7, a["r"]), lambda a: a["r"] + 7),
    "sizes": ("", lambda o, a: o.sizes(a["v"]), lambda a: [3, 0, 7]),
    "repeat_index": ("", lambda o, a: o.repeat_index(3, 2, a["z"]), lambda a: [0, 0, 1, 1, 2, 2]),
    "masked": ("z", lambda o, a: o.masked(a["z"], a["mask"]), lambda a: a["z"][:, :, a["mask"]]),
    "real": ("z", lambda o, a: o.real(a["z"]), lambda a: a["z"].real),
    "imag": ("z", lambda o, a: o.imag(a["z"]), lambda a: a["z"].imag),
    "conj": ("z", lambda o, a: o.conj(a["z"]), lambda a: a["z"].real - 1j * a["z"].imag),
    "angle": ("z", lambda o, a: o.angle(a["z"]), lambda a: np.arctan2(a["z"].imag, a["z"].real)),
    "abs": ("s", lambda o, a: o.abs(a["s"]), lambda a: np.where(a["s"] < 0, -a["s"], a["s"])),
    "modulus": ("z", lambda o, a: o.modulus(a["z"]), lambda a: np.hypot(a["z"].real, a["z"].imag)),
    "square": ("s", lambda o, a: o.square(a["s"]), lambda a: a["s"] * a["s"]),
    "sqrt": ("r", lambda o, a: o.sqrt(a["r"]), lambda a: a["r"] ** 0.5),
    "log": ("r", lambda o, a: o.log(a["r"]), lambda a: np.log(a["r"])),
    "exp": ("s", lambda o, a: o.exp(a["s"]), lambda a: np.exp(a["s"])),
    "floor": ("", lambda o, a: o.floor(a["s"]), lambda a: np.floor(a["s"])),
    "ceil": ("", lambda o, a: o.ceil(a["s"]), lambda a: np.ceil(a["s"])),
    "atan2": ("s", lambda o, a: o.atan2(a["s"], a["r"]), lambda a: np.arctan(a["s"] / a["r"])),
    "maximum": ("s", lambda o, a: o.maximum(a["s"], 0.25), lambda a: np.where(a["s"] > 0.25, a["s"], 0.25)),
    "where": ("s", lambda o, a: o.where(a["r"] > 1, a["s"], 4.0), lambda a: np.where(a["r"] > 1, a["s"], 4)),
    "times": ("z", lambda o, a: o.times(a["z"], a["w"]), lambda a: a["z"] * a["w"]),
    "sum": ("z", lambda o, a: o.sum(a["z"], -3), lambda a: a["z"][:, 0] + a["z"][:, 1] + a["z"][:, 2]),
    "mean": ("s", lambda o, a: o.mean(a["s"], 1, keepdims=True), lambda a: a["s"].sum(1, keepdims=True) / C),
    "max": ("s", lambda o, a: o.max(a["s"], 0), lambda a: np.where(a["s"][0] > a["s"][1], *a["s"])),
    "min": ("s", lambda o, a: o.min(a["s"], -1), lambda a: np.sort(a["s"], -1)[..., 0]),
    "fft2": ("z", lambda o, a: o.fft2(a["z"]), lambda a: np.fft.fft(np.fft.fft(a["z"], axis=-1), axis=-2)),
    "fftshift": (
        "z", lambda o, a: o.fftshift(a["z"]), lambda a: np.roll(a["z"], (N // 2, N // 2), (-2, -1)),
    ),
    "splat": (
        "patches", lambda o, a: o.splat(a["patches"], a["corners"], a["canvas"], 2, (H, W)),
        lambda a: laid(a["patches"], a["corners"], a["canvas"]),
    ),
    "gather": (
        "canvases", lambda o, a: o.gather(a["canvases"], a["corners"], a["canvas"], N),
        lambda a: cut(a["canvases"], a["corners"], a["canvas"]),
    ),
    "correlate": ("s", lambda o, a: o.correlate(a["s"], TAPS, -2), lambda a: correlated(a["s"], -2)),
    "stop_gradient": ("", lambda o, a: o.stop_gradient(a["z"]), lambda a: a["z"]),
}  # fmt: skip
EXACT = {"floor", "ceil", "real", "imag", "conj", "reshape", "concat", "pad", "max", "min", "masked", "where"}


def given(kind: Any, dtype: str = "float64") -> dict[str, Any]:
    held = in_precision(arrays(), dtype) | {"corners": arrays()["corners"]}
    return {name: kind.asarray(value) for name, value in held.items()}


def value(kind: Any, made: Any) -> np.ndarray:
    """What a table gave, as NumPy; sizes come as a list."""
    if isinstance(made, (list, tuple)):
        return np.array([int(side) for side in made])
    return made if isinstance(made, np.ndarray) else kind.numpy(made)


def test_there_is_a_case_for_every_name():
    assert sorted(CASES) == NAMES


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_value_and_dtype(name, dtype, kind):
    _, call, plain = CASES[name]
    held = given(kind, dtype)
    made = value(kind, call(ops_of(held["z"]), held))
    wanted = np.asarray(plain(in_precision(arrays(), dtype) | {"corners": arrays()["corners"]}))
    assert made.shape == wanted.shape
    if wanted.dtype.kind in "fc":
        kinds = {"f": "float64" if name == "double" else dtype, "c": COMPLEX[dtype]}
        assert made.dtype == kinds[wanted.dtype.kind]
    scale = np.abs(wanted).max()
    fine = 0 if name in EXACT or wanted.dtype.kind == "i" else {"float32": 2e-6, "float64": 1e-14}[dtype]
    np.testing.assert_allclose(made, wanted, rtol=0, atol=fine * scale)


@pytest.mark.parametrize("name", [name for name in NAMES if CASES[name][0]])
def test_gradient_is_the_central_difference(name, kind):
    argument, call, _ = CASES[name]
    rng = np.random.default_rng(1)
    at = arrays()[argument]
    direction = rng.normal(size=at.shape) + (1j * rng.normal(size=at.shape) if np.iscomplexobj(at) else 0)
    size = value(NumPy(), call(numpy_table, given(NumPy()))).shape
    judge = rng.normal(size=(2, *size))

    def weighted(one: Any) -> Any:
        def function(x: Any) -> Any:
            held = given(one) | {argument: x}
            made = call(ops_of(held["z"]), held)
            up, down = (one.asarray(weights) for weights in judge)
            ops = ops_of(made)
            if np.iscomplexobj(one.numpy(made)):
                return ops.sum(ops.real(made) * up) + ops.sum(ops.imag(made) * down)
            return ops.sum(made * up)

        return function

    measured = NumPy().slope(weighted(NumPy()), at, direction)
    assert measured != 0
    assert kind.slope(weighted(kind), at, direction) == pytest.approx(measured, rel=1e-6)


class TestWhereGradientsAreDelicate:
    def test_modulus_has_no_slope_at_zero(self, differentiable):
        at = np.array([0j, 3 + 4j])
        _, gradient = differentiable.gradient(lambda z: ops_of(z).sum(ops_of(z).modulus(z)), at)
        np.testing.assert_allclose(gradient, [0, 0.6 + 0.8j], atol=1e-15)

    def test_maximum_passes_the_gradient_where_both_are_equal(self, differentiable):
        at = np.array([1.0, 2.0, 3.0])
        _, gradient = differentiable.gradient(lambda x: ops_of(x).sum(ops_of(x).maximum(x, 2.0)), at)
        assert gradient.tolist() == [0, 1, 1]

    def test_a_constant_has_no_gradient(self, differentiable):
        at = np.array([1.0, 2.0])

        def function(x: Any) -> Any:
            ops = ops_of(x)
            return ops.sum(x * ops.stop_gradient(x))

        value, gradient = differentiable.gradient(function, at)
        assert value == 5 and gradient.tolist() == [1, 2]


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("n, side, shape", [(1, 32, (65, 91)), (7, 33, (80, 71)), (130, 16, (40, 40))])
def test_splat_and_gather_are_adjoint(dtype, n, side, shape, kind):
    rng = np.random.default_rng(n)
    patches = rng.normal(size=(n, side, side)) + 1j * rng.normal(size=(n, side, side))
    canvases = rng.normal(size=(3, *shape)) + 1j * rng.normal(size=(3, *shape))
    if dtype.startswith("float"):
        patches, canvases = patches.real, canvases.real
    patches, canvases = patches.astype(dtype), canvases.astype(dtype)
    corners = rng.uniform(0, 1, (n, 2)) * np.array([shape[1] - side - 1, shape[0] - side - 1])
    at, on = kind.asarray(corners), kind.asarray(rng.integers(0, 3, n))
    tensors = kind.asarray(patches), kind.asarray(canvases)
    ops = ops_of(at)
    laid_down = kind.numpy(ops.splat(tensors[0], at, on, 3, shape))
    cut_out = kind.numpy(ops.gather(tensors[1], at, on, side))
    fine = 1e-11 if dtype in ("float64", "complex128") else 1e-4
    assert np.vdot(laid_down, canvases) == pytest.approx(np.vdot(patches, cut_out), rel=fine)
    plain = numpy_table.splat(patches, corners, np.asarray(kind.numpy(on)), 3, shape)
    np.testing.assert_allclose(laid_down, plain, atol=fine * np.abs(plain).max())


def test_splat_gives_the_same_bits_every_time(kind):
    rng = np.random.default_rng(0)
    patches = kind.asarray((rng.normal(size=(300, 32, 32)) + 1j).astype(np.complex64))
    corners, one = kind.asarray(rng.uniform(0, 40, (300, 2))), kind.asarray(np.zeros(300, np.int64))
    ops = ops_of(patches)
    first, *again = (kind.numpy(ops.splat(patches, corners, one, 1, (80, 80))) for _ in range(4))
    assert all(np.array_equal(first, other) for other in again)


class TestChoice:
    def test_an_array_brings_its_table(self, kind):
        table = ops_of(kind.asarray(np.zeros(2)))
        package = {"numpy": "numpy", "pytorch": "torch", "tensorflow": "tf"}[kind.name]
        assert table.__name__ == f"ptycho.ops.{package}"

    def test_parameters_and_variables_are_arrays(self, tf):
        import torch

        assert ops_of(torch.nn.Parameter(torch.zeros(2))).__name__ == "ptycho.ops.torch"
        assert ops_of(tf.Variable([1.0])).__name__ == "ptycho.ops.tf"
        found = []
        tf.function(lambda x: found.append(ops_of(x).__name__))(tf.zeros([2]))
        assert found == ["ptycho.ops.tf"]

    @pytest.mark.parametrize("wrong", [3.0, [1.0], None, "text"])
    def test_anything_else_is_refused_by_name(self, wrong):
        with pytest.raises(TypeError, match=f"{type(wrong).__name__}: no array of NumPy, PyTorch or Tensor"):
            ops_of(wrong)

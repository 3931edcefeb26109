"""`specs/tensor_correspondence.md` is read and held to the running code: every row on both backends."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from both_backends import SIDES, settings

from ptycho import physics as oracle
from ptycho.clients.trained_model import TrainedModel
from ptycho.forward import diffraction, merging
from ptycho.forward.seen import illumination
from ptycho.run.preparation import ensure_container, plan_training

pytestmark = pytest.mark.tf
PAGE = Path(__file__).resolve().parents[2] / "specs" / "tensor_correspondence.md"
COLUMNS = ("tensor", "PyTorch", "TensorFlow", "shape", "dtype", "layout", "unit and sign")
N, C, P, B = 32, 4, 2, 5
#: out, in, row, column to row, column, in, out
KERNEL_OF_TENSORFLOW = (2, 3, 1, 0)


def table() -> dict[str, dict[str, str]]:
    """The rows of every table of the page by the name of the tensor."""
    rows: dict[str, dict[str, str]] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and cells[0] != "tensor":
            assert len(cells) == len(COLUMNS), line
            assert cells[0] not in rows, f"{cells[0]} stands twice"
            rows[cells[0]] = dict(zip(COLUMNS, cells, strict=True))
    return rows


ROWS = table()


def as_array(value: Any) -> np.ndarray:
    value = getattr(value, "detach", lambda: value)()
    return value.numpy() if hasattr(value, "numpy") else np.asarray(value)


Values = dict[str, dict[str, Any]]
_VALUES = pytest.StashKey[Values]()


@pytest.fixture
def values(request, make_scan, tf) -> Values:
    """Every tensor of the page by backend and name, from one batch of groups of four with two probe modes.

    Under "about" what they were made of; computed once.
    """
    if _VALUES not in request.config.stash:
        one, bad = make_scan().probeGuess, np.zeros((N, N), bool)
        bad[2, 3:6] = True
        modes = np.stack([one, 0.5 * np.roll(one, 3, 0)])
        raw = make_scan(n_positions=20, probeGuess=modes, bad_pixels=bad)
        # an object would give the image its own canvas
        bare = make_scan(n_positions=20, probeGuess=modes, bad_pixels=bad, objectGuess=None)
        request.config.stash[_VALUES] = evaluated(raw, bare, tf)
    return request.config.stash[_VALUES]


def evaluated(raw: Any, bare: Any, tf: Any) -> Values:
    """The expressions of the page on both sides."""
    config = settings(raw, gridsize=2, realspace_mae_weight=0.1)
    container = ensure_container(raw, config)
    scale = plan_training(container, None, config).label_scales[0]
    found: Values = {"about": {"raw": raw, "label_scale": scale, "groups": container.nn_indices}}
    for column, name in (("PyTorch", "pytorch"), ("TensorFlow", "tensorflow")):
        side = SIDES[name]()
        model, container = side.model(raw, config)
        rng = np.random.default_rng(1)
        start = side.weights(model)
        weights = {n: w + 0.02 * rng.standard_normal(w.shape).astype("f4") for n, w in start.items()}
        side.load(model, weights)
        found["about"]["weights"] = weights
        known = {
            "tf": tf, "model": model, "container": container, "N": N, "merging": merging,
            "illumination": illumination, "diffraction": diffraction,
            "batch": side.batch(container, np.arange(B), False, label_scale=scale),
            "trained": TrainedModel(model),
            "neutral_weights": side.rooms.layers.neutral_weights,
            "image": side.infer(model, bare, M=16),
        }  # fmt: skip
        found[column] = {}
        for row in ROWS.values():
            made = eval(row[column].strip("`"), known)
            if row["tensor"].isidentifier():
                known[row["tensor"]] = made
            found[column][row["tensor"]] = as_array(made)
    return found


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("column", ["PyTorch", "TensorFlow"])
def test_shape_and_dtype_are_those_of_the_page(name, column, values):
    row, value = ROWS[name], values[column][name]
    turned = name == "kernel" and column == "TensorFlow"
    if turned:
        value = value.transpose(3, 2, 0, 1)
    letters = re.findall(r"\w+", row["shape"])
    assert value.ndim == len(letters), row["shape"]
    canvas = values["PyTorch"]["canvas"].shape[-1]
    image = values["PyTorch"]["object"].shape
    sides = {
        "B": B, "C": C, "D": C, "G": 20, "N": N, "P": P, "S": canvas, "H": image[0], "W": image[1],
        "I": 2 * C + 1, "O": 24, "R": 4,
    }  # fmt: skip
    assert value.shape == tuple(int(letter) if letter.isdigit() else sides[letter] for letter in letters)
    dtype = {"float": "float64"}.get(row["dtype"], row["dtype"])
    assert value.dtype in ((np.dtype(dtype), np.int64) if row["dtype"] == "float" else (np.dtype(dtype),))


@pytest.mark.parametrize("name", ROWS)
def test_both_backends_hold_the_same(name, values):
    ours, theirs = (values[column][name] for column in ("PyTorch", "TensorFlow"))
    if name == "kernel":
        assert "TensorFlow row, column, in, out" in ROWS[name]["layout"]
        ours = ours.transpose(*KERNEL_OF_TENSORFLOW)
    exact = ours.dtype == bool or not np.issubdtype(ours.dtype, np.inexact)
    largest = np.abs(ours).max()
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=0 if exact else 1e-5 * largest)


def positions(about: dict[str, Any], members: np.ndarray) -> np.ndarray:
    return about["raw"].positions_px[members]


def extracted(about: dict[str, Any], where: np.ndarray) -> np.ndarray:
    flat = where.reshape(-1, 2)
    return oracle.extract(about["raw"].objectGuess, *flat.T, N).reshape(*where.shape[:-1], N, N)


def views_by_oracle(v: dict[str, np.ndarray]) -> np.ndarray:
    pairs = zip(v["patches"], v["relative"], strict=True)
    return np.stack(
        [oracle.extract_group(oracle.merge(p, r, oracle.central_window(N)), r, N) for p, r in pairs]
    )


def correlated(v: dict[str, np.ndarray]) -> np.ndarray:
    """The stem by hand: patches of 4 x 4 times the neutral kernel, not flipped."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, v["neutral kernel"].shape[1], 8, 8)).astype("f4")
    blocks = x.reshape(1, -1, 2, 4, 2, 4).transpose(0, 2, 4, 1, 3, 5)
    return x, np.einsum("brcikl,oikl->borc", blocks, v["neutral kernel"])


#: what the last column says, computed another way: name -> (values, about) -> what the tensor must be
MEANINGS = {
    "x": lambda v, a: a["raw"].amplitude()[a["members"]] * v["x_scale"],
    "positions_xy": lambda v, a: positions(a, a["members"]),
    "counted": lambda v, a: np.ones((B, C), bool),
    "region": lambda v, a: np.False_,
    "labels": lambda v, a: a["label_scale"] * extracted(a, positions(a, a["members"])),
    "X": lambda v, a: np.moveaxis(a["raw"].amplitude()[a["every"]] * v["x_scale"], 1, -1),
    "global_offsets": lambda v, a: positions(a, a["every"]).mean(1)[:, None, :, None],
    "local_offsets": lambda v, a: v["global_offsets"] - np.moveaxis(positions(a, a["every"]), 1, -1)[:, None],
    "x_scale": lambda v, a: np.sqrt(
        (N / 2) ** 2 / np.mean(np.sum(a["raw"].amplitude().astype(float) ** 2 * ~a["raw"].bad_pixels, (1, 2)))
    ),
    "intensity_scale": lambda v, a: 1 / v["x_scale"],
    "bad_pixels": lambda v, a: a["raw"].bad_pixels,
    "kernel": lambda v, a: a["weights"]["stem.weight"],
    "bias": lambda v, a: a["weights"]["stem.bias"],
    "norm weight": lambda v, a: a["weights"]["fine.0.norm.weight"],
    "neutral kernel": lambda v, a: a["weights"]["stem.weight"],
    "probe variable": lambda v, a: np.stack([v["complex probe"].real, v["complex probe"].imag], -1),
    "complex probe": lambda v, a: (
        a["raw"].probeGuess * (N / 2) * (4.0 / 2) / np.sqrt(np.sum(np.abs(a["raw"].probeGuess) ** 2))
    ),
    "log_scale": lambda v, a: np.zeros(()),
    "amplitude": lambda v, a: np.abs(v["patches"]),
    "phase": lambda v, a: np.clip(np.angle(v["patches"]), -np.pi, np.pi),
    "patches": lambda v, a: v["amplitude"] * np.exp(1j * v["phase"]),
    "relative": lambda v, a: -np.moveaxis(v["local_offsets"][:B, 0], 1, 2),
    "window": lambda v, a: oracle.central_window(N),
    "canvas": lambda v, a: np.stack(
        [
            oracle.pad_centre(oracle.merge(p, r, oracle.central_window(N)), v["canvas"].shape[-1])
            for p, r in zip(v["patches"], v["relative"], strict=True)
        ]
    ),
    "views": lambda v, a: views_by_oracle(v),
    "intensity": lambda v, a: oracle.diffract(v["views"], v["complex probe"]),
    "expected counts": lambda v, a: v["intensity_scale"] ** 2 * v["intensity"] + 1e-6,
    "loss": lambda v, a: loss_by_oracle(v, a),
    "predict's answer": lambda v, a: np.concatenate(
        [np.moveaxis(v["patches"], 1, -1), v["predict's answer"][B:]]
    ),
    "object": lambda v, a: np.where(v["coverage"] > 0, v["object"], 0),
    "coverage": lambda v, a: v["coverage"] / np.median(v["coverage"][v["coverage"] > 0]),
    "origin_xy": lambda v, a: np.floor(a["raw"].positions_px.min(0)) - 16 // 2,
}


def loss_by_oracle(v: dict[str, np.ndarray], about: dict[str, Any]) -> float:
    bad = about["raw"].bad_pixels
    counts = (v["intensity_scale"] * v["x"].astype(float)) ** 2
    nll = oracle.poisson_nll(v["expected counts"], counts, bad) - oracle.poisson_nll_floor(counts, bad)
    light = np.sum(np.abs(v["complex probe"]) ** 2, 0)
    error = np.abs(v["patches"] - v["labels"]) * light
    return nll + 0.1 * error.sum() / np.broadcast_to(light, error.shape).sum()


def test_every_row_has_a_meaning_that_is_checked():
    assert sorted(MEANINGS) == sorted(ROWS)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("column", ["PyTorch", "TensorFlow"])
def test_sign_and_unit_are_those_of_the_page(name, column, values):
    found, about = dict(values[column]), dict(values["about"])
    if column == "TensorFlow":
        found["kernel"] = found["kernel"].transpose(3, 2, 0, 1)
    about |= {"every": about["groups"], "members": about["groups"][:B]}
    wanted = MEANINGS[name](found, about)
    largest = max(np.abs(wanted).max(), 1e-12)
    coarse = {"x_scale": 1e-4, "intensity_scale": 1e-3, "origin_xy": 1 / largest, "loss": 1e-4}
    np.testing.assert_allclose(found[name], wanted, rtol=0, atol=coarse.get(name, 2e-5) * largest)


@pytest.mark.parametrize("name", SIDES)
def test_a_convolution_is_a_cross_correlation_of_the_neutral_kernel(name, values, tf):
    """The kernel is not flipped, on either side, whatever the order it is stored in."""
    x, wanted = correlated(values["PyTorch"])
    if name == "pytorch":
        import torch

        kernel = torch.from_numpy(values["PyTorch"]["kernel"].copy())
        found = torch.nn.functional.conv2d(torch.from_numpy(x), kernel, stride=4).numpy()
    else:
        made = tf.nn.conv2d(x.transpose(0, 2, 3, 1), values["TensorFlow"]["kernel"], 4, "VALID")
        found = made.numpy().transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "pytorch",
        "tensorflow",
    ],
)
def test_with_offsets_predict_merges_each_group_to_one_patch(name, make_scan, tf):
    raw = make_scan(n_positions=9)
    side = SIDES[name]()
    model, container = side.model(raw, settings(raw, gridsize=2))
    client = TrainedModel(model)
    answer = client.predict([container.X * client.intensity_scale, container.local_offsets])
    assert answer.shape == (9, N, N, 1)

"""One table of cases: PyTorch, TensorFlow and the NumPy oracle give the same operators, answers, losses and
gradients.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch

from ptycho import physics as oracle
from ptycho.forward import diffraction, losses, merging, region
from ptycho.image.stitcher import stitch
from ptycho.networks.graphs import NetworkSpec

pytestmark = pytest.mark.tf


@dataclasses.dataclass(frozen=True)
class Case:
    """One row: a network, a probe, a term of the objective and what its patches are merged with."""

    architecture: str
    N: int
    gridsize: int
    amp_activation: str
    object_big: bool
    probe_big: bool
    pad_object: bool
    modes: int
    term: str
    context: str

    @property
    def spec(self) -> NetworkSpec:
        return NetworkSpec(
            N=self.N,
            channels=self.gridsize**2,
            n_filters_scale=1,
            amp_activation=self.amp_activation,
            object_big=self.object_big,
            probe_big=self.probe_big,
            pad_object=self.pad_object,
        )

    def __str__(self) -> str:
        flags = [name for name in ("object_big", "probe_big", "pad_object") if getattr(self, name)]
        words = (self.architecture, f"N{self.N}", f"gs{self.gridsize}", self.amp_activation, *flags)
        return "-".join((*words, f"{self.modes}modes", self.term, self.context))


# every pair of values of every two columns stands in some row
CASES = [
    Case("cnn", 64, 3, "swish", False, True, True, 3, "poisson", "region"),
    Case("cnn", 96, 1, "swish", True, False, True, 1, "mae", "group"),
    Case("cnn", 96, 3, "relu", False, False, False, 3, "mae", "region"),
    Case("cnn", 128, 1, "relu", True, True, False, 1, "mae", "region"),
    Case("cnn", 128, 1, "sigmoid", False, True, True, 3, "mae", "group"),
    Case("cnn", 128, 2, "softplus", True, True, True, 3, "mae", "group"),
    Case("cnn", 128, 3, "softplus", True, False, True, 1, "poisson", "group"),
    Case("swift", 64, 1, "sigmoid", False, False, False, 1, "poisson", "group"),
    Case("swift", 64, 1, "softplus", True, True, False, 3, "mae", "region"),
    Case("swift", 64, 2, "relu", True, False, True, 1, "poisson", "group"),
    Case("swift", 64, 2, "sigmoid", True, False, True, 3, "mae", "group"),
    Case("swift", 96, 2, "softplus", False, False, True, 3, "mae", "group"),
    Case("swift", 96, 3, "sigmoid", True, True, True, 1, "poisson", "region"),
    Case("swift", 128, 2, "swish", False, True, False, 3, "poisson", "region"),
]

#: largest error allowed, relative to the largest magnitude of the tensor
TOLERANCES = {
    "float32": {"operator": 1e-5, "forward": 1e-5, "gradient": 1e-4, "loss": 1e-6},
    "float64": {"operator": 1e-9, "forward": 1e-9, "gradient": 1e-9, "loss": 1e-9},
}
#: and of one backend in float64, whose weights are moved by what float32 rounds
TOLERANCES_MOVED = {"forward": 1e-4, "gradient": 1e-4, "loss": 1e-4}

#: gradients of the phase's own offset: a global phase is free, so the terms of these sums cancel and what is
#: left has no digits of its own; they are measured against the gradient of the same node's weights
FREE_OFFSETS = {"gradient/phase.bias", "gradient/phase.centre.bias"}

the_table = pytest.mark.parametrize("case", CASES, ids=str)
both_precisions = pytest.mark.parametrize("dtype", list(TOLERANCES))


def complex_of(dtype: str) -> str:
    return {"float32": "complex64", "float64": "complex128"}[dtype]


def disagreements(
    one: dict[str, np.ndarray], other: dict[str, np.ndarray], dtype: str
) -> list[tuple[str, float]]:
    """What differs by more than its tolerance; the kind of a tensor is the first word of its name."""
    assert one.keys() == other.keys()
    found = []
    for name, value in one.items():
        mine, wanted = np.asarray(value, complex), np.asarray(other[name], complex)
        assert mine.shape == wanted.shape, name
        scale = np.abs(wanted).max()
        if name in FREE_OFFSETS:
            scale = max(scale, np.abs(other[name.removesuffix("bias") + "weight"]).max())
        error = np.abs(mine - wanted).max() / max(scale, 1e-30)
        if not error <= (TOLERANCES.get(dtype) or TOLERANCES_MOVED)[name.split("/")[0]]:
            found.append((name, float(error)))
    return found


# ---------------------------------------------------------------------------------- three ways to compute


def merged(case: Case, patches: Any, where: Any, places: Any, probe_power: Any) -> Any:
    """Views of the group or of the region, by either backend."""
    if case.context == "region":
        return region.region_views(patches, places, where, probe_power)
    return merging.group_views(patches, where, "central", probe_power)


def oracle_views(case: Case, scan: Any) -> np.ndarray:
    """The same views from the oracle's merge: a region is one large group around a whole pixel."""
    N, C = case.N, case.gridsize**2
    if case.context == "region":
        power = np.sum(np.abs(scan.probe) ** 2, 0)
        centre = np.round(scan.positions_xy.mean((0, 1)))
        flat = scan.patches.reshape(-1, N, N)
        canvas = oracle.merge(flat, scan.places_xy.reshape(-1, 2) - centre, power / power.max())
        # room for patterns that look beyond every patch
        canvas = oracle.pad_centre(canvas, canvas.shape[-1] + 20)
        views = oracle.extract_group(canvas, scan.positions_xy.reshape(-1, 2) - centre, N)
        return views.reshape(*scan.positions_xy.shape[:2], N, N)
    relative = scan.positions_xy - scan.positions_xy.mean(1, keepdims=True)
    if C == 1:
        return scan.patches
    views = []
    for patches, r in zip(scan.patches, relative, strict=True):
        if case.object_big:
            canvas = oracle.merge(patches, r, oracle.central_window(N))
        else:
            canvas = oracle.pad_centre(patches[0], oracle.canvas_side(N, r))
        views.append(oracle.extract_group(canvas, r, N))
    return np.stack(views)


def oracle_operators(case: Case, scan: Any) -> dict[str, np.ndarray]:
    views = oracle_views(case, scan)
    intensity = oracle.diffract(views, scan.probe)
    expected = oracle.rate(intensity, scan.intensity_scale)
    counts, bad = (scan.intensity_scale * scan.x) ** 2, ~scan.counted
    floor = oracle.poisson_nll_floor(counts, bad)
    return {
        "operator/views": views,
        "operator/intensity": intensity,
        "operator/rate": expected,
        "loss/nll": np.array(oracle.poisson_nll(expected, counts, bad)),
        "loss/deviance": np.array(oracle.poisson_nll(expected, counts, bad) - floor),
        "loss/mae": np.array(oracle.amplitude_mae(intensity, scan.x, bad)),
    }


def operators(case: Case, scan: Any, asarray: Any, dtype: str) -> dict[str, Any]:
    """Everything after the network, from the same patches, by either backend."""
    real, whole = dtype, complex_of(dtype)
    probe = asarray(scan.probe.astype(whole))
    power = asarray(np.sum(np.abs(scan.probe) ** 2, 0).astype(real))
    patches, x = asarray(scan.patches.astype(whole)), asarray(scan.x.astype(real))
    where, places = asarray(scan.positions_xy), asarray(scan.places_xy)
    views = merged(case, patches, where, places, power)
    intensity = diffraction.diffract(views, probe)
    expected = diffraction.rate(intensity, scan.intensity_scale)
    counts = (scan.intensity_scale * x) ** 2
    counted = asarray(scan.counted)
    return {
        "operator/views": views,
        "operator/intensity": intensity,
        "operator/rate": expected,
        "loss/nll": losses.poisson_nll(expected, counts, counted),
        "loss/deviance": losses.poisson_deviance(expected, counts, counted),
        "loss/mae": losses.amplitude_mae(diffraction.amplitude(intensity), x, counted),
    }


def objective(case: Case, scan: Any, asarray: Any, dtype: str, patches: Any, probe: Any, scale: Any):
    """The loss of a training step as the modules compose it."""
    power = asarray(np.sum(np.abs(scan.probe) ** 2, 0).astype(dtype))
    where, places = asarray(scan.positions_xy), asarray(scan.places_xy)
    views = merged(case, patches, where, places, power)
    intensity = diffraction.diffract(views, probe)
    x, counted = asarray(scan.x.astype(dtype)), asarray(scan.counted)
    if case.term == "mae":
        return losses.amplitude_mae(scale * diffraction.amplitude(intensity), x, counted)
    expected = diffraction.rate(intensity, scan.intensity_scale * scale)
    return losses.poisson_deviance(expected, (scan.intensity_scale * x) ** 2, counted)


def numpy_of(made: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in made.items()}


# -------------------------------------------------------------------------------------------------- the tests


def test_the_table_covers_every_pair_of_options():
    names = [field.name for field in dataclasses.fields(Case)]
    for one, other in itertools.combinations(names, 2):
        values = [{getattr(case, name) for case in CASES} for name in (one, other)]
        seen = {(getattr(case, one), getattr(case, other)) for case in CASES}
        assert seen == set(itertools.product(*values)), (one, other)
    assert {case.N for case in CASES} == {64, 96, 128} and {case.gridsize for case in CASES} == {1, 2, 3}
    assert {case.amp_activation for case in CASES} == {"sigmoid", "swish", "softplus", "relu"}


@the_table
@both_precisions
def test_operators_and_losses_equal_torch_and_the_oracle(case, dtype, tf, ours, theirs, make_scan_batch):
    scan = make_scan_batch(case.spec, case.modes)
    mine = numpy_of(operators(case, scan, tf.constant, dtype))
    torchs = numpy_of(operators(case, scan, torch.tensor, dtype))
    truth = oracle_operators(case, scan)
    assert disagreements(mine, torchs, dtype) == []
    # the oracle keeps no epsilon under the root and 1e-6 counts in its floor
    for name, allowed in (("loss/deviance", 1e-5), ("loss/mae", 1e-5)):
        for made in (mine, torchs):
            assert float(made.pop(name)) == pytest.approx(float(truth[name]), rel=allowed)
        truth.pop(name)
    assert disagreements(mine, truth, dtype) == []
    assert disagreements(torchs, truth, dtype) == []


def torch_answers(case: Case, scan: Any, theirs: Any, weights: dict[str, np.ndarray], dtype: str):
    """Answer, loss and every gradient of a training step in PyTorch, by name."""
    network = theirs.layers.build_network(case.architecture, case.spec, seed=3)
    network.to(getattr(torch, dtype))
    theirs.layers.load_neutral_weights(network, {k: torch.from_numpy(v) for k, v in weights.items()})
    x, probe = torch.from_numpy(scan.x.astype(dtype)), torch.from_numpy(scan.probe.astype(complex_of(dtype)))
    log_scale = torch.zeros((), dtype=x.dtype, requires_grad=True)
    modulus, phase = network(x, probe)
    probe.requires_grad_()
    patches = torch.complex(modulus * torch.cos(phase), modulus * torch.sin(phase))
    loss = objective(case, scan, torch.tensor, dtype, patches, probe, torch.exp(log_scale))
    loss.backward()
    made = {"forward/modulus": modulus.detach().numpy(), "forward/phase": phase.detach().numpy()}
    made |= {"loss/total": loss.detach().numpy(), "gradient/probe": probe.grad.numpy()}
    made |= {"gradient/log_scale": log_scale.grad.numpy()}
    for name, value in network.named_parameters():
        made[f"gradient/{name.removeprefix('weights.').replace('/', '.')}"] = value.grad.numpy()
    return made


def weights_away_from_kinks(case: Case, scan: Any, theirs: Any, some_weights: Any) -> dict[str, np.ndarray]:
    """Weights at which the gradient is continuous: no rectifier and no largest value of a pool is undecided.

    Where the last digit of float32 decides one, processors and libraries differ rightly. Judged in float64,
    by weights that are moved by some times what float32 rounds.
    """
    start = theirs.layers.neutral_weights(theirs.layers.build_network(case.architecture, case.spec, seed=3))
    for seed in range(20):
        weights = some_weights(start, seed)
        answers = torch_answers(case, scan, theirs, weights, "float64")
        for trial in range(1, 4):
            rng = np.random.default_rng([seed, trial])
            moved = {k: v * (1 + 1e-6 * rng.normal(size=np.shape(v))) for k, v in weights.items()}
            if disagreements(torch_answers(case, scan, theirs, moved, "float64"), answers, "float32 moved"):
                break
        else:
            return weights
    raise AssertionError("every one of twenty networks is undecided somewhere")


@the_table
@both_precisions
def test_answer_loss_and_every_gradient_equal_those_of_torch(
    case, dtype, tf, ours, theirs, make_scan_batch, some_weights
):
    scan = make_scan_batch(case.spec, case.modes)
    whole = complex_of(dtype)
    weights = weights_away_from_kinks(case, scan, theirs, some_weights)
    expected = torch_answers(case, scan, theirs, weights, dtype)

    x, probe = tf.constant(scan.x.astype(dtype)), tf.constant(scan.probe.astype(whole))
    network = ours.layers.build_network(case.architecture, case.spec, seed=3, dtype=dtype)
    ours.layers.load_neutral_weights(network, weights)
    log_scale = tf.zeros([], dtype)
    with tf.GradientTape() as tape:
        tape.watch([probe, log_scale])
        modulus, phase = network(x, tf.stop_gradient(probe))
        patches = tf.complex(modulus * tf.cos(phase), modulus * tf.sin(phase))
        loss = objective(case, scan, tf.constant, dtype, patches, probe, tf.exp(log_scale))
    found = tape.gradient(loss, {"probe": probe, "log_scale": log_scale, **network.neutral})
    made = {"forward/modulus": modulus.numpy(), "forward/phase": phase.numpy(), "loss/total": loss.numpy()}
    for name, value in found.items():
        kernel = value.numpy()
        made[f"gradient/{name}"] = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel
    assert disagreements(made, expected, dtype) == []


@pytest.mark.parametrize("canvas_shape, M", [(None, 20), ((150, 140), 32), ((90, 100), 17)])
def test_stitched_images_are_equal(canvas_shape, M, tf):
    rng = np.random.default_rng(4)
    patches = (rng.normal(size=(70, 32, 32)) + 1j * rng.normal(size=(70, 32, 32))).astype(np.complex64)
    positions, weights = rng.uniform(20, 110, (70, 2)), rng.uniform(0.1, 1, (M, M)).astype(np.float32)
    mine = stitch(tf.constant(patches), positions, weights, canvas_shape=canvas_shape, chunk=16)
    wanted = stitch(torch.from_numpy(patches), positions, weights, canvas_shape=canvas_shape, chunk=16)
    assert mine.frame == wanted.frame
    assert np.abs(mine.object - wanted.object).max() < 1e-5 * np.abs(wanted.object).max()
    np.testing.assert_allclose(mine.coverage, wanted.coverage, atol=1e-5 * wanted.coverage.max())
    assert mine.object.dtype == np.complex64 and mine.coverage.dtype == np.float32

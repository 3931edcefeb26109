"""Both backends side by side, and the cases that they are compared on."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from array_kinds import KINDS, Kind
from both_backends import SIDES, PyTorch, TensorFlow, settings

from ptycho import physics as oracle
from ptycho.networks.graphs import NetworkSpec

ROOMS = ("layers",)


@pytest.fixture(scope="session")
def tf():
    """TensorFlow; skips where the extra is not installed, fails in CI, where it must be."""
    try:
        return importlib.import_module("tensorflow")
    except ImportError:
        message = "TensorFlow is missing: pip install ptychopinn[tf]"
        if os.environ.get("CI", "").lower() in ("true", "1"):
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="session")
def ours(tf) -> SimpleNamespace:
    """The rooms of the TensorFlow backend by name."""
    return SimpleNamespace(**{name: importlib.import_module(f"ptycho.tf.{name}") for name in ROOMS})


@pytest.fixture(scope="session")
def theirs() -> SimpleNamespace:
    """The rooms of the PyTorch backend by name."""
    return SimpleNamespace(**{name: importlib.import_module(f"ptycho_torch.{name}") for name in ROOMS})


@pytest.fixture(scope="session", params=["pytorch", pytest.param("tensorflow", marks=pytest.mark.tf)])
def side(request) -> PyTorch | TensorFlow:
    """Each backend in turn, behind the one door of `both_backends`."""
    if request.param == "tensorflow":
        request.getfixturevalue("tf")
    return SIDES[request.param]()


@pytest.fixture(
    scope="session", params=["numpy", "pytorch", pytest.param("tensorflow", marks=pytest.mark.tf)]
)
def kind(request) -> Kind:
    """Each kind of array in turn, behind the one door of `array_kinds`."""
    if request.param == "tensorflow":
        request.getfixturevalue("tf")
    return KINDS[request.param]()


@pytest.fixture(scope="session", params=["pytorch", pytest.param("tensorflow", marks=pytest.mark.tf)])
def differentiable(request) -> Kind:
    """The kinds that have gradients of their own."""
    if request.param == "tensorflow":
        request.getfixturevalue("tf")
    return KINDS[request.param]()


@pytest.fixture
def once(request, side):
    """Trains a run a backend once and keeps it: (name, function that trains) -> what the function gave."""
    cache = request.config.stash.setdefault(_RUNS, {})

    def run(name: str, train: Callable[[], Any]) -> Any:
        if (side.name, name) not in cache:
            cache[side.name, name] = train()
        return cache[side.name, name]

    return run


_RUNS = pytest.StashKey[dict[tuple[str, str], Any]]()


@pytest.fixture
def trained(once, side, make_scan):
    """A scan, its configuration, and what three epochs left of it; probe and scale trained."""
    raw = make_scan(n_positions=16)
    config = settings(raw, gridsize=2, nepochs=3, probe_trainable=True, scheduler="Exponential", lr_gamma=0.5)
    return raw, config, once("trained", lambda: side.train(raw, config))


@pytest.fixture
def fixed(once, side, make_scan):
    """The same of a run that may move neither probe nor scale, from a guess a thousand times too strong."""
    strong = 1000 * make_scan(n_positions=16).probeGuess
    raw = make_scan(n_positions=16, probeGuess=strong)
    config = settings(raw, nepochs=3, intensity_scale_trainable=False, scheduler="WarmupCosine")
    return raw, config, once("fixed", lambda: side.train(raw, config))


@dataclass(frozen=True)
class Scan:
    """One small batch in float64: what a training step sees."""

    x: np.ndarray
    """(B, C, N, N) measured amplitude in the network's gauge."""
    probe: np.ndarray
    """(P, N, N) complex."""
    patches: np.ndarray
    """(B, C_out, N, N) complex, smooth, of order one."""
    positions_xy: np.ndarray
    """(B, C, 2) sub-pixel."""
    places_xy: np.ndarray
    """(B, C_out, 2) where each patch lies: at its pattern, or at the group's mean."""
    counted: np.ndarray
    """(N, N) False for bad pixels."""
    intensity_scale: float


@pytest.fixture(scope="session")
def make_scan_batch():
    """Builds a `Scan`: spec, number of probe modes and of groups, seed."""

    def build(spec: NetworkSpec, modes: int = 1, B: int = 2, seed: int = 0, reach: float = 4.3) -> Scan:
        rng = np.random.default_rng(seed)
        N, C = spec.N, spec.channels
        axis = np.arange(N) - N // 2
        envelope = np.exp(-(axis[:, None] ** 2 + axis**2) / (N / 6) ** 2)
        probe = (rng.normal(size=(modes, N, N)) + 1j * rng.normal(size=(modes, N, N))) * envelope
        probe *= N / np.sqrt(np.sum(np.abs(probe) ** 2))
        positions = rng.uniform(60, 72, (B, 1, 2)) + rng.uniform(-reach, reach, (B, C, 2))
        places = positions if spec.object_big else positions.mean(1, keepdims=True)
        modulus = 0.5 + 0.2 * np.sin(axis / 7 + rng.uniform(0, 6, (B, places.shape[1], N, 1)))
        phase = np.cos(axis / 5 + rng.uniform(0, 6, (B, places.shape[1], 1, N)))
        nphotons = 1e5
        scale = 2 * np.sqrt(nphotons) / N
        true = 0.5 + 0.1 * rng.normal(size=(B, C, N, N))
        counts = rng.poisson(scale**2 * oracle.diffract(true, probe)).astype(float)
        counted = rng.random((N, N)) > 0.02
        return Scan(
            np.sqrt(counts) / scale, probe, modulus * np.exp(1j * phase), positions, places, counted, scale
        )

    return build


#: the last biases of the amplitude; raised, so that no activation is dead and the patches are objects
AMPLITUDE_OFFSETS = {"amplitude.bias", "amplitude.centre.bias", "amplitude.border.out.bias"}


@pytest.fixture(scope="session")
def some_weights():
    """Builds weights of a network from its starting ones: nothing is zero, so that every gradient is felt."""

    def build(weights, seed: int = 0) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        return {
            name: np.asarray(value) + 0.03 * rng.normal(size=value.shape) + 0.3 * (name in AMPLITUDE_OFFSETS)
            for name, value in weights.items()
        }

    return build

"""The declared objectives of training, minimised by the engine's Adam: values, gauge, descent, errors."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from test_refine_engine import guess_of, make_problem

from ptycho.cli.main import main
from ptycho.errors import ConfigError
from ptycho.forward import losses, penalties
from ptycho.simulation.scenario import Scenario, simulate
from ptycho_torch.refine import make_rule, make_scan, reconstruct, start_state
from ptycho_torch.refine.forward import predict
from ptycho_torch.refine.objectives import ObjectiveInput, named_objective

READ_NOISE, EPSILON = 2.0, 0.05
DATA = ["poisson_nll", "gaussian_poisson", "amplitude_mae", "amplitude_charbonnier"]
OBJECT = ["total_variation", "smoothness"]


def case(dtype=torch.complex128):
    """A small scan with dead pixels, and a state that does not yet explain it."""
    counts, positions, probe, truth, _ = make_problem(side=3, photons=1e4)
    bad = np.random.default_rng(1).random(probe.shape[-2:]) < 0.1
    scan = make_scan(counts, positions, guess_of(probe), unit="counts", bad_pixels=bad, dtype=dtype)
    rng = np.random.default_rng(2)
    start = 1 + 0.1 * (rng.normal(size=truth.shape) + 1j * rng.normal(size=truth.shape))
    return scan, start_state(scan, initial_object=start)


def seen_of(scan, state):
    index = torch.arange(scan.size)
    return ObjectiveInput(scan, predict(scan, state, index).intensity, index, state.object)


def by_losses(name, scan, state):
    """The term by losses.py and penalties.py, in the gauge of x that training has."""
    model = predict(scan, state, torch.arange(scan.size)).intensity + scan.floor
    counts, good = scan.counts + scan.floor, scan.good
    gauge = scan.n / 2 / scan.mean_counts**0.5
    predicted, x = gauge * model.sqrt(), gauge * counts.sqrt()
    return {
        "poisson_nll": lambda: losses.poisson_deviance(model, counts, good),
        "gaussian_poisson": lambda: losses.shifted_poisson(model, counts, good, READ_NOISE**2),
        "amplitude_mae": lambda: losses.amplitude_mae(predicted, x, good),
        "amplitude_charbonnier": lambda: losses.amplitude_charbonnier(predicted, x, good, EPSILON),
        "total_variation": lambda: losses.total_variation(state.object),
        "smoothness": lambda: penalties.smoothness(state.object),
    }[name]()


def entry(name, weight=1.0):
    settings = {
        "gaussian_poisson": {"read_noise_counts": READ_NOISE},
        "amplitude_charbonnier": {"epsilon": EPSILON},
    }
    return {"name": name, "weight": weight, "config": settings.get(name, {})}


@pytest.mark.parametrize("name", DATA)
def test_a_data_term_has_the_value_of_losses(name):
    scan, state = case()
    got = named_objective([entry(name)])(seen_of(scan, state))
    assert float(got) == pytest.approx(float(by_losses(name, scan, state)), rel=1e-12)


@pytest.mark.parametrize("name", OBJECT)
def test_an_object_term_is_added_with_its_weight(name):
    scan, state = case()
    got = named_objective(["amplitude_mae", entry(name, 0.3)])(seen_of(scan, state))
    expected = by_losses("amplitude_mae", scan, state) + 0.3 * by_losses(name, scan, state)
    assert float(got) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("name", DATA)
def test_ten_sweeps_of_adam_lower_a_data_term(name):
    scan, state = case(torch.complex64)
    before = by_losses(name, scan, state)
    result = reconstruct(
        scan, rule="adam", epochs=10, rule_options={"objective": [entry(name)]}, initial_object=None
    )
    state.object, state.probe = torch.from_numpy(result.object), torch.from_numpy(result.probe)
    assert float(by_losses(name, scan, state)) < 0.7 * float(before)


@pytest.mark.parametrize("name", OBJECT)
def test_a_weight_on_the_object_makes_it_smoother(name):
    scan, state = case(torch.complex64)
    found = []
    for objective in (["amplitude_mae"], ["amplitude_mae", entry(name, 5.0)]):
        result = reconstruct(scan, rule="adam", epochs=10, rule_options={"objective": objective})
        state.object = torch.from_numpy(result.object)
        found.append(float(by_losses(name, scan, state)))
    assert found[1] < 0.6 * found[0]


def test_a_name_alone_and_a_function_are_objectives():
    scan, state = case()
    seen = seen_of(scan, state)
    assert float(named_objective("poisson_nll")(seen)) == float(named_objective(["poisson_nll"])(seen))
    mine = named_objective(lambda model, counts, floor: (model - counts).square())
    expected = ((seen.model - scan.counts).square() * scan.good).sum() / scan.size
    assert float(mine(seen)) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize(
    "objective, message",
    [
        ("poisson_nl", "nearest known: 'poisson_nll'"),
        ("probe_power", "'probe_power' is not minimised here"),
        ("total_variation", "no data term"),
        ([], "no data term"),
        ([{"name": "poisson_nll", "wieght": 1}], "nearest known: 'weight'"),
        ([{"name": "poisson_nll", "weight": -1}], "weight = -1: must be a number > 0"),
        ([{"name": "gaussian_poisson", "config": {"read_noise": 1}}], "nearest known: 'read_noise_counts'"),
        ([{"name": "gaussian_poisson", "config": {"read_noise_counts": 0}}], "must be"),
        (["poisson_nll", "poisson_nll"], "is there twice"),
    ],
)
def test_what_cannot_be_minimised_is_refused_before_any_work(objective, message):
    with pytest.raises(ConfigError, match=message):
        make_rule("adam", objective=objective)


def test_another_objective_does_not_go_on_with_a_checkpoint(tmp_path):
    scan, _ = case(torch.complex64)
    path = tmp_path / "state.safetensors"
    options = {"rule": "adam", "epochs": 2, "checkpoint": path}
    reconstruct(scan, **options, rule_options={"objective": "poisson_nll"})
    with pytest.raises(ConfigError, match="rule_options"):
        reconstruct(scan, **options, rule_options={"objective": "amplitude_mae"}, resume=True)


def test_the_command_line_names_an_objective(tmp_path, capsys):
    scan = tmp_path / "scan.npz"
    simulate(Scenario(N=32, n_positions=36, step_px=3.0, object="gaussian_random_field")).to_npz(scan)
    words = ["reconstruct", str(scan), "-o", str(tmp_path / "out"), "--objective", "poisson_nll"]
    assert main(words) == 2
    assert "--refine adam" in capsys.readouterr().err
    assert main([*words, "--refine", "adam", "--sweeps", "4"]) == 0
    poisson = json.loads((tmp_path / "out" / "metrics.json").read_text())["r_factor"]
    words[-1] = "amplitude_charbonnier"
    words[3] = str(tmp_path / "other")
    assert main([*words, "--refine", "adam", "--sweeps", "4"]) == 0
    other = json.loads((tmp_path / "other" / "metrics.json").read_text())["r_factor"]
    assert 0 < poisson < 1 and poisson != other

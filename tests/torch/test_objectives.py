"""The manifest minimised in torch: every term moves the module, and what is watched changes nothing.

Formulas and gradients of the terms are in tests/parity/test_losses.py.
"""

from __future__ import annotations

import json
import subprocess
import sys

import lightning_runs
import pytest
import torch
import yaml

from ptycho.config.config import PyTorchExecutionConfig, TrainingConfig
from ptycho.forward.seen import Seen
from ptycho.forward.terms import evaluate
from ptycho.objectives.diagnostics import finish, slots
from ptycho.objectives.manifest import Module, resolve
from ptycho.objectives.terms import DIAGNOSTICS, OBJECTIVES
from ptycho.tracking.names import in_contract

N, B, C = 32, 2, 4


@pytest.fixture
def module_and_batch():
    """A small module with a scan attached, and one batch with labels, gridsize 2."""
    from ptycho.config.config import ModelConfig
    from ptycho.run.preparation import ensure_container, plan_training
    from ptycho.run.starting_probe import starting_probe
    from ptycho.simulation import Scenario, simulate
    from ptycho_torch.config_bridge import from_training_config
    from ptycho_torch.data import GroupDataset
    from ptycho_torch.model import PtychoPINN_Lightning
    from ptycho_torch.refine.starting import refined_modes

    raw = simulate(Scenario(N=N, n_positions=36, seed=0)).raw
    config = TrainingConfig(
        model=ModelConfig(N=N, gridsize=2, n_filters_scale=1), probe_from="guess", realspace_mae_weight=0.1
    )
    container = ensure_container(raw, config)
    data, model, training, inference = from_training_config(config)
    module = PtychoPINN_Lightning(model, data, training, inference)
    start = starting_probe(container, config, refined_modes)
    module.attach_scan(
        start.modes, x_scale=container.x_scale, nphotons=container.nphotons, probe_factor=start.factor
    )
    with torch.no_grad():  # away from the flat start, where some terms are at their minimum
        for i, weight in enumerate(module.network.parameters()):
            weight += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(i))
    plan = plan_training(container, None, config)
    batch = GroupDataset(container, label_scales=plan.label_scales)[plan.epoch(0)[0]]
    return module, batch


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_term_is_a_number_with_a_gradient(module_and_batch, name):
    module, batch = module_and_batch
    module.probe.requires_grad_(True)
    found = evaluate(Seen(module, batch), (Module(name, 0.7, None, resolved(name)),))
    assert torch.isfinite(found["loss"])
    found["loss"].backward()
    moved = [p.grad for p in module.parameters() if p.grad is not None]
    assert moved and all(torch.isfinite(g).all() for g in moved)
    assert any(bool((g != 0).any()) for g in moved) or name == "probe_power"  # starts at its minimum


def resolved(name: str) -> tuple[tuple[str, object], ...]:
    config = TrainingConfig(objectives=[{"name": name}], probe_trainable=True)
    if name == "supervised":
        config.model.model_type = "supervised"
    return resolve(config).objectives[0].config


# ------------------------------------------------------------------------------------------------- whole runs


def run_of(raw, config, execution):
    from ptycho_torch.workflows import components

    container = components._ensure_container(raw, config)
    return lightning_runs.prepare_lightning_run(container, None, config, execution)


def train(raw, config, execution):

    return lightning_runs.fit_lightning_run(run_of(raw, config, execution))


def weights(results) -> dict[str, torch.Tensor]:
    return results["models"]["diffraction_to_obj"].state_dict()


EVERY = [{"name": name} for name in DIAGNOSTICS]


@pytest.mark.parametrize(
    "flat, declared",
    [
        ({}, [{"name": "poisson_nll"}]),
        (
            {"nll_weight": 0.5, "mae_weight": 2.0, "realspace_weight": 0.01},
            [
                {"name": "poisson_nll", "weight": 0.5},
                {"name": "amplitude_mae", "weight": 2.0},
                {"name": "total_variation", "weight": 0.01},
            ],
        ),
    ],
)
def test_flat_and_declared_are_the_same_to_the_bit(make_scan, small_config, silent, flat, declared):
    raw = make_scan()
    one, other = (
        train(raw, small_config(raw, probe_from="guess", **changes), silent)
        for changes in (flat, {"objectives": declared})
    )
    assert one["history"] == other["history"]
    assert all(torch.equal(value, weights(other)[name]) for name, value in weights(one).items())


def test_what_is_watched_changes_no_bit_of_what_is_trained(make_scan, small_config, silent):
    raw = make_scan()
    settings = {"probe_from": "guess", "gridsize": 2, "probe_trainable": True, "gradient_clip_val": 1.0}
    blind, watched = (
        train(raw, small_config(raw, diagnostics=chosen, **settings), silent) for chosen in ([], EVERY)
    )
    assert all(torch.equal(value, weights(watched)[name]) for name, value in weights(blind).items())
    assert not [name for name in blind["history"] if "diagnostics" in name]
    found = {name.split("/")[-1] for name in watched["history"] if name.startswith("diagnostics/")}
    assert found == set(finish(tuple(map(of_name, DIAGNOSTICS)), dict.fromkeys(every_slot(), 1.0)))
    history = watched["history"]
    assert 0 < history["diagnostics/r_frac"][-1] < 1 and 0 < history["diagnostics/probe_drift_frac"][-1] < 0.5
    assert history["diagnostics/photons_rate"][-1] == pytest.approx(1, abs=0.5)
    assert "val/diagnostics/probe_drift_frac" not in history


def of_name(name: str) -> Module:
    return Module(name)


def every_slot() -> tuple[tuple[str, str], ...]:
    return slots(tuple(map(of_name, DIAGNOSTICS)))


def test_logged_names_keep_the_contract(make_scan, small_config, silent):
    raw = make_scan()
    config = small_config(raw, diagnostics=EVERY, probe_from="guess", realspace_mae_weight=0.1)
    names = set(train(raw, config, silent)["history"]) - {"epoch"}
    assert all(in_contract(name) for name in names), names
    watched = [name for name in names if "diagnostics/" in name]
    assert watched and all(name.endswith(("_mean", "_rate", "_frac")) for name in watched)


def test_means_and_diagnostics_are_comparable_across_batch_sizes(make_scan, small_config):
    raw = make_scan()
    execution = PyTorchExecutionConfig(
        logger_backend="none", enable_checkpointing=False, accelerator="cpu", learning_rate=1e-12
    )
    settings = {"nepochs": 1, "probe_from": "guess", "region_ratio": 0.0, "diagnostics": EVERY}
    small, large = (
        train(raw, small_config(raw, batch_size=size, **settings), execution)["history"] for size in (4, 27)
    )
    for name, value in small.items():
        if "gradient" not in name:  # the norm of a mean depends on how many are averaged
            assert value == pytest.approx(large[name], rel=1e-4, abs=1e-6), name


def test_a_diagnostic_that_fails_warns_once_and_the_run_goes_on(
    make_scan, small_config, silent, monkeypatch, caplog
):
    from ptycho.forward import diagnostics

    def broken(seen):
        raise ValueError("no such thing")

    raw = make_scan()
    config = small_config(raw, diagnostics=[{"name": "photons"}, {"name": "r_factor"}], probe_from="guess")
    wanted = train(raw, config, silent)
    monkeypatch.setitem(diagnostics.BATCH_SUMS, "photons", broken)
    with caplog.at_level("WARNING"):
        found = train(raw, config, silent)
    # one for training, one for validation
    assert caplog.text.count("diagnostic photons failed and is switched off: no such thing") == 2
    assert found["history"]["diagnostics/r_frac"] == wanted["history"]["diagnostics/r_frac"]
    assert not [name for name in found["history"] if "photons" in name]
    assert all(torch.equal(value, weights(found)[name]) for name, value in weights(wanted).items())


def test_the_collapse_alarm_sounds_for_a_dead_network_only(make_scan, small_config, silent, caplog):
    raw = make_scan()
    config = small_config(raw, nepochs=4, probe_from="guess")
    train(raw, config, silent)
    assert "the network is dead" not in caplog.text
    run = run_of(raw, config, PyTorchExecutionConfig(**{**vars(silent), "learning_rate": 1e-12}))
    with torch.no_grad():
        for weight in run.module.network.parameters():
            weight.zero_()

    lightning_runs.fit_lightning_run(run)
    assert caplog.text.count("the network is dead: for 3 epochs") == 1


@pytest.mark.parametrize("positions", [38, 42])
def test_two_processes_log_what_one_logs(make_scan, tmp_path, positions):
    """Two with batches of four, and one that gathers two of them: eight batches or nine, of which the last
    then leaves one process idle; and validation batches of an odd number."""
    make_scan(n_positions=positions).to_file(tmp_path / "scan.npz")
    settings = {
        "batch_size": 4, "val_fraction": 0.15, "nepochs": 2, "probe_from": "guess", "n_filters_scale": 1,
        "accelerator": "cpu", "probe_trainable": True, "diagnostics": EVERY,
        "objectives": [{"name": "amplitude_mae"}, {"name": "smoothness", "weight": 0.01}],
    }  # fmt: skip
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    histories = []
    kinds = {"one": ["--accum_steps", "2"], "two": ["--devices", "2", "--strategy", "ddp"]}
    for name, flags in kinds.items():
        command = [sys.executable, "-m", "ptycho.cli", "train", "scan.npz", "--config", "run.yaml"]
        done = subprocess.run(
            [*command, "-o", name, *flags], cwd=tmp_path, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr
        histories.append(json.loads((tmp_path / name / "history.json").read_text()))
    one, two = histories
    names, others = ({name for name in history if in_contract(name)} for history in histories)
    assert names == others and "diagnostics/gradient_norm_mean" in names
    for name in names:
        assert two[name] == pytest.approx(one[name], rel=1e-4), name

"""The manifest of a run: what settings resolve to, its checksum, every refusal, where it is kept and said."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from ptycho.config.config import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.errors import ConfigError
from ptycho.models.trained_state import TrainedState, load_trained_state
from ptycho.networks.graphs import describe, initial_weights, spec_from_config
from ptycho.objectives.diagnostics import SUMS, CollapseAlarm, finish, slots
from ptycho.objectives.manifest import Module, resolve
from ptycho.objectives.terms import DIAGNOSTICS, OBJECTIVES
from ptycho.run.objective_log import log_run
from ptycho.scan.scan_set import KnownScan


def test_the_default_list_and_its_checksum_are_these():
    found = resolve(TrainingConfig())
    assert found.as_dict() == {
        "objectives": [{"name": "poisson_nll", "weight": 1.0, "stages": None, "config": {}}],
        "diagnostics": [
            {"name": "r_factor", "weight": 1.0, "stages": None, "config": {}},
            {
                "name": "collapse",
                "weight": 1.0,
                "stages": None,
                "config": {"threshold": 0.001, "patience": 3},
            },
        ],
    }
    assert found.checksum == "b3dd2941a6a41ff669cf59ace5f089038c0abe2158cb120c604ead30d8f7a04b"


FLAT_AND_DECLARED = [
    ({}, [{"name": "poisson_nll"}]),
    ({"torch_loss_mode": "mae"}, [{"name": "amplitude_mae"}]),
    ({"torch_loss_mode": "mae", "mae_weight": 0.5}, [{"name": "amplitude_mae", "weight": 0.5}]),
    ({"nll_weight": 0.0, "mae_weight": 2.0}, [{"name": "amplitude_mae", "weight": 2.0}]),
    (
        {"mae_weight": 0.1, "realspace_weight": 0.2, "realspace_mae_weight": 0.3},
        [
            {"name": "poisson_nll", "weight": 1, "enabled": True},
            {"name": "amplitude_mae", "weight": 0.1},
            {"name": "smoothness", "enabled": False},
            {"name": "total_variation", "weight": 0.2},
            {"name": "realspace_mae", "weight": 0.3, "config": {}},
        ],
    ),
]


@pytest.mark.parametrize("flat, declared", FLAT_AND_DECLARED)
def test_flat_settings_are_a_declared_list(flat, declared):
    one, other = resolve(TrainingConfig(**flat)), resolve(TrainingConfig(objectives=declared))
    assert one == other and one.checksum == other.checksum


def test_the_checksum_is_of_what_is_minimised():
    plain = resolve(TrainingConfig()).checksum
    assert resolve(TrainingConfig(diagnostics=[{"name": "photons"}], nepochs=3)).checksum == plain
    others = [
        [{"name": "poisson_nll", "weight": 2}],
        [{"name": "gaussian_poisson"}],
        [{"name": "gaussian_poisson", "config": {"read_noise_counts": 3}}],
        [{"name": "poisson_nll"}, {"name": "smoothness"}],
        [{"name": "smoothness"}, {"name": "poisson_nll"}],
    ]
    sums = [resolve(TrainingConfig(objectives=each)).checksum for each in others]
    assert len({plain, *sums}) == 6


def test_settings_are_complete_and_typed():
    config = TrainingConfig(objectives=[{"name": "probe_support", "config": {"diameter_px": "12"}}] * 1)
    config.probe_trainable = True
    module = resolve(config).objectives[0]
    assert dict(module.config) == {"diameter_px": 12.0, "sigma_px": 1.0}
    assert module.settings().diameter_px == 12.0


def test_a_list_from_yaml_is_taken():
    text = "[{name: poisson_nll}, {name: amplitude_charbonnier, weight: 5e-1, config: {epsilon: 1e-3}}]"
    found = resolve(TrainingConfig(objectives=yaml.safe_load(text))).objectives[1]
    assert (found.weight, dict(found.config)) == (0.5, {"epsilon": 0.001})


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"objectives": []}, "objectives: nothing to minimise"),
        ({"objectives": [{"name": "poisson_nll", "enabled": False}]}, "objectives: nothing to minimise"),
        ({"objectives": ["poisson_nll"]}, "'poisson_nll' must be a mapping such as"),
        ({"objectives": [{"weight": 1}]}, "objectives: .* has no name"),
        ({"objectives": [{"name": "poison_nll"}]}, "unknown name 'poison_nll'; nearest known: 'poisson_nll'"),
        ({"objectives": [{"name": ["a"]}]}, r"unknown name \['a'\]; nearest known"),
        ({"objectives": [{"name": "amplitude_mae"}] * 2}, "'amplitude_mae' is there twice; keep one"),
        (
            {"objectives": [{"name": "amplitude_mae", "wieght": 1}]},
            "unknown key 'wieght'; nearest known: 'weight'",
        ),
        (
            {"objectives": [{"name": "amplitude_mae", "enabled": "yes"}]},
            "enabled = 'yes': must be True or False",
        ),
        *(
            (
                {"objectives": [{"name": "amplitude_mae", "weight": bad}]},
                "amplitude_mae.weight = .*: must be a num",
            )
            for bad in (0, -1, float("nan"), float("inf"), True, "much", None)
        ),
        (
            {"objectives": [{"name": "gaussian_poisson", "config": {"read_noise": 1}}]},
            "gaussian_poisson.config: unknown key 'read_noise'; nearest known: 'read_noise_counts'",
        ),
        (
            {"objectives": [{"name": "gaussian_poisson", "config": {"read_noise_counts": 0}}]},
            "gaussian_poisson.config.read_noise_counts = 0",
        ),
        ({"objectives": [{"name": "smoothness", "config": {"a": 1}}]}, "unknown key 'a'; it has no settings"),
        ({"objectives": [{"name": "smoothness", "config": 3}]}, "smoothness.config = 3: must be a mapping"),
        (
            {"objectives": [{"name": "smoothness", "stages": "warm_up"}]},
            "smoothness.stages: no stage 'warm_up'; the configuration has no stages",
        ),
        (
            {"objectives": [{"name": "smoothness", "stages": 3}]},
            "smoothness.stages = 3: must be a name or a list",
        ),
        (
            {"objectives": [{"name": "smoothness"}], "mae_weight": 0.5},
            r"mae_weight = 0.5 beside declared objectives: write '- \{name: amplitude_mae, weight: 0.5\}'",
        ),
        (
            {"objectives": [{"name": "smoothness"}], "torch_loss_mode": "mae"},
            r"torch_loss_mode = 'mae' beside declared objectives: write '- \{name: amplitude_mae\}'",
        ),
        ({"nll_weight": 0.0}, "TrainingConfig.nll_weight = 0.0: nothing to minimise"),
        ({"objectives": [{"name": "probe_power"}]}, "probe_power depends on nothing that trains"),
        (
            {"objectives": [{"name": "poisson_nll"}], "model": ModelConfig(model_type="supervised")},
            "poisson_nll needs the forward model, which model_type 'supervised' leaves out",
        ),
        (
            {"objectives": [{"name": "overlap_consistency"}], "model": ModelConfig(object_big=False)},
            "overlap_consistency needs object_big",
        ),
        ({"diagnostics": [{"name": "collaps"}]}, "unknown name 'collaps'; nearest known: 'collapse'"),
        ({"diagnostics": [{"name": "collapse", "weight": 2}]}, "a diagnostic is watched, not minimised"),
        ({"diagnostics": [{"name": "poisson_nll"}]}, "diagnostics: unknown name 'poisson_nll'"),
    ],
)
def test_a_bad_list_is_refused_by_name(changes, message):
    with pytest.raises(ConfigError, match=message):
        resolve(TrainingConfig(**changes))


def test_every_term_resolves_by_its_name():
    for name, info in OBJECTIVES.items():
        model = ModelConfig(model_type="supervised" if info.needs_labels else "pinn")
        config = TrainingConfig(
            model=model, objectives=[{"name": name}], probe_trainable=name.startswith("probe_")
        )
        found = resolve(config)
        assert found.needs_labels is info.needs_labels
        assert dataclasses.asdict(found.objectives[0].settings()) == dict(found.objectives[0].config)


def test_the_log_says_what_is_minimised_under_which_name(tmp_path, caplog):
    config = TrainingConfig(output_dir=tmp_path / "night", seed=7, stages=[{"name": "only", "epochs": 1}])
    config.output_dir.mkdir()
    (config.output_dir / "config.yaml").write_text("")
    manifest = resolve(config)
    with caplog.at_level("INFO", logger="ptycho.run.objective_log"):
        log_run(manifest, config, PyTorchExecutionConfig(run_name="second try"))
        log_run(manifest, TrainingConfig(), PyTorchExecutionConfig())
    assert (
        f"run second try: configuration {tmp_path / 'night' / 'config.yaml'}, seed 7, seed of the"
        in caplog.text
    )
    assert manifest.checksum in caplog.text and '"name": "poisson_nll"' in caplog.text
    assert '"name": "only"' in caplog.text
    assert "run training_outputs: configuration in memory, seed 0" in caplog.text


def state_of(config: TrainingConfig) -> TrainedState:
    N, spec = config.model.N, spec_from_config(config.model)
    return TrainedState(
        config=config,
        weights=initial_weights(describe(config.model.architecture, spec), spec, 0),
        scans=(
            KnownScan(
                probe=np.ones((1, N, N), np.complex64),
                x_scale=1.0,
                nphotons=1e4,
                probe_factor=1.0,
                bad_pixels=np.zeros((N, N), bool),
                guess=np.ones((1, N, N), np.complex64),
            ),
        ),
    )


def test_a_bundle_keeps_the_manifest_and_one_without_still_opens(tmp_path):
    from ptycho.models.bundle import load_bundle, save_bundle

    config = TrainingConfig(model=ModelConfig(N=32), objectives=[{"name": "amplitude_mae"}])
    path = state_of(config).save(tmp_path / "new", "pytorch")
    bundle = load_bundle(path)
    assert bundle.state["manifest"] == resolve(config).as_dict()
    assert bundle.state["objectives_checksum"] == resolve(config).checksum
    old = {name: v for name, v in bundle.state.items() if name not in ("manifest", "objectives_checksum")}
    save_bundle(
        tmp_path / "old", weights=bundle.weights, config=bundle.config, state=old, backend="pytorch",
        extra_arrays=bundle.extra_arrays,
    )  # fmt: skip
    for folder in ("new", "old"):
        assert load_trained_state(tmp_path / folder)[0].config.objectives == [{"name": "amplitude_mae"}]


class TestDiagnostics:
    def modules(self, *names: str) -> tuple[Module, ...]:
        return resolve(TrainingConfig(diagnostics=[{"name": name} for name in names])).diagnostics

    def test_names_say_how_they_are_reduced(self):
        modules = self.modules(*DIAGNOSTICS)
        assert set(SUMS) == set(DIAGNOSTICS)
        made = finish(modules, dict.fromkeys(slots(modules), 1.0))
        assert made and all(name.endswith(("_mean", "_rate", "_frac")) for name in made)
        assert json.loads(json.dumps(made)) == made

    def test_what_was_not_seen_is_no_number(self):
        modules = self.modules(*DIAGNOSTICS)
        assert all(np.isnan(v) for v in finish(modules, dict.fromkeys(slots(modules), 0.0)).values())

    def test_sums_over_processes_are_the_sums_of_one(self):
        modules = self.modules("r_factor", "photons")
        one, other = ({slot: float(i + k) for i, slot in enumerate(slots(modules))} for k in (1, 3))
        both = {slot: one[slot] + other[slot] for slot in one}
        made = finish(modules, both)
        assert made["r_frac"] == pytest.approx(np.sqrt(4 / 6))
        assert made["photons_predicted_mean"] == pytest.approx(8 / 12)
        assert made["photons_rate"] == pytest.approx(8 / 10)

    def test_the_alarm_sounds_once_after_its_patience(self, caplog):
        alarm = CollapseAlarm(self.modules("collapse"))
        heard = [alarm.listen({"object_spread_mean": v}) for v in (1e-4, 1e-4, 0.2, 1e-4, 1e-4, 1e-4, 1e-4)]
        assert heard == [False] * 5 + [True, False]
        assert caplog.text.count("the network is dead") == 1
        assert not CollapseAlarm(self.modules("photons")).listen({"object_spread_mean": 0.0})

    def test_a_few_bright_pixels_do_not_hide_a_dead_network(self, caplog):
        alive, dead = ({"object_spread_mean": 7.0, "r_frac": r} for r in (0.9, 1.2))
        epochs = (dead, dead, alive, dead, dead, dead, dead)
        for counts_per_px in (None, 0.3):  # what few photons leave unexplained is no sign
            alarm = CollapseAlarm(self.modules("collapse"), counts_per_px)
            assert not any(alarm.listen(values) for values in epochs)
        alarm = CollapseAlarm(self.modules("collapse"), 3.0)
        assert [alarm.listen(values) for values in epochs] == [False] * 5 + [True, False]
        assert "the network is dead: for 3 epochs it has explained none of the diffraction" in caplog.text
        assert not CollapseAlarm(self.modules("collapse")).listen({})


def test_the_specification_lists_every_term_with_its_settings():
    page = (Path(__file__).parents[2] / "specs" / "objectives.md").read_text()
    for title, known in (("Terms", OBJECTIVES), ("Diagnostics", DIAGNOSTICS)):
        section = page.split(f"\n## {title}\n")[1].split("\n## ")[0]
        lines = {line.split("`")[1]: line for line in section.splitlines() if line.startswith("| `")}
        assert set(lines) == set(known)
        for name, info in known.items():
            text = lines[name] if known is OBJECTIVES else section
            assert all(f"`{field.name}`" in text for field in dataclasses.fields(info.settings)), name

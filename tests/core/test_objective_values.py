"""What counts in which stage, when the alarm sounds, and diagnostics from their sums."""

from __future__ import annotations

import math

import pytest

from ptycho.config.settings import ModelConfig, TrainingConfig
from ptycho.errors import ConfigError
from ptycho.objectives.diagnostics import CollapseAlarm, finish
from ptycho.objectives.manifest import Module, resolve
from ptycho.objectives.stages import moving, positive, resolve_stages, span_at, spans, total_epochs
from ptycho.objectives.terms import OBJECTIVES
from ptycho.run.schedules import part_rate

DEAD, ALIVE = {"object_spread_mean": 1e-5}, {"object_spread_mean": 0.1}


def alarm(counts_per_px: float | None = 10.0, **settings) -> CollapseAlarm:
    return CollapseAlarm((Module("collapse", config=tuple(settings.items())),), counts_per_px)


def heard(made: CollapseAlarm, *epochs) -> list[bool]:
    return [made.listen(values) for values in epochs]


def test_the_alarm_sounds_once_after_so_many_dead_epochs_in_a_row():
    assert heard(alarm(), DEAD, DEAD, DEAD, DEAD) == [False, False, True, False]
    assert heard(alarm(), DEAD, DEAD, ALIVE, DEAD, DEAD, DEAD) == [False] * 5 + [True]
    assert heard(alarm(threshold=1e-3, patience=1), DEAD) == [True]
    assert heard(alarm(threshold=1e-6, patience=1), DEAD) == [False]
    assert heard(alarm(threshold=0.2, patience=2), ALIVE, ALIVE) == [False, True]
    assert heard(CollapseAlarm((), 10.0), DEAD, DEAD, DEAD) == [False] * 3
    assert heard(alarm(patience=1), {"r_frac": 1.0}) == [False]


def test_r_tells_only_where_there_are_photons_enough():
    wrong = {**ALIVE, "r_frac": 0.96}
    assert heard(alarm(1.0, patience=2), wrong, wrong) == [False, True]
    for dose in (0.99, None):
        assert heard(alarm(dose, patience=2), wrong, wrong, wrong) == [False] * 3
    assert heard(alarm(patience=1), {**ALIVE, "r_frac": 0.94}) == [False]


def test_diagnostics_from_their_sums():
    modules = tuple(
        map(Module, ("r_factor", "photons", "phase_range", "collapse", "probe_drift", "gradient_norm"))
    )
    sums = {
        ("r_factor", "num"): 0.09, ("r_factor", "den"): 4.0,
        ("photons", "predicted"): 30.0, ("photons", "measured"): 20.0, ("photons", "count"): 5.0,
        ("phase_range", "sum"): 6.0, ("phase_range", "count"): 4.0,
        ("collapse", "amplitude"): 1.0, ("collapse", "complex"): 3.0, ("collapse", "count"): 4.0,
        ("probe_drift", "change"): 0.04, ("probe_drift", "start"): 1.0,
        ("gradient_norm", "sum"): 9.0, ("gradient_norm", "count"): 2.0,
    }  # fmt: skip
    assert finish(modules, sums) == pytest.approx(
        {
            "r_frac": 0.15, "photons_predicted_mean": 6.0, "photons_measured_mean": 4.0, "photons_rate": 1.5,
            "phase_range_rad_mean": 1.5, "amplitude_spread_mean": 0.25, "object_spread_mean": 0.75,
            "probe_drift_frac": 0.2, "gradient_norm_mean": 4.5,
        }
    )  # fmt: skip
    assert math.isnan(finish(modules[:1], {("r_factor", "num"): 0.0, ("r_factor", "den"): 0.0})["r_frac"])


def names(config: TrainingConfig, stage: int | None = None) -> list[str]:
    at = None if stage is None else resolve_stages(config)[stage]
    return [module.name for module in resolve(config).active(at)]


def test_a_term_counts_where_both_the_term_and_the_stage_say_so():
    config = TrainingConfig(
        objectives=[
            {"name": "poisson_nll"},
            {"name": "amplitude_mae", "stages": ["first"]},
            {"name": "total_variation", "stages": ["first", "second"], "weight": 0.5},
            {"name": "smoothness", "enabled": False},
        ],
        stages=[
            {"name": "first", "epochs": 1, "objectives": ["poisson_nll", "amplitude_mae"]},
            {"name": "second", "epochs": 1},
        ],
    )
    assert names(config) == ["poisson_nll", "amplitude_mae", "total_variation"]
    assert names(config, 0) == ["poisson_nll", "amplitude_mae"]
    assert names(config, 1) == ["poisson_nll", "total_variation"]


def test_flat_weights_and_the_mae_mode():
    def flat(**settings) -> dict[str, float]:
        return {module.name: module.weight for module in resolve(TrainingConfig(**settings)).objectives}

    assert flat(mae_weight=0.5) == {"poisson_nll": 1.0, "amplitude_mae": 0.5}
    assert flat(torch_loss_mode="mae") == {"amplitude_mae": 1.0}
    assert flat(torch_loss_mode="mae", mae_weight=0.25) == {"amplitude_mae": 0.25}
    assert flat(nll_weight=0.0, realspace_weight=0.1, mae_weight=2.0) == {
        "amplitude_mae": 2.0,
        "total_variation": 0.1,
    }
    with pytest.raises(ConfigError, match="mae_weight = 0.5 beside declared objectives"):
        resolve(TrainingConfig(mae_weight=0.5, objectives=[{"name": "poisson_nll"}]))


def test_checksum_sees_weights_settings_and_stages():
    def checksum(**entry) -> str:
        return resolve(TrainingConfig(objectives=[{"name": "gaussian_poisson", **entry}])).checksum

    made = [checksum(), checksum(weight=2.0), checksum(config={"read_noise_counts": 2.0})]
    assert len(set(made)) == 3 and checksum() == made[0]
    assert resolve(TrainingConfig(diagnostics=[])).checksum == resolve(TrainingConfig()).checksum


def test_terms_that_cannot_be_felt_are_refused():
    supervised = ModelConfig(model_type="supervised")
    with pytest.raises(ConfigError, match="poisson_nll needs the forward model"):
        resolve(TrainingConfig(model=supervised, objectives=[{"name": "poisson_nll"}]))
    with pytest.raises(ConfigError, match="overlap_consistency needs object_big"):
        resolve(
            TrainingConfig(
                model=ModelConfig(object_big=False),
                objectives=[{"name": "poisson_nll"}, {"name": "overlap_consistency"}],
            )
        )


def test_settings_of_terms_have_these_defaults():
    found = {name: vars(info.settings()) for name, info in OBJECTIVES.items()}
    assert {name: values for name, values in found.items() if values} == {
        "gaussian_poisson": {"read_noise_counts": 1.0},
        "amplitude_charbonnier": {"epsilon": 1e-2},
        "decoded_positions": {
            "kind": "exp",
            "radius_px": 2.0,
            "step_px": 1.0,
            "deviation_px": 1.0,
            "numbers": 30.0,
        },
        "probe_support": {"diameter_px": None, "sigma_px": 1.0},
        "label_ssim": {"sigma_px": 1.5, "data_range": 1.0},
    }


def staged(*stages, **settings) -> TrainingConfig:
    return TrainingConfig(stages=list(stages), **settings)


def test_stages_begin_and_end_with_their_steps():
    config = staged(
        {"name": "a", "steps": 5}, {"name": "b", "epochs": 2}, scheduler="Exponential", lr_gamma=0.5
    )
    stages = resolve_stages(config)
    made = spans(stages, 4)
    assert [span_at(made, step).stage.name for step in (0, 4, 5, 12, 13)] == ["a", "a", "b", "b", "b"]
    assert total_epochs(stages, 4) == 4  # thirteen steps
    assert total_epochs(stages[1:], 4) == 2
    at = span_at(made, 9)
    assert part_rate(at, "decoder", 9, 1e-3, config, 4) == pytest.approx(
        5e-4
    )  # the second epoch of its stage
    assert part_rate(at, "decoder", 8, 1e-3, config, 4) == pytest.approx(1e-3)


def test_rates_of_a_stage_and_of_its_parts():
    config = staged(
        {"name": "a", "epochs": 1, "learning_rate": 2e-4, "trainable": "network"},
        {"name": "b", "epochs": 1, "learning_rate": {"encoder": 1e-5}},
    )
    first, second = spans(resolve_stages(config), 4)
    assert part_rate(first, "decoder", 0, 1e-3, config, 4) == pytest.approx(2e-4)
    assert part_rate(first, "scale", 0, 1e-3, config, 4) == 0.0
    assert part_rate(second, "encoder_top", 4, 1e-3, config, 4) == pytest.approx(1e-5)
    assert part_rate(second, "decoder", 4, 1e-3, config, 4) == pytest.approx(1e-3)


@pytest.mark.parametrize("kind", ["pinn", "supervised"])
@pytest.mark.parametrize("probe", [False, True])
@pytest.mark.parametrize("scale", [False, True])
def test_probe_and_scale_move_only_when_they_may(kind, probe, scale):
    config = TrainingConfig(
        model=ModelConfig(model_type=kind), probe_trainable=probe, intensity_scale_trainable=scale
    )
    made = moving(None, config)
    assert ("probe" in made) == (probe and kind == "pinn")
    assert ("scale" in made) == (scale and kind == "pinn")


def test_positive_numbers_are_above_zero_and_finite():
    assert [positive(v) for v in (1, 0.5, "1e-3", 0, -1, "inf", True, None, "a", float("nan"))] == [
        1.0, 0.5, 1e-3, None, None, None, None, None, None, None
    ]  # fmt: skip

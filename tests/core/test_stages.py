"""Stages as a pure function of the optimiser step: which one, how fast each part moves, what is refused."""

from __future__ import annotations

import pytest

from ptycho.config.config import ModelConfig, TrainingConfig
from ptycho.errors import ConfigError
from ptycho.objectives.manifest import resolve
from ptycho.objectives.stages import (
    TRAINABLE,
    moving,
    resolve_stages,
    span_at,
    spans,
    total_epochs,
)
from ptycho.run.history import append_row
from ptycho.run.schedules import part_rate


def configured(*stages, **changes) -> TrainingConfig:
    return TrainingConfig(stages=list(stages), probe_trainable=True, **changes)


def test_stages_follow_one_another_in_steps():
    config = configured({"name": "a", "epochs": 2}, {"name": "b", "steps": 5}, {"name": "c", "epochs": 1})
    made = spans(resolve_stages(config), 4)
    assert [(span.stage.name, span.first, span.length) for span in made] == [
        ("a", 0, 8),
        ("b", 8, 5),
        ("c", 13, 4),
    ]
    names = "".join(span_at(made, step).stage.name for step in range(19))
    assert names == "a" * 8 + "b" * 5 + "c" * 6  # beyond the end the last one stays
    assert total_epochs(resolve_stages(config), 4) == 5


def test_rates_of_parts_and_a_course_that_begins_anew():
    config = configured(
        {"name": "a", "steps": 10, "trainable": "decoder", "learning_rate": 1e-4},
        {"name": "b", "steps": 10, "learning_rate": {"encoder": 1e-5, "probe": 2e-3}},
        scheduler="Exponential",
        lr_gamma=0.5,
    )
    made = spans(resolve_stages(config), 2)

    def rate(part: str, step: int) -> float:
        return part_rate(span_at(made, step), part, step, 1e-3, config, 2)

    assert [rate("phase_head", step) for step in (0, 1, 2, 9)] == pytest.approx([1e-4, 1e-4, 5e-5, 1e-4 / 16])
    assert rate("probe", 3) == rate("encoder_top", 9) == 0
    assert [rate("encoder_bottom", step) for step in (10, 12)] == pytest.approx([1e-5, 5e-6])
    assert rate("probe", 10) == pytest.approx(2e-3) and rate("scale", 10) == pytest.approx(1e-3)


def test_what_moves():
    stage = resolve_stages(configured({"name": "a", "epochs": 1, "trainable": ["encoder", "scale"]}))[0]
    assert moving(stage, configured()) == {"encoder_bottom", "encoder_top", "scale"}
    assert moving(None, TrainingConfig()) == {*TRAINABLE["network"], "scale"}
    assert moving(None, configured(model=ModelConfig(model_type="supervised"))) == {*TRAINABLE["network"]}


@pytest.mark.parametrize(
    "stages, message",
    [
        ([], "stages: the list is empty"),
        (["warm"], "stages: 'warm' must be a mapping"),
        ([{"epochs": 1}], "stages: .* has no name"),
        ([{"name": "a"}], "stages.a: give epochs or steps"),
        ([{"name": "a", "epochs": 1, "steps": 1}], "stages.a: give epochs or steps"),
        ([{"name": "a", "epochs": 0}], "stages.a.epochs = 0: must be an integer >= 1"),
        ([{"name": "a", "steps": 1.5}], "stages.a.steps = 1.5: must be an integer"),
        ([{"name": "a", "epochs": 1}, {"name": "a", "epochs": 1}], "stages: 'a' is there twice"),
        ([{"name": "a", "epoch": 1}], "stages: unknown key 'epoch'; nearest known: 'epochs'"),
        (
            [{"name": "a", "epochs": 1, "trainable": "decodr"}],
            "unknown part 'decodr'; nearest known: 'decoder'",
        ),
        ([{"name": "a", "epochs": 1, "trainable": []}], "trainable: the list is empty"),
        ([{"name": "a", "epochs": 1, "trainable": 3}], "trainable = 3: must be a name or a list of names"),
        ([{"name": "a", "epochs": 1, "objectives": 3}], "objectives = 3: must be a name or a list of names"),
        (
            [{"name": "a", "epochs": 1, "learning_rate": 0}],
            "stages.a.learning_rate = 0: must be a number > 0",
        ),
        (
            [{"name": "a", "epochs": 1, "learning_rate": {"prob": 1}}],
            "unknown part 'prob'; nearest known: 'probe'",
        ),
        (
            [{"name": "a", "epochs": 1, "learning_rate": {"probe": True}}],
            "stages.a.learning_rate.probe = True: must be a number > 0",
        ),
        (
            [{"name": "a", "epochs": 1, "objectives": "poisson"}],
            "'poisson' is not among the run's objectives; nearest known: 'poisson_nll'",
        ),
    ],
)
def test_a_bad_stage_is_refused_by_name(stages, message):
    with pytest.raises(ConfigError, match=message):
        resolve(configured(*stages))


def test_what_cannot_be_is_refused_before_the_run():
    one = {"name": "a", "epochs": 1}
    with pytest.raises(ConfigError, match="ReduceLROnPlateau' with stages"):
        resolve(configured(one, scheduler="ReduceLROnPlateau"))
    with pytest.raises(ConfigError, match="'probe' needs probe_trainable: true"):
        resolve(TrainingConfig(stages=[{**one, "trainable": "probe"}]))
    supervised = configured({**one, "trainable": "scale"}, model=ModelConfig(model_type="supervised"))
    with pytest.raises(ConfigError, match="'scale' does not train with model_type 'supervised'"):
        resolve(supervised)
    felt = configured({**one, "trainable": "probe"}, objectives=[{"name": "total_variation"}])
    with pytest.raises(ConfigError, match="stages.a: total_variation depends on nothing that trains"):
        resolve(felt)
    other = configured(one, objectives=[{"name": "poisson_nll", "stages": ["b"]}])
    with pytest.raises(ConfigError, match="poisson_nll.stages: no stage 'b'; nearest known: 'a'"):
        resolve(other)
    nothing = configured(one, {"name": "b", "epochs": 1}, objectives=[{"name": "poisson_nll", "stages": "b"}])
    with pytest.raises(ConfigError, match="stages.a: no objective counts in it"):
        resolve(nothing)


def test_entries_of_a_history_stay_at_their_epochs():
    epochs: dict[str, list[float]] = {}
    for row in ({"loss": 3.0, "mae": 1.0}, {"loss": 2.0}, {"loss": 1.0, "mae": 0.5, "nll": 7.0}):
        append_row(epochs, row)
    assert epochs["loss"] == [3.0, 2.0, 1.0]
    assert str(epochs["mae"]) == "[1.0, nan, 0.5]" and str(epochs["nll"]) == "[nan, nan, 7.0]"

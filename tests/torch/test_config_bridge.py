"""The bridge between the canonical and the torch configurations loses nothing and hides nothing."""

from __future__ import annotations

import dataclasses
import pickle
import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptycho.clients import config_bridge as bridge
from ptycho.config import config as canonical
from ptycho.config.fields import describe_fields
from ptycho.errors import ConfigError
from ptycho_torch import config_params as torch_side

OURS = (
    canonical.ModelConfig,
    canonical.TrainingConfig,
    canonical.InferenceConfig,
    canonical.PyTorchExecutionConfig,
)
THEIRS = (
    torch_side.DataConfig,
    torch_side.ModelConfig,
    torch_side.TrainingConfig,
    torch_side.InferenceConfig,
    torch_side.DatagenConfig,
)
LINKS = (*bridge.MODEL_LINKS, *bridge.TRAINING_LINKS, *bridge.INFERENCE_LINKS, *bridge.EXECUTION_LINKS)


def names(classes):
    return {f"{cls.__name__}.{field.name}" for cls in classes for field in dataclasses.fields(cls)}


def valid(info):
    """Values that a field accepts."""
    if info.choices is not None:
        values = st.sampled_from(info.choices)
    elif info.type_ is bool:
        values = st.booleans()
    elif info.type_ is int:
        step = info.multiple_of or 1
        values = st.integers(int(info.ge) // step, int(info.le or 1000) // step).map(lambda n: n * step)
    elif info.type_ is float:
        low, high = info.ge if info.ge is not None else info.gt, info.le if info.le is not None else info.lt
        values = st.floats(
            low,
            1e9 if high is None else high,
            exclude_min=info.gt is not None,
            exclude_max=info.lt is not None,
        )
    else:
        text = st.text(string.ascii_letters, min_size=1)
        values = text.map(Path) if info.type_ is Path else text
    return st.none() | values if info.optional else values


def filled(cls, **more):
    fields = {info.name: valid(info) for info in describe_fields(cls) if info.name not in more}
    return st.builds(cls, **fields, **more)


unhurried = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
models = filled(canonical.ModelConfig)
trainings = filled(canonical.TrainingConfig, model=models)
inferences = filled(canonical.InferenceConfig, model=models)


def back(data, model, training):
    return bridge.to_training_config(bridge.to_model_config(data, model), data, model, training)


@unhurried
@given(trainings)
def test_a_training_round_trip_loses_nothing(config):
    data, model, training, inference = bridge.from_training_config(config)
    assert back(data, model, training) == config
    assert pickle.loads(pickle.dumps((data, model, training, inference))) == (
        data,
        model,
        training,
        inference,
    )


@unhurried
@given(inferences)
def test_an_inference_round_trip_loses_nothing(config):
    data, model, inference = bridge.from_inference_config(config)
    assert bridge.to_inference_config(bridge.to_model_config(data, model), data, inference) == config


@unhurried
@given(
    data=filled(
        torch_side.DataConfig,
        grid_size=st.just((2, 2)),
        C=st.just(4),
        x_bounds=st.just((0.2, 0.8)),
        y_bounds=st.just((0.1, 0.9)),
    ),
    model=filled(torch_side.ModelConfig),
    training=filled(torch_side.TrainingConfig),
    inference=filled(torch_side.InferenceConfig),
)
def test_the_other_round_trip_loses_nothing_that_means_something(data, model, training, inference):
    ours = back(data, model, training)
    base = (data, model, training, inference)
    data2, model2, training2, inference2 = bridge.from_training_config(ours, base=base)
    assert back(data2, model2, training2) == ours
    assert inference2 == inference
    untouched = {
        name
        for name in bridge.THEIRS_UNMAPPED
        if name.split(".")[0] in ("DataConfig", "ModelConfig", "TrainingConfig")
    }
    for before, after in ((data, data2), (model, model2), (training, training2)):
        for field in dataclasses.fields(before):
            if f"{type(before).__name__}.{field.name}" in untouched:
                assert getattr(after, field.name) == getattr(before, field.name)


def test_every_field_of_either_side_is_in_exactly_one_table():
    mapped_ours = {f"{link.ours}" for link in LINKS}
    mapped_theirs = {name for link in LINKS for name in link.theirs}
    assert mapped_ours.isdisjoint(bridge.OURS_UNMAPPED)
    assert mapped_theirs.isdisjoint(bridge.THEIRS_UNMAPPED)
    assert mapped_ours | set(bridge.OURS_UNMAPPED) == names(OURS)
    assert mapped_theirs | set(bridge.THEIRS_UNMAPPED) == names(THEIRS)
    assert len(LINKS) == len(mapped_ours)
    assert all(
        len(reason) > 10 for reason in (*bridge.OURS_UNMAPPED.values(), *bridge.THEIRS_UNMAPPED.values())
    )


def test_defaults_agree_on_both_sides():
    data, model, training, inference = THEIRS[0](), THEIRS[1](), THEIRS[2](), THEIRS[3]()
    assert back(data, model, training) == canonical.TrainingConfig()
    ours = bridge.to_inference_config(bridge.to_model_config(data, model), data, inference)
    assert ours == canonical.InferenceConfig()


def test_known_translations():
    data = torch_side.DataConfig(N=128, grid_size=(3, 3), K=9, nphotons=1e6)
    model = torch_side.ModelConfig(
        mode="Supervised", amp_activation="silu", loss_function="MAE", probe_mask=None
    )
    training = torch_side.TrainingConfig(
        epochs=7, nll=False, scheduler="Cosine", warmup_epochs=3, gradient_clip_val=0
    )
    ours = back(data, model, training)
    assert (ours.model.gridsize, ours.model.N, ours.model.model_type) == (3, 128, "supervised")
    assert (ours.model.amp_activation, ours.model.probe_mask) == ("swish", False)
    assert (ours.nepochs, ours.neighbor_count, ours.nphotons, ours.nll_weight) == (7, 9, 1e6, 0.0)
    assert (ours.scheduler, ours.lr_warmup_epochs, ours.torch_loss_mode) == ("WarmupCosine", 3, "mae")
    assert ours.gradient_clip_val is None


def test_the_calls_of_ptychodus_are_accepted():
    data, model, training, inference = ptychodus()
    ours = back(data, model, training)
    canonical.validate_training_config(ours, require_files=False, architectures=("swift",))
    assert (ours.model.gridsize, ours.model.amp_activation, ours.neighbor_count) == (2, "swish", 6)
    execution = bridge.to_execution_config(training, inference)
    assert (execution.accelerator, execution.strategy, execution.num_workers) == ("auto", "auto", 4)
    assert execution.inference_batch_size == 1000
    assert torch_side.DatagenConfig() == torch_side.DatagenConfig()


def test_overrides_win_and_are_checked():
    data, model, training = torch_side.DataConfig(), torch_side.ModelConfig(), torch_side.TrainingConfig()
    ours_model = bridge.to_model_config(data, model, {"N": 256})
    ours = bridge.to_training_config(
        ours_model, data, model, training, overrides={"n_groups": 12, "nphotons": 1e5}
    )
    assert (ours.model.N, ours.n_groups, ours.nphotons) == (256, 12, 1e5)
    with pytest.raises(
        ConfigError, match="override 'ngroups' is no field of TrainingConfig; nearest: 'n_groups'"
    ):
        bridge.to_training_config(ours_model, data, model, training, overrides={"ngroups": 1})


@pytest.mark.parametrize(
    "change, message",
    [
        ({"grid_size": (2, 3), "C": 6}, "DataConfig.grid_size = (2, 3): must be square"),
        ({"grid_size": (2, 2), "C": 9}, "DataConfig.C = 9: must be 2 x 2 = 4"),
        ({"grid_size": 2}, "DataConfig.grid_size = 2: must be a pair of integers (rows, columns)"),
        ({"mode": "pinn"}, "ModelConfig.mode = 'pinn': must be one of 'Unsupervised', 'Supervised'"),
        ({"amp_activation": "tanh"}, "ModelConfig.amp_activation = 'tanh': must be one of "),
        ({"loss_function": "Huber"}, "ModelConfig.loss_function = 'Huber': must be one of 'Poisson', 'MAE'"),
        ({"probe_mask": "disk"}, "ModelConfig.probe_mask = 'disk': must be True, False or None"),
        ({"scheduler": "Step"}, "TrainingConfig.scheduler = 'Step': must be one of "),
        ({"nll": 0.5}, "TrainingConfig.nll = 0.5: must be True or False"),
    ],
)
def test_what_has_no_translation_is_refused_by_name(change, message):
    configs = [torch_side.DataConfig(), torch_side.ModelConfig(), torch_side.TrainingConfig()]
    for name, value in change.items():
        owner = next(c for c in configs if hasattr(c, name))
        setattr(owner, name, value)
    with pytest.raises(ConfigError) as error:
        back(*configs)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_group_size_follows_the_grid_unless_given():
    assert torch_side.DataConfig(grid_size=(2, 2)).C == 4
    assert torch_side.DataConfig().C == 1


def test_settings_without_effect_are_named():
    data, model, training, inference = ptychodus()
    said = bridge.settings_without_effect(data, model, training, inference)
    assert any(line.startswith("ModelConfig.cbam_encoder = True") for line in said)
    assert not any("batch_size" in line for line in said)
    assert bridge.settings_without_effect(*(cls() for cls in THEIRS)) == []


def ptychodus():
    """The four configurations with every keyword that ptychodus 1.7.0 passes."""
    data = torch_side.DataConfig(
        N=128,
        C=4,
        normalize="Batch",
        neighbor_function="Nearest",
        scan_pattern="Isotropic",
        probe_normalize=True,
        x_bounds=(0.1, 0.9),
        y_bounds=(0.1, 0.9),
        min_neighbor_distance=0.0,
        max_neighbor_distance=3.0,
        K_quadrant=30,
        n_subsample=7,
        probe_scale=4.0,
        K=6,
        grid_size=(2, 2),
        probe_ramp_removal=False,
        data_scaling="Parseval",
        phase_subtraction=True,
    )
    model = torch_side.ModelConfig(
        mode="Unsupervised",
        object_big=True,
        probe_big=True,
        loss_function="Poisson",
        amp_activation="silu",
        cbam_encoder=True,
        decoder_last_amp_channels=4,
        use_shared_decoder=False,
        intensity_scale_trainable=False,
        intensity_scale=1e4,
        max_position_jitter=10,
        num_datasets=1,
        C_model=4,
        C_forward=4,
        amp_loss=None,
        phase_loss=None,
        amp_loss_coeff=0.0,
        phase_loss_coeff=0.0,
        n_filters_scale=2,
        probe_mask=None,
        eca_decoder=False,
        batch_norm=False,
        edge_pad=10,
        decoder_last_c_outer_fraction=0.125,
        cbam_bottleneck=False,
        cbam_decoder=False,
        spatial_decoder=False,
        decoder_spatial_kernel=7,
        eca_encoder=False,
        offset=6,
        probe_reference_coeff=0.0,
        amplitude_variance_loss=False,
        amplitude_variance_coeff=0.01,
    )
    training = torch_side.TrainingConfig(
        epochs=50,
        batch_size=16,
        learning_rate=1e-3,
        n_devices=1,
        num_workers=4,
        accum_steps=1,
        epochs_fine_tune=0,
        fine_tune_gamma=0.1,
        gradient_clip_val=None,
        nll=True,
        device="cuda",
        strategy="ddp_spawn",
        framework="Lightning",
        orchestrator="Lightning",
        scheduler="Cosine",
        warmup_epochs=0,
        min_lr_ratio=0.1,
        notes="",
        model_name="m",
        enable_staged_finetuning=False,
        finetune_stage1_epochs=5,
        finetune_stage2_epochs=5,
        finetune_stage3_epochs=5,
        finetune_stage1_lr_decoder=1e-4,
        finetune_stage2_lr_encoder_top=1e-5,
        finetune_stage2_lr_decoder=1e-4,
        finetune_stage2_lr_phase_head=1e-4,
        finetune_stage3_lr_encoder_bottom=1e-6,
        finetune_stage3_lr_encoder_top=1e-5,
        finetune_stage3_lr_decoder=1e-5,
        finetune_stage3_lr_phase_head=1e-5,
        finetune_skip_stage3=False,
        finetune_early_stop_patience=5,
        finetune_val_split=0.1,
    )
    inference = torch_side.InferenceConfig(
        batch_size=1000,
        middle_trim=32,
        experiment_number=0,
        patch_weighting="probe",
        pad_eval=True,
        window=20,
    )
    return data, model, training, inference


def test_the_specification_lists_what_is_not_mapped():
    spec = Path(__file__).resolve().parents[2] / "specs" / "configuration.md"
    text = spec.read_text(encoding="utf-8")
    for table in (bridge.OURS_UNMAPPED, bridge.THEIRS_UNMAPPED):
        assert "".join(f"| `{name}` | {reason} |\n" for name, reason in table.items()) in text

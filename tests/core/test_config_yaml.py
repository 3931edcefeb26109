"""YAML in and out: flag > file > default, nothing unknown passes, and what is written can be run again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho.config.config import ModelConfig, PyTorchExecutionConfig, TrainingConfig, load_yaml_config
from ptycho.config.yaml_io import dump_yaml, inference_config_from, training_config_from
from ptycho.errors import ConfigError, MissingFileError


def written(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_precedence_is_override_then_file_then_default(tmp_path):
    path = written(tmp_path, "nepochs: 7\nbatch_size: 4\nmodel: {N: 128}\nexecution: {devices: 2}\n")
    training, execution = training_config_from(load_yaml_config(path), {"nepochs": 9, "learning_rate": 0.01})
    assert (training.nepochs, training.batch_size, training.model.N) == (9, 4, 128)
    assert (execution.devices, execution.learning_rate) == (2, 0.01)
    assert training.neighbor_count == TrainingConfig().neighbor_count


def test_flat_and_nested_keys_mean_the_same(tmp_path):
    flat = training_config_from({"N": 96, "nepochs": 3, "precision": "bf16-mixed"}, {})
    nested = training_config_from(
        {"model": {"N": 96}, "nepochs": 3, "execution": {"precision": "bf16-mixed"}}, {}
    )
    assert flat == nested


def test_a_flag_wins_over_a_section_of_the_file():
    values = {"execution": {"scheduler": "OneCycle"}, "model": {"gridsize": 2}}
    training, execution = training_config_from(values, {"scheduler": "Exponential", "gridsize": 1})
    assert training.scheduler == "Exponential" and execution.scheduler is None
    assert training.model.gridsize == 1


@pytest.mark.parametrize(
    "values, message",
    [
        ({"nepoch": 3}, "run.yaml: unknown key 'nepoch'; nearest known: 'nepochs'"),
        ({"model": {"gridsze": 2}}, "run.yaml: unknown key 'model.gridsze'; nearest known: 'gridsize'"),
        ({"execution": {"N": 64}}, "run.yaml: unknown key 'execution.N'"),
        ({3: 4}, "run.yaml: unknown key '3'"),
        ({"model": 5}, "run.yaml: model = 5: must be a mapping"),
        ({"nepochs": "ten"}, "run.yaml: TrainingConfig.nepochs = 'ten': must be an integer >= 1"),
        (
            {"nphotons": "None"},
            "run.yaml: TrainingConfig.nphotons = 'None': must be a number > 0 or None; write null",
        ),
        (
            {"learning_rate": "fast"},
            "run.yaml: PyTorchExecutionConfig.learning_rate = 'fast': must be a number > 0",
        ),
        ({"N": 63}, "run.yaml: ModelConfig.N = 63: must be an even integer >= 32"),
        ({"N": 64, "model": {"N": 128}}, "run.yaml: 'N' is given twice: at the top and in 'model'"),
        ({"backend": ["pytorch"]}, "run.yaml: TrainingConfig.backend = ['pytorch']: must be one of"),
        (
            {"execution": {"prefetch_factor": 2}},
            "run.yaml: PyTorchExecutionConfig.prefetch_factor = 2: needs num_workers",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_file_named(values, message):
    with pytest.raises(ConfigError) as error:
        training_config_from(values, {}, source="run.yaml")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_override_is_refused_too():
    with pytest.raises(ConfigError, match="override: unknown key 'batchsize'; nearest known: 'batch_size'"):
        training_config_from({}, {"batchsize": 3}, source="run.yaml")


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "run.yaml: the file is empty"),
        ("# nothing\n", "run.yaml: the file is empty"),
        ("- a\n- b\n", "run.yaml: must hold 'key: value' lines, found a list"),
        ("just words\n", "run.yaml: must hold 'key: value' lines, found a str"),
        ("N: 64\nnepochs: 3\nN: 128\n", "run.yaml, line 3: 'N' is given twice"),
        ("N: 64\nmodel:\n  N: 64\n  N: 32\n", "run.yaml, line 4: 'N' is given twice"),
        ("model:\n\tN: 64\n", "run.yaml, line 2: tabs cannot indent YAML: use spaces"),
        ("N: [1, 2\nnepochs: 3\n", "run.yaml, line 2: "),
        ("a: 1\n---\nb: 2\n", "run.yaml, line 2: "),
        ("N: !!python/object/apply:os.system ['true']\n", "run.yaml, line 1: "),
        ("? [1, 2]\n: 3\n", "run.yaml, line 1: a key must be a plain word"),
        ("N: 64\x00\n", "run.yaml: "),
        ("N: " + "[" * 5000 + "\n", "run.yaml"),
    ],
)
def test_a_broken_file_gets_one_line_that_says_where(tmp_path, text, message):
    with pytest.raises(ConfigError) as error:
        load_yaml_config(written(tmp_path, text))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_a_folder_and_another_encoding_are_named(tmp_path):
    with pytest.raises(MissingFileError, match="nowhere.yaml: no such file"):
        load_yaml_config(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        load_yaml_config(tmp_path)
    path = tmp_path / "run.yaml"
    path.write_bytes(b"notes: \xff\xfe\xfa\n")
    with pytest.raises(ConfigError, match="run.yaml: not UTF-8 text"):
        load_yaml_config(path)


def test_numbers_as_people_write_them(tmp_path):
    path = written(tmp_path, "learning_rate: 1e-3\nnphotons: 1e9\nmae_weight: 1\nplateau_min_lr: 1.0e-7\n")
    training, execution = training_config_from(load_yaml_config(path), {})
    assert (execution.learning_rate, training.nphotons, training.plateau_min_lr) == (1e-3, 1e9, 1e-7)
    assert type(training.mae_weight) is float and training.mae_weight == 1.0


def test_inference_has_its_own_keys():
    config, execution = inference_config_from({"model_path": "run/wts.h5.zip", "num_workers": 2}, {"N": 128})
    assert (config.model_path, config.model.N, execution.num_workers) == (Path("run/wts.h5.zip"), 128, 2)
    with pytest.raises(ConfigError, match="unknown key 'nepochs'"):
        inference_config_from({"nepochs": 2}, {})


finite = st.floats(min_value=1e-12, max_value=1e12)


@settings(deadline=None, max_examples=50)
@given(
    n=st.integers(16, 300),
    nphotons=st.none() | finite,
    weight=finite,
    lr=finite,
    train=st.none() | st.text(min_size=1).map(Path),
    scheduler=st.sampled_from(("Default", "OneCycle")),
    big=st.booleans(),
    monitor=st.text(min_size=1),
)
def test_what_is_written_is_read_back_the_same(
    tmp_path_factory, n, nphotons, weight, lr, train, scheduler, big, monitor
):
    path = tmp_path_factory.getbasetemp() / "round.yaml"
    training = TrainingConfig(
        model=ModelConfig(N=2 * n, object_big=big),
        nphotons=nphotons,
        mae_weight=weight,
        train_data_file=train,
        scheduler=scheduler,
    )
    execution = PyTorchExecutionConfig(learning_rate=lr, checkpoint_monitor_metric=monitor)
    dump_yaml(training, execution, path)
    assert training_config_from(load_yaml_config(path), {}) == (training, execution)


def test_a_file_that_unfolds_to_billions_is_answered_in_one_short_line(tmp_path):
    lines = ["nepochs: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"b{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 40)]
    values = load_yaml_config(written(tmp_path, "\n".join(lines)))
    with pytest.raises(ConfigError) as error:
        training_config_from({"nepochs": values["b39"], "nphotons": 10**400}, {})
    assert len(str(error.value)) < 400
    with pytest.raises(ConfigError, match="TrainingConfig.nphotons = 1000.*: must be a number > 0"):
        training_config_from({"nphotons": 10**400}, {})


def test_what_could_not_be_read_back_is_not_written(tmp_path):
    with pytest.raises(ConfigError, match="ModelConfig.N = 0: must be an even integer"):
        dump_yaml(TrainingConfig(model=ModelConfig(N=0)), PyTorchExecutionConfig(), tmp_path / "run.yaml")
    assert not list(tmp_path.iterdir())


def test_writing_is_complete_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("old", encoding="utf-8")
    dump_yaml(TrainingConfig(), PyTorchExecutionConfig(), path)
    assert [p.name for p in tmp_path.iterdir()] == ["run.yaml"]
    values = load_yaml_config(path)
    assert set(values) >= {"model", "execution", "nepochs", "seed"}
    training, execution = inference_or_training = training_config_from(values, None)
    assert inference_or_training == (TrainingConfig(), PyTorchExecutionConfig())

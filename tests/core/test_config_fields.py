"""Field metadata is complete, and it is what the specification prints."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from ptycho.config.config import InferenceConfig, ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.config.fields import all_fields, allowed, coerce, describe_fields, field_table

CONFIGS = (ModelConfig, TrainingConfig, InferenceConfig, PyTorchExecutionConfig)
SPEC = Path(__file__).resolve().parents[2] / "specs" / "configuration.md"


@pytest.mark.parametrize("cls", CONFIGS)
def test_every_field_has_help_and_a_default_it_accepts_itself(cls):
    for info in describe_fields(cls):
        assert info.help, info.name
        assert coerce(info, info.default) == info.default


@pytest.mark.parametrize("cls", CONFIGS)
def test_describe_fields_covers_every_plain_field_in_order(cls):
    plain = [f.name for f in dataclasses.fields(cls) if f.name != "model"]
    assert [info.name for info in describe_fields(cls)] == plain
    assert [info.name for info in all_fields(cls)] == [f.name for f in dataclasses.fields(cls)]


def test_types_and_limits_are_read_from_the_field():
    info = {i.name: i for i in describe_fields(TrainingConfig)}
    assert (info["nphotons"].type_, info["nphotons"].optional, info["nphotons"].gt) == (float, True, 0)
    assert (info["debug"].type_, info["output_dir"].type_) == (bool, Path)
    assert info["backend"].choices == ("pytorch", "tensorflow")
    assert allowed({i.name: i for i in describe_fields(ModelConfig)}["N"]) == "an even integer >= 32"


@pytest.mark.parametrize("cls", CONFIGS)
def test_the_specification_prints_the_tables_made_from_the_metadata(cls):
    assert f"### {cls.__name__}\n\n{field_table(cls)}" in SPEC.read_text(encoding="utf-8")


def test_clients_may_build_change_and_pickle_unfinished_configurations():
    training = TrainingConfig(
        model=ModelConfig(N=0), train_data_file=Path(), test_data_file=None, output_dir=Path()
    )
    training.model.N = 64
    assert pickle.loads(pickle.dumps(training)) == training
    assert TrainingConfig().model is not TrainingConfig().model


def test_importing_the_configuration_loads_nothing_heavy():
    code = (
        "import sys, ptycho, ptycho.config.config, ptycho.clients.params, ptycho_torch.config_params, "
        "ptycho_torch.config_bridge; "
        "print(sorted({'numpy', 'yaml', 'torch', 'tensorflow', 'lightning', 'scipy'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_package_knows_its_version():
    import ptycho

    assert ptycho.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ptycho.nothing

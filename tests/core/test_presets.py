"""Presets and configuration groups: each key is a field, each preset a valid run; the user's word wins."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ptycho.cli import train
from ptycho.cli.console import Console
from ptycho.cli.main import build_parser, main
from ptycho.config.config import (
    ModelConfig,
    PyTorchExecutionConfig,
    TrainingConfig,
    validate_training_config,
)
from ptycho.config.yaml_io import load_yaml_config, training_config_from
from ptycho.errors import ConfigError
from ptycho.experiments import learned
from ptycho.experiments.presets import CONF, beneath, options, preset_values
from ptycho.simulation.scenario import Scenario

PRESETS = ("low_dose", "publication", "quick", "siemens", "single_shot")
FILES = sorted(
    path for path in CONF.rglob("*.yaml") if path.parent != CONF and CONF / "learned" not in path.parents
)
GROUPS_OF_TOOLS = sorted((CONF / "learned").glob("*/*/*.yaml"))
_CLASSES = {
    "_global_": TrainingConfig,
    "model": ModelConfig,
    "execution": PyTorchExecutionConfig,
    "scenario": Scenario,
}
Capture = pytest.CaptureFixture[str]


def keys_of(path: Path) -> Iterator[tuple[type, str]]:
    """Each key of a group file with the dataclass it belongs to."""
    package = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# @package ")
    values = {k: v for k, v in load_yaml_config(path).items() if k != "defaults"}
    for key, value in values.items():
        if package == "_global_" and key in _CLASSES:
            for name in value if isinstance(value, Mapping) else ():
                yield _CLASSES[key], name
        else:
            yield _CLASSES[package], key


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_key_of_a_group_is_a_field(path: Path) -> None:
    for cls, name in keys_of(path):
        assert name in {field.name for field in dataclasses.fields(cls)}, f"{name} is no field of {cls}"


@pytest.mark.parametrize("path", GROUPS_OF_TOOLS, ids=lambda path: "/".join(path.parts[-3:]))
def test_every_group_of_a_learned_tool_composes(path: Path) -> None:
    pytest.importorskip("hydra")
    tool, group = path.parts[-3:-1]
    found = learned.points(tool, [f"{group}={path.stem}"], multirun=False)
    assert len(found) == 1 and isinstance(found[0][1], learned.TOOLS[tool])


def test_the_presets_that_are_promised() -> None:
    assert options("preset") == PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_valid_run_that_differs_from_the_default(name: str) -> None:
    config, execution = training_config_from(preset_values(name), source=name)
    validate_training_config(config, require_files=False)
    assert (config, execution) != (TrainingConfig(), PyTorchExecutionConfig())
    assert (config.train_data_file, config.output_dir) == (None, TrainingConfig().output_dir)


def test_unknown_preset_names_the_nearest(capsys: Capture) -> None:
    with pytest.raises(ConfigError, match="unknown preset 'quik'; nearest known: 'quick'; known: low_dose"):
        preset_values("quik")
    assert main(["train", "a.npz", "--preset", "quik"]) == 2
    assert "nearest known: 'quick'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../../config", "preset/quick", ""])
def test_a_preset_is_a_name_not_a_path(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown preset"):
        preset_values(name)


def configure(*words: str) -> tuple[TrainingConfig, PyTorchExecutionConfig, bool]:
    arguments = build_parser(train, "ptycho train").read(list(words))
    return train.configure(arguments, Console("ptycho train"))[:3]


class TestPrecedence:
    """flag > YAML > preset > default."""

    def test_preset_over_default(self) -> None:
        config, execution, n_is_fixed = configure("a.npz", "--preset", "quick")
        want = preset_values("quick")
        assert config.nepochs == want["nepochs"] != TrainingConfig().nepochs
        assert execution.learning_rate == float(want["execution"]["learning_rate"])
        assert config.batch_size == TrainingConfig().batch_size and not n_is_fixed

    @pytest.mark.parametrize("text", ["learning_rate: 5e-4", "execution: {learning_rate: 5e-4}"])
    def test_yaml_over_preset_flat_or_in_a_section(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "run.yaml"
        path.write_text(f"nepochs: 7\n{text}\n")
        config, execution, _ = configure("a.npz", "--preset", "quick", "--config", str(path))
        assert (config.nepochs, execution.learning_rate) == (7, 5e-4)
        assert config.scheduler == preset_values("quick")["scheduler"]

    def test_flag_over_all(self, tmp_path: Path) -> None:
        path = tmp_path / "run.yaml"
        path.write_text("nepochs: 7\n")
        words = f"a.npz --preset quick --config {path} --nepochs 9 --learning_rate 1e-5".split()
        config, execution, _ = configure(*words)
        assert (config.nepochs, execution.learning_rate) == (9, 1e-5)

    def test_the_yaml_of_a_finished_run_is_complete_so_a_preset_adds_nothing(self, tmp_path: Path) -> None:
        from ptycho.config.yaml_io import dump_yaml

        path = tmp_path / "config.yaml"
        dump_yaml(TrainingConfig(nepochs=3), PyTorchExecutionConfig(), path)
        config, execution, _ = configure("--config", str(path), "--preset", "publication")
        assert (config, execution) == (TrainingConfig(nepochs=3), PyTorchExecutionConfig())

    def test_execution_scheduler_of_the_yaml_over_the_preset_s(self, tmp_path: Path) -> None:
        path = tmp_path / "run.yaml"
        path.write_text("execution: {scheduler: OneCycle}\n")
        config, execution, _ = configure("a.npz", "--preset", "quick", "--config", str(path))
        assert (config.scheduler, execution.scheduler) == ("WarmupCosine", "OneCycle")

    def test_errors_of_the_yaml_stay_what_they_are(self, tmp_path: Path) -> None:
        path = tmp_path / "run.yaml"
        path.write_text("execution: 3\n")
        with pytest.raises(ConfigError, match="execution = 3: must be a mapping"):
            configure("a.npz", "--preset", "quick", "--config", str(path))


def test_beneath_leaves_both_mappings_as_they_were() -> None:
    preset: dict[str, Any] = {"nepochs": 1, "execution": {"learning_rate": 1e-3, "accelerator": "cpu"}}
    values: dict[str, Any] = {"learning_rate": 2e-3, "execution": {"precision": "32-true"}}
    assert beneath(preset, values) == {
        "nepochs": 1,
        "learning_rate": 2e-3,
        "execution": {"accelerator": "cpu", "precision": "32-true"},
    }
    assert preset["execution"] == {"learning_rate": 1e-3, "accelerator": "cpu"}
    assert values == {"learning_rate": 2e-3, "execution": {"precision": "32-true"}}


def test_presets_need_no_hydra() -> None:
    code = (
        "import sys; sys.modules['hydra'] = sys.modules['omegaconf'] = None\n"
        "from ptycho.experiments.presets import options, preset_values\n"
        "assert all(preset_values(name) for name in options('preset'))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_each_preset_has_its_line_in_the_documentation() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "workflows" / "experiments.md"
    text = page.read_text(encoding="utf-8")
    assert [name for name in PRESETS if f"| `{name}` |" not in text] == []

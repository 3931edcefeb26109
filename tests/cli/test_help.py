"""Help of one screen a command, completion, and what is said of an unknown word."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ptycho.cli import train
from ptycho.cli.console import Console
from ptycho.cli.help import EVERYDAY
from ptycho.cli.main import COMMANDS, build_parser, load_command, main
from ptycho.cli.simulate import MEANINGS
from ptycho.config.config import InferenceConfig, ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.config.fields import describe_fields

ROOT = Path(__file__).resolve().parents[2]
Capture = pytest.CaptureFixture[str]


def configure(*words: str) -> tuple[TrainingConfig, PyTorchExecutionConfig, bool]:
    arguments = build_parser(train, "ptycho train").read(list(words))
    return train.configure(arguments, Console("ptycho train"))[:3]


class TestHelp:
    def test_overview_names_every_command(self, capsys: Capture) -> None:
        assert main(["--help"]) == 0
        shown = capsys.readouterr().out
        assert all(re.search(rf"^  {name} ", shown, re.MULTILINE) for name in COMMANDS)

    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_command_answers(self, name: str, capsys: Capture) -> None:
        assert main([name, "--help"]) == 0
        shown = capsys.readouterr().out
        assert f"ptycho {name}" in shown and "--quiet" in shown and "--debug" in shown

    @pytest.mark.parametrize(
        "name, classes",
        [
            ("train", (TrainingConfig, ModelConfig, PyTorchExecutionConfig)),
            ("infer", (InferenceConfig, PyTorchExecutionConfig)),
        ],
    )
    def test_every_field_is_a_flag(self, name: str, classes: tuple[type, ...], capsys: Capture) -> None:
        main([name, "--help-all"])
        shown = capsys.readouterr().out
        fields = [i.name for cls in classes for i in describe_fields(cls)]
        missing = {field for field in fields if f"--{field}" not in shown}
        machine = {i.name for i in describe_fields(PyTorchExecutionConfig)}
        own = {"accelerator", "devices", "patterns", "inference_batch_size"}
        assert missing == (machine - own if name == "infer" else set())

    @pytest.mark.parametrize("name", COMMANDS)
    def test_a_page_of_help_fits_a_screen(
        self, name: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "100")
        assert main([name, "--help"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) <= 40 and max(map(len, lines)) <= 100

    def test_everyday_flags_are_flags(self) -> None:
        for name, groups in EVERYDAY.items():
            known = {action.dest for action in build_parser(load_command(name), name)._actions}
            assert {flag for flags in groups.values() for flag in flags} <= known, name

    @pytest.mark.parametrize("shell", ["bash", "zsh"])
    def test_completion_knows_commands_flags_and_choices(self, shell: str, capsys: Capture) -> None:
        pytest.importorskip("shtab")
        assert main(["--print-completion", shell]) == 0
        shown = capsys.readouterr().out
        assert all(word in shown for word in ("reconstruct", "--max_time_s", "WarmupCosine"))
        assert main(["--print-completion", "fish"]) == 2
        assert "give bash or zsh" in capsys.readouterr().err

    def test_every_scenario_field_is_a_flag(self) -> None:
        from ptycho.simulation.scenario import Scenario

        assert list(MEANINGS) == [field.name for field in dataclasses.fields(Scenario)]

    @pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["train", "a.npz", "--N", "1"]])
    def test_no_backend_is_loaded(self, words: list[str]) -> None:
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "ptycho.cli", *words],
            capture_output=True, text=True, cwd=ROOT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
        assert "ptycho.cli.main" in loaded
        heavy = {"torch", "lightning", "tensorflow", "keras", "scipy", "matplotlib", "skimage", "rich"}
        assert loaded.isdisjoint(heavy)

    def test_version(self, capsys: Capture) -> None:
        assert main(["--version"]) == 0
        assert capsys.readouterr().out.startswith("ptychopinn ")

    def test_no_command_is_a_usage_error(self) -> None:
        assert main([]) == 2

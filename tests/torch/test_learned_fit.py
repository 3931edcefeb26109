"""The trainer of the learned tools, with a task that fits a line: what it leaves, resume, refusals."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ptycho.cli.main import main as ptycho
from ptycho.config.fields import option
from ptycho.config.learned import LearnedSettings, settings_from
from ptycho.errors import ConfigError, MissingFileError
from ptycho.experiments import learned as composed
from ptycho.io.tensors import read_tensors, write_tensors
from ptycho.report.style import new_figure
from ptycho.workflows import learned as workflow
from ptycho_torch.learned import Task, fit

Figure = Any


@dataclasses.dataclass(frozen=True)
class Noise:
    """What a line is drawn with."""

    level: float = option(0.1, ge=0, help="standard deviation")


@dataclasses.dataclass(frozen=True)
class LineSettings(LearnedSettings):
    """A line y = 3 x + 1."""

    exports: ClassVar[tuple[str, ...]] = ("line.safetensors",)
    epochs: int = option(4, ge=1, help="epochs")
    steps_per_epoch: int = option(5, ge=1, help="steps")
    data: Noise = option(Noise, help="noise")


class Line(Task[LineSettings]):
    """Fits slope and offset."""

    name = "line"
    terms = {"square": 1.0, "size": 0.0}
    bar = ("train_loss", "val/loss", "val/slope")
    broken = False

    def build(self) -> nn.Module:
        network = nn.Linear(1, 1)
        made = torch.Generator().manual_seed(self.settings.seed)
        with torch.no_grad():
            for value in network.parameters():
                value.copy_(torch.randn(value.shape, generator=made))
        return network

    def batch(self, epoch: int, step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.settings.seed, epoch, step])
        x = torch.from_numpy(rng.normal(size=(8, 1)).astype(np.float32))
        noise = torch.from_numpy(rng.normal(size=(8, 1)).astype(np.float32))
        return {"x": x, "y": 3 * x + 1 + self.settings.data.level * noise}

    def losses(self, network: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            "square": ((network(batch["x"]) - batch["y"]) ** 2).mean(),
            "size": sum(((value**2).sum() for value in network.parameters()), torch.zeros(())),
        }

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        if self.broken:
            raise ValueError("no numbers")
        x = torch.linspace(-1, 1, 9)[:, None]
        with torch.no_grad():
            off = network(x) - (3 * x + 1)
        return {"loss": float((off**2).mean()), "slope": float(network.get_parameter("weight").detach())}

    def shown(self, network: nn.Module) -> dict[str, Figure]:
        return {"line": new_figure(1, 1)}

    def export(self, network: nn.Module, folder: Path) -> list[Path]:
        path = folder / "line.safetensors"
        write_tensors(path, {n: v.detach().numpy() for n, v in network.named_parameters()}, {})
        return [path]


def settings(folder: Path, **more: Any) -> LineSettings:
    given = {"output_dir": folder, "learning_rate": 0.1, "warmup_steps": 0, "accelerator": "cpu", **more}
    return settings_from(LineSettings, given, "test")


def trained(folder: Path, **more: Any) -> dict[str, np.ndarray]:
    made = settings(folder, **more)
    fit(Line(made), made)
    return read_tensors(folder / "line.safetensors")[0]


def test_a_training_leaves_what_it_promises(tmp_path: Path) -> None:
    made = settings(tmp_path)
    told: list[dict[str, float]] = []
    found = fit(Line(made), made, lambda done, total, numbers: told.append(numbers))
    assert [sorted(numbers) for numbers in told] == [["train_loss", "val/loss", "val/slope"]] * 4
    rows = list(csv.DictReader((tmp_path / "logs" / "metrics.csv").open()))
    assert len(rows) == 4 and {"loss/square", "loss/size", "val/slope", "train_loss"} <= set(rows[0])
    assert json.loads((tmp_path / "history.json").read_text())["val/loss"] == found.history["val/loss"]
    assert found.best["loss"] == pytest.approx(min(found.history["val/loss"]), rel=1e-5)
    pictures = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert pictures == [f"line_{number:03d}.png" for number in (1, 2, 3, 4)]
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
    assert "end: done after 4 epochs" in (tmp_path / "training.log").read_text()


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    one, two, other = (trained(tmp_path / n, seed=s) for n, s in (("a", 0), ("b", 0), ("c", 1)))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert not np.array_equal(one["weight"], other["weight"])


class Stopped(Line):
    """Is stopped in its third epoch."""

    def batch(self, epoch: int, step: int) -> dict[str, Tensor]:
        if epoch == 2 and step == 3:
            raise RuntimeError("killed")
        return super().batch(epoch, step)


def test_a_training_that_was_stopped_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")
    made = settings(tmp_path / "part")
    with pytest.raises(RuntimeError, match="killed"):
        fit(Stopped(made), made)
    part = trained(tmp_path / "part", resume=True)
    assert all(np.array_equal(whole[name], part[name]) for name in whole)
    logs = [(tmp_path / name / "history.json").read_text() for name in ("whole", "part")]
    assert logs[0] == logs[1]


def test_a_resume_with_another_setting_is_refused(tmp_path: Path) -> None:
    trained(tmp_path)
    with pytest.raises(ConfigError, match=r"data\.level=0\.5: .* was begun with 0\.1"):
        trained(tmp_path, resume=True, data={"level": 0.5})
    with pytest.raises(MissingFileError, match="holds no training"):
        trained(tmp_path / "elsewhere", resume=True)


def test_weights_of_terms_count(tmp_path: Path) -> None:
    plain, small = trained(tmp_path / "a"), trained(tmp_path / "b", loss_weights={"size": 10.0})
    assert abs(small["weight"]) < 0.5 * abs(plain["weight"])
    with pytest.raises(ConfigError, match=r"loss_weights\.sise: no such term; nearest known: 'size'"):
        trained(tmp_path / "c", loss_weights={"sise": 1.0})


def test_an_evaluation_that_fails_is_told_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = settings(tmp_path)
    task = Line(made)
    seen: list[int] = []

    def once(done: int, total: int, numbers: dict[str, float]) -> None:
        seen.append(done)
        task.broken = done == 1

    fit(task, made, once)
    assert seen == [1, 2, 3, 4]
    assert "line: the evaluation failed (ValueError: no numbers)" in caplog.text


class FailsAtSeedOne(Line):
    """Cannot be evaluated nor trained with seed 1."""

    def batch(self, epoch: int, step: int) -> dict[str, Tensor]:
        if self.settings.seed == 1:
            raise ValueError("seed 1 is broken")
        return super().batch(epoch, step)


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tool `line`, with groups of its own."""
    groups = tmp_path / "conf"
    (groups / "data").mkdir(parents=True)
    (groups / "config.yaml").write_text("defaults:\n  - schema\n  - data: clean\n  - _self_\n")
    (groups / "data" / "clean.yaml").write_text("level: 0.0\n")
    (groups / "data" / "noisy.yaml").write_text("level: 1.0\n")
    monkeypatch.setitem(composed.TOOLS, "line", LineSettings)
    monkeypatch.setitem(workflow.TASKS, "line", Line)
    monkeypatch.setattr(composed, "folder_of", lambda tool: groups)


@pytest.mark.usefixtures("known")
class TestCommand:
    def test_groups_overrides_and_sweeps(self, tmp_path: Path) -> None:
        words = ["model=line", "data=noisy", "seed=3,4", "loss_weights.size=2"]
        found = composed.points("line", words, multirun=True)
        assert [(made.seed, made.data.level) for _, made in found] == [(3, 1.0), (4, 1.0)]  # type: ignore[attr-defined]
        assert found[0][1].loss_weights == {"size": 2.0}

    @pytest.mark.parametrize(
        "word, message",
        [
            ("epoch=3", "model=line: unknown key 'epoch'; nearest known: 'epochs'"),
            ("data.levle=3", "unknown key 'data.levle'; nearest known: 'data.level'"),
            ("epochs=0", "epochs = 0: must be an integer >= 1"),
            ("data=none", "unknown option data=none"),
        ],
    )
    def test_what_is_unknown_is_refused_in_one_line(
        self, word: str, message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert ptycho(["sweep", "model=line", word]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1

    def test_one_failing_run_of_a_sweep_does_not_end_the_others(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setitem(workflow.TASKS, "line", FailsAtSeedOne)
        out = tmp_path / "out"
        words = [
            "model=line",
            "seed=0,1,2",
            f"output_dir={out}",
            "epochs=1",
            "logger=none",
            "accelerator=cpu",
        ]
        assert ptycho(["sweep", *words, "--multirun"]) == 1
        said = capsys.readouterr()
        assert said.out.count("trained      line, 1 epochs") == 2
        assert "1 of 3 runs failed: 1_seed=1 (ValueError: seed 1 is broken)" in said.err.splitlines()[-1]
        made = sorted(path.name for path in out.iterdir())
        assert [(out / name / "line.safetensors").exists() for name in made] == [True, False, True]
        assert [json.loads((out / name / "provenance.json").read_text())["state"] for name in made] == [
            "done", "failed", "done",
        ]  # fmt: skip

    def test_a_run_and_its_record(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "out"
        words = ["sweep", "model=line", f"output_dir={out}", "epochs=2", "logger=none", "accelerator=cpu"]
        assert ptycho(words) == 0
        said = capsys.readouterr().out
        assert "trained      line, 2 epochs" in said and str(out / "line.safetensors") in said
        assert json.loads((out / "provenance.json").read_text())["state"] == "done"
        assert ptycho([*words, "resume=true"]) == 0

    def test_a_new_training_that_is_broken_off_leaves_no_weights_of_the_one_before(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "out"
        words = ["sweep", "model=line", f"output_dir={out}", "epochs=3", "logger=none", "accelerator=cpu"]
        assert ptycho(words) == 0
        before = (out / "line.safetensors").read_bytes()
        monkeypatch.setitem(workflow.TASKS, "line", Stopped)
        assert ptycho([*words, "seed=1"]) != 0
        assert not (out / "line.safetensors").exists()
        assert (out / "products.earlier" / "line.safetensors").read_bytes() == before
        assert json.loads((out / "provenance.json").read_text())["state"] == "failed"

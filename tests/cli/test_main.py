"""Precedence, spellings, exit codes, silence, and how little `--help` loads."""

from __future__ import annotations

import io
import logging
import re
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as RichConsole

from ptycho.cli import bars, infer, train
from ptycho.cli.console import Console
from ptycho.cli.main import COMMANDS, build_parser, load_command, main, run_command
from ptycho.cli.parser import UsageError
from ptycho.config.config import PyTorchExecutionConfig, TrainingConfig
from ptycho.config.defaults import TRAINS_WELL
from ptycho.errors import DataError, MissingDependencyError, RunError

ROOT = Path(__file__).resolve().parents[2]
Capture = pytest.CaptureFixture[str]


def configure(*words: str) -> tuple[TrainingConfig, PyTorchExecutionConfig, bool]:
    arguments = build_parser(train, "ptycho train").read(list(words))
    return train.configure(arguments, Console("ptycho train"))[:3]


class TestPrecedence:
    @pytest.fixture
    def yaml(self, tmp_path: Path) -> str:
        path = tmp_path / "run.yaml"
        path.write_text(
            "nepochs: 7\nprobe_trainable: true\nbatch_size: 8\n"
            "model: {n_filters_scale: 3}\nexecution: {learning_rate: 5e-4}\n"
        )
        return str(path)

    def test_default(self) -> None:
        config, execution, n_is_fixed = configure("scan.npz")
        own = {name: value for name, value in TRAINS_WELL.items() if name != "learning_rate"}
        want = TrainingConfig(train_data_file=Path("scan.npz"), **own)
        assert config == want and execution == PyTorchExecutionConfig(learning_rate=2e-3) and not n_is_fixed

    def test_yaml_over_default(self, yaml: str) -> None:
        config, execution, _ = configure("scan.npz", "--config", yaml)
        assert (config.nepochs, config.batch_size, config.probe_trainable) == (7, 8, True)
        assert (config.model.n_filters_scale, execution.learning_rate) == (3, 5e-4)

    def test_flag_over_yaml(self, yaml: str) -> None:
        words = "--nepochs 50 --no-probe_trainable --n_filters_scale 2 --learning_rate 1e-3"
        config, execution, _ = configure("scan.npz", "--config", yaml, *words.split())
        assert (config.nepochs, config.probe_trainable, config.batch_size) == (50, False, 8)
        assert (config.model.n_filters_scale, execution.learning_rate) == (2, 1e-3)

    def test_typed_none_over_yaml(self, tmp_path: Path) -> None:
        path = tmp_path / "run.yaml"
        path.write_text("gradient_clip_val: 2.0\n")
        assert configure("a.npz", "--config", str(path))[0].gradient_clip_val == 2.0
        config, _, _ = configure("a.npz", "--config", str(path), "--gradient_clip_val", "none")
        assert config.gradient_clip_val is None

    @pytest.mark.parametrize("text", ["N: 64", "model: {N: 64}"])
    def test_n_comes_from_the_scan_unless_somebody_says_it(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "run.yaml"
        path.write_text(text)
        assert configure("a.npz", "--config", str(path))[2]
        assert configure("a.npz", "--N", "64")[2]
        assert not configure("a.npz", "--gridsize", "2")[2]


class TestSpellings:
    def test_underscore_and_hyphen(self) -> None:
        for words in (("--n_groups", "5"), ("--n-groups", "5"), ("--n-groups=5",), ("--n_groups=5",)):
            assert configure("a.npz", *words)[0].n_groups == 5

    def test_booleans(self) -> None:
        for words, want in {
            "--object_big": True, "--no-object_big": False, "--no-object-big": False, "--no_object_big": False
        }.items():  # fmt: skip
            assert configure("a.npz", words)[0].model.object_big is want

    def test_retired_flags_work_and_warn(self, capsys: Capture) -> None:
        _, execution, _ = configure("a.npz", "--device", "cpu", "--disable_mlflow")
        assert (execution.accelerator, execution.logger_backend) == ("cpu", "none")
        shown = capsys.readouterr().err
        assert "--device is an old flag: use --accelerator" in shown
        assert "--disable_mlflow is an old flag: use --logger none" in shown

    @pytest.mark.parametrize(
        "words, field, value, today",
        [
            (("--test_data", "b.npz"), "test_data_file", Path("b.npz"), "--test_data_file"),
            (("--max_epochs=7",), "nepochs", 7, "--nepochs"),
            (("--torch-accelerator", "cpu"), "accelerator", "cpu", "--accelerator"),
            (("--torch-num-workers", "2"), "num_workers", 2, "--num_workers"),
            (("--torch-logger", "tensorboard"), "logger_backend", "tensorboard", "--logger"),
            (("--torch-learning-rate", "1e-4"), "learning_rate", 1e-4, "--learning_rate"),
        ],
    )
    def test_flags_of_older_scripts_work_and_name_todays(
        self, words: tuple[str, ...], field: str, value: Any, today: str, capsys: Capture
    ) -> None:
        config, execution, _ = configure("a.npz", *words)
        assert getattr(config if hasattr(config, field) else execution, field) == value
        old = words[0].partition("=")[0].replace("-", "_").replace("__", "--", 1)
        assert f"{old} is an old flag: use {today}\n" in capsys.readouterr().err

    def test_todays_flag_wins_over_an_old_one(self) -> None:
        assert configure("a.npz", "--nepochs", "3", "--max_epochs", "7")[0].nepochs == 3

    @pytest.mark.parametrize(
        "words",
        [("--do_stitching",), ("--do_stitching", "True"), ("--comparison_plot",), ("--phase_vmin", "-3.14"),
         ("--phase_vmax", "3.14")],
    )  # fmt: skip
    def test_flags_without_effect_are_accepted_and_say_why(
        self, words: tuple[str, ...], capsys: Capture
    ) -> None:
        assert configure("a.npz", *words)[:2] == configure("a.npz")[:2]
        arguments = build_parser(infer, "ptycho infer").read(["--model", "m", "--data", "b.npz", *words])
        infer.configure(arguments, Console("ptycho infer"))
        assert capsys.readouterr().err.count(f"{words[0]} is an old flag without effect: ") == 2

    def test_old_test_data_of_inference(self) -> None:
        arguments = build_parser(infer, "ptycho infer").read(["--model_path", "m", "--test_data", "b.npz"])
        assert infer.configure(arguments, Console("ptycho infer"))[0].test_data_file == Path("b.npz")

    def test_booleans_with_a_value_are_understood(self) -> None:
        for words, want in {
            ("--object_big", "True"): True, ("--object_big", "False"): False, ("--object-big", "0"): False,
            ("--object_big", "1"): True, ("--object_big=false",): False,
        }.items():  # fmt: skip
            config = configure("--train_data_file", "a.npz", *words, "--nepochs", "3")[0]
            assert (config.model.object_big, config.nepochs) == (want, 3)

    def test_old_flags_are_not_advertised(self, capsys: Capture) -> None:
        main(["train", "--help"])
        assert not {"--max_epochs", "--torch_logger", "--device"} & set(
            re.split(r"[\s,]+", capsys.readouterr().out)
        )
        with pytest.raises(UsageError, match="nearest known: --nepochs"):
            configure("a.npz", "--epochs", "5")

    def test_a_distant_flag_gets_no_suggestion(self) -> None:
        with pytest.raises(UsageError, match="^unknown flag --zzqq; see ptycho train --help-all$"):
            configure("a.npz", "--zzqq", "5")

    def test_defaults_that_train_well_stand_under_flags_and_not_under_a_file(self, tmp_path: Path) -> None:
        config, execution, _ = configure("a.npz", "--nepochs", "5")
        assert (config.nepochs, config.scheduler, config.gradient_clip_val) == (5, "WarmupCosine", 1.0)
        assert execution.learning_rate == 2e-3
        (tmp_path / "c.yaml").write_text("batch_size: 8\n")
        config, execution, _ = configure("a.npz", "--config", str(tmp_path / "c.yaml"))
        assert (config.nepochs, config.scheduler, config.gradient_clip_val) == (50, "Default", None)
        assert execution.learning_rate == 1e-3

    def test_aliases(self) -> None:
        config, execution, _ = configure(
            "--train_data_file", "a.npz", "--test", "b.npz", "-o", "out", "--logger", "csv"
        )
        assert (config.train_data_file, config.test_data_file) == (Path("a.npz"), Path("b.npz"))
        assert (config.output_dir, execution.logger_backend) == (Path("out"), "csv")

    def test_inference(self) -> None:
        words = ["--model", "m", "--data", "b.npz", "-o", "out", "--inference_batch_size", "4"]
        arguments = build_parser(infer, "ptycho infer").read(words)
        config, execution = infer.configure(arguments, Console("ptycho infer"))
        assert (config.model_path, config.test_data_file) == (Path("m"), Path("b.npz"))
        same = build_parser(infer, "ptycho infer").read(["b.npz", "--model", "m"])
        assert infer.configure(same, Console("ptycho infer"))[0].test_data_file == Path("b.npz")
        with pytest.raises(UsageError, match="--nepochs|ptycho train"):
            build_parser(infer, "ptycho infer").read(["b.npz", "--learning_rate", "1"])
        assert execution.inference_batch_size == 4


def command_that(act: Callable[[Any, Console], Any]) -> types.ModuleType:
    module = types.ModuleType("ptycho.cli.probe")
    module.__dict__.update(HELP="", add_arguments=lambda parser: None, run=act)
    return module


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a function as if it were a command of `ptycho`."""

    def call(act: Callable[[Any, Console], Any], *words: str) -> int:
        monkeypatch.setitem(COMMANDS, "probe", command_that(act))
        return run_command("probe", list(words), prog="ptycho probe")

    return call


def raising(error: BaseException) -> Callable[[Any, Console], None]:
    def act(arguments: Any, console: Console) -> None:
        raise error

    return act


class TestExitCodes:
    @pytest.mark.parametrize(
        "error, code, message",
        [
            (DataError("a.npz: bad\nnews"), 2, "ptycho probe: error: a.npz: bad news\n"),
            (MissingDependencyError("install it"), 2, "ptycho probe: error: install it\n"),
            (RunError("diverged"), 1, "ptycho probe: error: diverged\n"),
            (OSError(28, "No space left"), 1, "error: the disk is full; free some space"),
            (KeyError("x"), 1, "error: KeyError: 'x'; rerun with --debug for the traceback\n"),
            (MemoryError(), 1, "out of memory"),
            (KeyboardInterrupt(), 130, "ptycho probe: interrupted; nothing was written\n"),
        ],
    )
    def test_one_line_each(
        self, run: Callable[..., int], capsys: Capture, error: BaseException, code: int, message: str
    ) -> None:
        assert run(raising(error)) == code
        shown = capsys.readouterr().err
        assert message in shown and shown.strip().count("\n") == 0

    def test_interrupted_training_says_what_is_kept(
        self, run: Callable[..., int], tmp_path: Path, capsys: Capture
    ) -> None:
        def act(arguments: Any, console: Console) -> None:
            console.output = tmp_path
            (tmp_path / "config.yaml").touch()
            (tmp_path / "checkpoints").mkdir()
            (tmp_path / "checkpoints" / "last.ckpt").touch()
            raise KeyboardInterrupt

        assert run(act) == 130
        want = f"{tmp_path} keeps checkpoints, config.yaml; go on with --resume {tmp_path}\n"
        assert capsys.readouterr().err.endswith(want)

    def test_interrupt_that_lightning_turned_into_an_exit(self, run: Callable[..., int]) -> None:
        def act(arguments: Any, console: Console) -> None:
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt:
                sys.exit(1)

        assert run(act) == 130

    def test_success_and_own_code(self, run: Callable[..., int]) -> None:
        assert run(lambda arguments, console: None) == 0
        assert run(lambda arguments, console: 2) == 2

    def test_debug_shows_the_traceback(self, run: Callable[..., int], capsys: Capture) -> None:
        assert run(raising(ValueError("odd")), "--debug") == 1
        shown = capsys.readouterr().err
        assert "Traceback" in shown and shown.endswith("ptycho probe: error: ValueError: odd\n")


def talk(arguments: Any, console: Console) -> None:
    console.say("result")
    console.warn("careful")
    logging.getLogger("ptycho.scan.raw_data").info("unit: counts")
    warnings.warn("n_images is old", DeprecationWarning, stacklevel=1)
    with console.progress("work") as progress:
        progress(1, 2)
        progress(2, 2, {"loss": 0.5})


class TestConsole:
    def test_result_on_stdout_the_rest_on_stderr(self, run: Callable[..., int], capsys: Capture) -> None:
        assert run(talk) == 0
        shown = capsys.readouterr()
        assert shown.out == "result\n"
        assert "warning: careful" in shown.err and "unit: counts" not in shown.err
        assert "\x1b" not in shown.err
        assert run(talk, "--debug") == 0
        assert "unit: counts" in capsys.readouterr().err

    def test_without_a_terminal_a_line_a_minute(
        self, run: Callable[..., int], capsys: Capture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(bars, "HEARTBEAT_S", 0.0)
        assert run(talk) == 0
        assert "ptycho probe: work 2 of 2, loss 0.5" in capsys.readouterr().err

    def test_bars_and_lines_share_one_console(self, capsys: Capture) -> None:
        drawn = io.StringIO()
        screen = RichConsole(file=drawn, force_terminal=True, width=80)
        with bars.terminal_bars(screen, lambda: None) as phase:
            phase("reading")
            training = phase("training")
            for done in range(3):
                training(done, 3, {"val_loss": 1.0 / (done + 1)})
                screen.print("a line of the log")
        shown = drawn.getvalue()
        assert "training" in shown and "0/?" not in shown and ", better" in shown
        lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).strip() for line in shown.split("\n")]
        assert sum(line.split("\r")[-1] == "a line of the log" for line in lines) == 3

    def test_quiet_prints_nothing(self, run: Callable[..., int], capsys: Capture) -> None:
        assert run(talk, "--quiet") == 0
        assert capsys.readouterr() == ("", "")
        assert run(raising(RunError("diverged")), "--quiet") == 1
        assert capsys.readouterr() == ("", "ptycho probe: error: diverged\n")

    @pytest.mark.filterwarnings("ignore:n_images is old")
    def test_logging_and_warnings_are_left_as_they_were(self, run: Callable[..., int]) -> None:
        logger = logging.getLogger("ptycho")
        before = (logger.level, list(logger.handlers), list(warnings.filters), warnings.showwarning)
        run(talk, "--debug")
        assert (logger.level, list(logger.handlers), list(warnings.filters), warnings.showwarning) == before


def test_commands_are_modules_with_the_three_names() -> None:
    for name in COMMANDS:
        module = load_command(name)
        assert module.HELP and callable(module.add_arguments) and callable(module.run) and module.__doc__


class TestShortCommands:
    def test_simulate_writes_a_scan_and_its_truth(self, tmp_path: Path, capsys: Capture) -> None:
        import numpy as np

        out = tmp_path / "deep" / "scan.npz"
        words = f"simulate -o {out} --N 32 --n_positions 16 --amp_range 0.5 1 --photons 1e4 --seed 3"
        assert main(words.split()) == 0
        with np.load(out) as scan:
            assert scan["diff3d"].shape == (16, 32, 32)
            assert {"object_true", "probe_true", "roi", "xcoords", "probeGuess"} <= set(scan.files)
        assert str(out) in capsys.readouterr().out

    def test_validate_tells_what_a_scan_is(self, tmp_path: Path, capsys: Capture) -> None:
        import json

        scan = str(tmp_path / "scan.npz")
        main(["simulate", "--quiet", "-o", scan, "--N", "32", "--n_positions", "49"])
        assert main(["validate", scan]) == 0
        shown = capsys.readouterr().out
        for told in ("49 of 32 x 32 px", "counts (integer dtype int32)", "overlap", "photons", "usable"):
            assert told in shown
        assert main(["validate", scan, "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert (report["unit"], report["n_positions"], report["N"]) == ("counts", 49, 32)

    def test_the_truth_judged_against_itself(self, tmp_path: Path, capsys: Capture) -> None:
        import json

        import numpy as np

        scan, recon = tmp_path / "scan.npz", tmp_path / "reconstruction.npz"
        numbers = tmp_path / "numbers.json"
        main(f"simulate --quiet -o {scan} --N 32 --n_positions 100".split())
        with np.load(scan) as truth:
            obj = truth["object_true"]
        np.savez(recon, object=obj[3:-3, 2:-2] * 2j, origin_xy=np.array([2.0, 3.0]))
        assert main(["evaluate", str(recon), str(scan), "--json", str(numbers)]) == 0
        judged = json.loads(numbers.read_text())
        assert judged["nrmse"] < 1e-3 and judged["frc50"] == 1.0
        assert "cNRMSE" in capsys.readouterr().out
        assert main(["evaluate", str(tmp_path), str(recon)]) == 0, "a folder against a product"

    def test_info_tells_what_is_here_and_what_a_bundle_is(self, tmp_path: Path, capsys: Capture) -> None:
        import numpy as np

        from ptycho.models.bundle import save_bundle

        assert main(["info"]) == 0
        shown = capsys.readouterr().out
        assert all(word in shown for word in ("ptychopinn", "torch", "tensorflow", "devices", "cpu"))
        weights = {"w": np.ones((2, 3), np.float32)}
        config = {"model": {"architecture": "cnn"}}
        save_bundle(tmp_path, weights=weights, config=config, state={"N": 64}, backend="pytorch")
        assert main(["info", str(tmp_path)]) == 0
        shown = capsys.readouterr().out
        assert re.search(r"backend +pytorch", shown) and re.search(r"architecture +cnn", shown)
        assert re.search(r"weights +6 in 1 arrays", shown)

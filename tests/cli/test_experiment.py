"""`ptycho_experiment`: groups and overrides, refusals of one line, sweeps and tables, what a run leaves."""

from __future__ import annotations

import csv
import json
import logging
import os
import re
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("hydra")

from ptycho.cli import experiment
from ptycho.cli.main import main as ptycho
from ptycho.config.config import PyTorchExecutionConfig, TrainingConfig
from ptycho.errors import InputError
from ptycho.experiments.compose import GROUPS, points, settings_of
from ptycho.experiments.presets import CONF, options, preset_values
from ptycho.objectives.manifest import resolve
from ptycho.report.sweep import RunRecord, is_seed, summarise, sweep_figure, write_tables

ROOT = Path(__file__).resolve().parents[2]
Capture = pytest.CaptureFixture[str]
TINY = (
    "scenario.N=32", "scenario.n_positions=30", "scenario.step_px=3", "probe_refine_sweeps=1", "nepochs=1",
    "execution.accelerator=cpu", "logger=none",
)  # fmt: skip


class TestComposition:
    def test_without_overrides_it_is_the_plain_default(self) -> None:
        setting = settings_of([])
        assert setting.config == TrainingConfig(output_dir=Path("experiment_out"))
        assert setting.execution == PyTorchExecutionConfig()
        assert setting.scenario is not None and not setting.n_is_fixed

    @pytest.mark.parametrize("group", GROUPS)
    def test_every_option_of_a_group_composes(self, group: str) -> None:
        assert options(group)
        for option in options(group):
            more = ["train_data_file=scan.npz"] if (group, option) == ("data", "file") else []
            settings_of([f"{group}={option}", *more])

    def test_override_over_preset_over_group(self) -> None:
        config = settings_of(["training=cosine"]).config
        assert (config.scheduler, config.nepochs) == ("WarmupCosine", TrainingConfig().nepochs)
        quick = preset_values("quick")
        assert settings_of(["preset=quick"]).config.nepochs == quick["nepochs"]
        setting = settings_of(["preset=quick", "nepochs=3", "execution.learning_rate=1e-5"])
        assert (setting.config.nepochs, setting.execution.learning_rate) == (3, 1e-5)
        assert setting.config.probe_refine_sweeps == quick["probe_refine_sweeps"]

    def test_a_preset_chooses_its_data_unless_somebody_says_otherwise(self) -> None:
        faint, usual = settings_of(["preset=low_dose"]), settings_of(["preset=low_dose", "data=simulated"])
        assert faint.scenario is not None and usual.scenario is not None
        assert (faint.scenario.photons, usual.scenario.photons) == (1e3, 1e5)

    def test_kinds_of_values(self) -> None:
        words = ["gradient_clip_val=null", "model.probe_mask_diameter=12", "train_data_file='/a b/c.npz'"]
        config = settings_of([*words, "nphotons=1e4"]).config
        assert (config.gradient_clip_val, config.model.probe_mask_diameter) == (None, 12.0)
        assert (config.train_data_file, config.nphotons) == (Path("/a b/c.npz"), 1e4)
        scenario = settings_of(["scenario.object_shape=[300,310]", "scenario.amp_range=[0.5,1.0]"]).scenario
        assert scenario is not None
        assert (scenario.object_shape, scenario.amp_range) == ((300, 310), (0.5, 1.0))

    def test_declared_objectives_pass_through_a_group_of_the_user_s(self, tmp_path: Path) -> None:
        folder = tmp_path / "objectives"
        folder.mkdir()
        folder.joinpath("mine.yaml").write_text(
            "# @package _global_\nobjectives:\n  - {name: amplitude_mae, weight: 0.5}\n"
        )
        config = settings_of(["objectives=mine"], own=tmp_path).config
        assert config.objectives == [{"name": "amplitude_mae", "weight": 0.5}]
        resolve(config)

    def test_declared_objectives_of_the_groups_resolve(self) -> None:
        for option in options("objectives"):
            assert resolve(settings_of([f"objectives={option}"]).config).objectives

    def test_nothing_of_the_process_changes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from hydra.core.global_hydra import GlobalHydra

        monkeypatch.chdir(tmp_path)
        root = logging.getLogger()
        before = (os.getcwd(), root.level, list(root.handlers), dict(os.environ))
        settings_of(points(["preset=quick"], multirun=False)[0].overrides)
        assert (os.getcwd(), root.level, list(root.handlers), dict(os.environ)) == before
        assert list(tmp_path.iterdir()) == [] and not GlobalHydra.instance().is_initialized()

    def test_a_caller_s_own_hydra_survives(self) -> None:
        from hydra import compose, initialize_config_dir

        with initialize_config_dir(str(CONF / "preset"), version_base="1.3"):
            settings_of(["nepochs=3"])
            assert compose("quick")["nepochs"] == preset_values("quick")["nepochs"]


class TestPoints:
    def test_product_the_last_key_fastest(self) -> None:
        found = points(["nepochs=1,2", "preset=quick", "seed=range(0,2)"], multirun=True)
        assert [p.overrides for p in found] == [
            (f"nepochs={n}", "preset=quick", f"seed={s}") for n in (1, 2) for s in (0, 1)
        ]
        assert found[2].swept == {"nepochs": "2", "seed": "0"}

    def test_groups_by_pattern(self) -> None:
        assert [p.swept["model"] for p in points(["model=glob(*)"], multirun=True)] == list(options("model"))

    def test_one_run_without_a_sweep(self) -> None:
        assert [p.swept for p in points(["nepochs=1"], multirun=True)] == [{}]


#: overrides, and what the one line must say
REFUSED = [
    ("nepoch=3", "unknown key 'nepoch'; nearest known: 'nepochs'"),
    ("+nepoch=3", "unknown key 'nepoch'; nearest known: 'nepochs'"),
    ("learning_rate=3", "unknown key 'learning_rate'; nearest known: 'execution.learning_rate'"),
    ("execution.learnin_rate=3", "unknown key 'execution.learnin_rate'; nearest known: 'learning_rate'"),
    ("scenario.photon=3", "unknown key 'scenario.photon'; nearest known: 'photons'"),
    ("nepochs=abc", "nepochs must be an integer >= 1"),
    ("nepochs=-3", "TrainingConfig.nepochs = -3: must be an integer >= 1"),
    ("nepochs=null", "nepochs must be an integer >= 1"),
    ("execution.precision=8", "precision = '8': must be one of '32-true'"),
    ("model.architecture=swfit", "must be a registered network"),
    ("scenario.photons=-1", "photons is -1.0"),
    ("scenario.object=star", "did you mean"),
    ("model=swfit", "unknown option model=swfit; nearest known: 'swift'"),
    ("preset=quik", "unknown option preset=quik; nearest known: 'quick'"),
    ("data=file", "no scan: give train_data_file=FILE"),
    ("train_data_file=none.npz", "no such file"),
    ("seed=0,1", "add --multirun"),
    ("nepochs", "an override is KEY=VALUE"),
    ("nepochs=[", "an override is KEY=VALUE"),
    ("hydra.run.dir=x", "the folder of a run is output_dir=OUT"),
    ("hydra/launcher=joblib", "the folder of a run is output_dir=OUT"),
    ("output_dir=${sed}", "'sed' not found"),
    ("model.N=128", "patterns are 64 x 64 but N is 128"),
    ("--multirun seed=interval(0,1)", "use range("),
    ("--multirun output_dir=a,b", "output_dir cannot be swept"),
    ("--multirun nepochs=1,-1", "nepochs = -1: must be an integer"),
    ("--config_dir nowhere", "nowhere: no such folder"),
    ("--multirum", "unknown flag --multirum; nearest known: --multirun"),
]


@pytest.mark.parametrize("words, line", REFUSED, ids=[words for words, _ in REFUSED])
def test_refused_with_one_line_before_anything_is_written(
    words: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert experiment.main(words.split()) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1, said.err
    assert said.err.startswith("ptycho_experiment: error: ") and line in said.err
    assert list(tmp_path.iterdir()) == []


def test_unknown_key_in_a_group_of_the_user_s_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "mine.yaml").write_text("# @package _global_\nnepoch: 3\n")
    with pytest.raises(InputError, match="unknown key 'nepoch'; nearest known: 'nepochs'"):
        settings_of(["training=mine"], own=tmp_path)


def test_without_hydra_the_remedy_is_one_line(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['hydra'] = None\n"
        "from ptycho.cli.experiment import main\n"
        "sys.exit(main(['nepochs=1']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "ptycho_experiment: error: ptycho_experiment needs Hydra: pip install 'ptychopinn[experiment]'\n"
    )


def test_help_names_groups_and_their_options(capsys: Capture) -> None:
    assert experiment.main(["--help"]) == 0
    page = capsys.readouterr().out
    for group in GROUPS:
        assert re.search(rf"^ *{group} +{', '.join(options(group))}$", page, re.M), group


def test_flags_may_stand_between_overrides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert experiment.main(["seed=0,1", "--multirun", "nepochs=2", "--dry_run", "output_dir=out"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["out/0_seed=0", "out/1_seed=1"]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two seeds by two numbers of epochs, run once."""
    out = tmp_path_factory.mktemp("sweep") / "out"
    assert experiment.main(["-m", *TINY, f"output_dir={out}", "nepochs=1,2", "seed=0,1", "--quiet"]) == 0
    return out


def runs_of(out: Path) -> list[Path]:
    return sorted(path for path in out.iterdir() if path.is_dir())


class TestSweep:
    def test_each_run_has_its_folder(self, sweep: Path) -> None:
        assert [path.name for path in runs_of(sweep)] == [
            f"{i}_nepochs={n}_seed={s}" for i, (n, s) in enumerate([(1, 0), (1, 1), (2, 0), (2, 1)])
        ]
        for run in runs_of(sweep):
            assert {"config.yaml", "provenance.json", "metrics.json", "wts.h5.zip", "history.json"} <= {
                path.name for path in run.iterdir()
            }
            assert (run / "image" / "reconstruction.npz").is_file()

    def test_provenance_says_command_seeds_and_end(self, sweep: Path) -> None:
        whole = json.loads((sweep / "provenance.json").read_text())
        assert whole["state"] == "done" and {"nepochs=1,2", "--multirun"} <= set(whole["command"])
        for run, seed in zip(runs_of(sweep), (0, 1, 0, 1), strict=True):
            record = json.loads((run / "provenance.json").read_text())
            assert (record["state"], record["seeds"]["seed"]) == ("done", seed)
            assert record["inputs"][0]["sha256"]

    def test_metrics_judge_against_the_truth(self, sweep: Path) -> None:
        for run in runs_of(sweep):
            metrics = json.loads((run / "metrics.json").read_text())
            assert {"r_factor", "nrmse", "phase_psnr", "val_loss", "train_s", "infer_s"} <= set(metrics)
            assert len(json.loads((run / "history.json").read_text())["train_loss"]) == int(run.name[10])

    def test_the_scan_is_simulated_once(self, sweep: Path) -> None:
        assert len(list(sweep.glob("scan_*.npz"))) == 1

    def test_hydra_leaves_no_folder_of_its_own(self, sweep: Path) -> None:
        assert not [path for path in sweep.rglob("*") if path.name in (".hydra", "multirun.yaml", "multirun")]
        assert not (ROOT / "outputs").exists() and not (ROOT / "multirun").exists()

    def test_table_of_runs(self, sweep: Path) -> None:
        with (sweep / "runs.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["run"] for row in rows] == [path.name for path in runs_of(sweep)]
        for row, run in zip(rows, runs_of(sweep), strict=True):
            assert row["state"] == "done"
            assert float(row["nrmse"]) == json.loads((run / "metrics.json").read_text())["nrmse"]

    def test_mean_and_spread_over_seeds(self, sweep: Path) -> None:
        with (sweep / "sweep.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [(row["nepochs"], row["runs"]) for row in rows] == [("1", "2"), ("2", "2")]
        for row, pair in zip(rows, (runs_of(sweep)[:2], runs_of(sweep)[2:]), strict=True):
            for name in ("nrmse", "r_factor"):
                values = [json.loads((run / "metrics.json").read_text())[name] for run in pair]
                assert float(row[f"{name}_mean"]) == pytest.approx(statistics.mean(values))
                assert float(row[f"{name}_spread"]) == pytest.approx(statistics.stdev(values))
        assert "| nepochs | runs |" in (sweep / "sweep.md").read_text()
        assert (sweep / "sweep.png").read_bytes()[:4] == b"\x89PNG"

    def test_config_of_a_run_repeats_it(self, sweep: Path, tmp_path: Path) -> None:
        run = runs_of(sweep)[1]
        assert ptycho(["train", "--config", str(run / "config.yaml"), "-o", str(tmp_path), "--quiet"]) == 0
        again, first = (json.loads((f / "history.json").read_text()) for f in (tmp_path, run))
        assert again["train_loss"] == first["train_loss"] and again["val_loss"] == first["val_loss"]


def test_a_run_of_a_scan_file_without_sweep(
    tmp_path: Path, scan_arrays: dict[str, np.ndarray], capsys: Capture
) -> None:
    np.savez(tmp_path / "scan.npz", **scan_arrays)
    words = [*TINY[3:], f"train_data_file={tmp_path / 'scan.npz'}", f"output_dir={tmp_path / 'run'}"]
    assert experiment.main(words) == 0
    assert "cNRMSE" in capsys.readouterr().out
    assert (tmp_path / "run" / "metrics.json").is_file() and not list((tmp_path / "run").glob("scan_*"))


def test_a_failed_run_is_told_and_the_others_go_on(
    tmp_path: Path, scan_arrays: dict[str, np.ndarray], capsys: Capture
) -> None:
    del scan_arrays["objectGuess"]
    np.savez(tmp_path / "scan.npz", **scan_arrays)
    out = tmp_path / "out"
    words = [*TINY[3:], f"train_data_file={tmp_path / 'scan.npz'}", f"output_dir={out}"]
    assert experiment.main(["-m", *words, "model.model_type=supervised,pinn"]) == 1
    with (out / "runs.csv").open(newline="") as file:
        failed, done = list(csv.DictReader(file))
    assert (failed["state"], done["state"]) == ("failed", "done")
    assert "learns from objectGuess" in failed["error"] and failed["r_factor"] == ""
    assert "1 of 2 runs failed" in capsys.readouterr().err
    whole = json.loads((out / "provenance.json").read_text())
    assert whole["state"] == "failed" and "1 of 2 runs failed" in whole["error"]


def record(swept: dict[str, str], state: str = "done", **metrics: Any) -> RunRecord:
    return RunRecord("_".join(swept.values()) or "run", swept, metrics, state, None)


class TestTable:
    def test_which_keys_are_seeds(self) -> None:
        assert [is_seed(k) for k in ("seed", "subsample_seed", "scenario.seed", "nepochs")] == [1, 1, 1, 0]

    def test_one_run_has_no_spread_and_a_missing_number_is_left_out(self) -> None:
        rows = summarise([record({"k": "1"}, nrmse=0.5), record({"k": "2"}, nrmse=0.1, frc50=None)])
        assert [(row.knobs, row.runs, row.mean, row.spread) for row in rows] == [
            ({"k": "1"}, 1, {"nrmse": 0.5}, {}),
            ({"k": "2"}, 1, {"nrmse": 0.1}, {}),
        ]

    def test_failed_runs_count_as_failed_only(self) -> None:
        (row,) = summarise(
            [record({"k": "1", "seed": "0"}, nrmse=0.5), record({"k": "1", "seed": "1"}, "failed")]
        )
        assert (row.runs, row.failed, row.mean) == (1, 1, {"nrmse": 0.5})

    def test_what_a_user_writes_stays_in_its_cell(self, tmp_path: Path) -> None:
        write_tables(tmp_path, [record({"train_data_file": 'a|b,\n"c".npz'}, nrmse=0.5)])
        with (tmp_path / "sweep.csv").open(newline="") as file:
            assert next(iter(csv.DictReader(file)))["train_data_file"] == 'a|b,\n"c".npz'
        lines = (tmp_path / "sweep.md").read_text().splitlines()
        assert len(lines) == 3 and {len(re.findall(r"(?<!\\)\|", line)) for line in lines[:2]} == {4}
        assert "a\\|b" in lines[2]

    @pytest.mark.parametrize(
        "values", [("1e3", "1e4", "1e5"), ("0", "0.5", "1"), ("swift", "cnn", "swift_b")]
    )
    def test_plot_of_numbers_and_of_names(self, tmp_path: Path, values: tuple[str, ...]) -> None:
        rng = np.random.default_rng(0)
        records = [
            record({"knob": v, "gridsize": g, "seed": s}, nrmse=rng.random(), r_factor=rng.random())
            for v in values for g in "12" for s in "01"
        ]  # fmt: skip
        assert sweep_figure(tmp_path / "s.png", records) == tmp_path / "s.png"
        assert (tmp_path / "s.png").stat().st_size > 5000

    def test_no_plot_of_nothing(self, tmp_path: Path) -> None:
        assert sweep_figure(tmp_path / "s.png", [record({"k": "1"}, "failed")]) is None
        assert list(tmp_path.iterdir()) == []


def test_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The `ptycho sweep` lines of the documentation, at small size."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "workflows" / "experiments.md").read_text(encoding="utf-8")
    lines = [line for line in re.findall(r"^ptycho sweep .*$", text, re.M)]
    assert len(lines) >= 3
    np_scan = ["simulate", "--N", "32", "--n_positions", "30", "--step_px", "3", "-o", "scan.npz"]
    assert ptycho([*np_scan, "--quiet"]) == 0
    for line in lines:
        words = [w for w in shlex.split(line, comments=True)[2:] if not w.startswith("--dry")]
        small = [re.sub(r"range\(0,\d+\)", "0,1", word) for word in words]
        small = [re.sub(r"^(scenario.photons=).*", r"\g<1>1e3", word) for word in small]
        mine = [w for w in TINY if not any(word.startswith(w.partition("=")[0]) for word in small)]
        if any(word.startswith("nepochs=") for word in small):
            small = [re.sub(r"^nepochs=.*", "nepochs=1", word) for word in small]
        assert experiment.main([*small, *mine, "--quiet"]) == 0, line

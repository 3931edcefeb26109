"""What each option of a command does to what it computes, without training anything."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho.cli import reconstruct, train
from ptycho.cli.console import Console
from ptycho.cli.judging import Reconstruction, Truth, find_truth, judge
from ptycho.cli.main import build_parser, main
from ptycho.cli.parser import Parser, add_switch
from ptycho.cli.runs import read_scan, write_json
from ptycho.cli.writing import product_target
from ptycho.errors import ConfigError, InputError
from ptycho.experiments.presets import beneath
from ptycho.simulation import OBJECTS

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return OBJECTS["two_photographs"]((90, 96)).astype(np.complex64)


def test_judging_takes_origins_coverage_box_and_pixel_size(truth: np.ndarray) -> None:
    made = Reconstruction(truth[10:80, 12:90], None, (112.0, 210.0))
    found = judge(made, Truth(truth, None, (100.0, 200.0)))
    assert found["nrmse"] < 1e-2 and found["shift_px"] == pytest.approx([0, 0], abs=1e-2)
    coverage = np.ones(made.object.shape)
    coverage[:, :25] = 0
    dark = np.where(coverage > 0, made.object, np.nan)
    found = judge(Reconstruction(dark, coverage, made.origin_xy), Truth(truth, None, (100.0, 200.0)))
    assert found["roi"][2] >= 12 + 25
    box = (20, 60, 30, 70)
    found = judge(made, Truth(truth, box, (100.0, 200.0)), pixel_size_m=3e-9)
    assert found["roi"] == list(box) and found["frc50_m"] == pytest.approx(3e-9 / found["frc50"])


def test_the_box_of_a_simulated_scan_is_judged(tmp_path: Path, truth: np.ndarray) -> None:
    np.savez(tmp_path / "scan.npz", object_true=truth, roi=np.array([20, 60, 30, 70]))
    found = find_truth(tmp_path / "scan.npz")
    assert found is not None and found.roi == (20, 60, 30, 70)


@pytest.mark.parametrize("size", ["0", "-1", "inf", "nan"])
@pytest.mark.parametrize("command", ["evaluate", "compare", "report"])
def test_a_pixel_has_a_size(
    tmp_path: Path, truth: np.ndarray, capsys: Capture, command: str, size: str
) -> None:
    path = str(tmp_path / "a.npz")
    np.savez(path, object=truth)
    files = [path, path] if command != "report" else [str(tmp_path)]
    assert main([command, *files, f"--pixel_size_m={size}"]) == 2
    assert "must be a number > 0" in capsys.readouterr().err


def test_switches_are_on_off_or_as_they_were() -> None:
    parser = Parser(prog="test")
    add_switch(parser, "--some_thing", "-s", dest="some_thing", help="")
    for word, wanted in (
        ("--some_thing", True),
        ("--no-some_thing", False),
        ("--no-some-thing", False),
        ("--some-thing", True),
        ("-s", True),
    ):
        assert vars(parser.read([word])) == {"some_thing": wanted}
    assert vars(parser.read([])) == {}


def test_a_preset_lies_beneath_what_was_written() -> None:
    preset = {"nepochs": 5, "batch_size": 4, "model": {"gridsize": 2, "n_filters_scale": 1}}
    made = beneath(preset, {"nepochs": 9, "n_filters_scale": 3, "model": {"N": 32, "gridsize": 1}})
    assert made == {"nepochs": 9, "batch_size": 4, "n_filters_scale": 3, "model": {"gridsize": 1, "N": 32}}
    assert beneath(preset, {})["model"] == preset["model"]


def configured(*words: str) -> tuple[Any, Any]:
    arguments = build_parser(train, "ptycho train").read(list(words))
    return train.configure(arguments, Console("ptycho train", quiet=True))[:2]


def test_old_flags_give_way_to_the_new_ones() -> None:
    assert configured("a.npz", "--device", "cpu")[1].accelerator == "cpu"
    assert configured("a.npz", "--device", "cpu", "--accelerator", "auto")[1].accelerator == "auto"
    assert configured("a.npz", "--disable_mlflow")[1].logger_backend == "none"
    assert configured("a.npz", "--disable_mlflow", "--logger", "csv")[1].logger_backend == "csv"


def test_scans_are_given_once_and_all_are_trained_on() -> None:
    config, _ = configured("a.npz", "b.npz", "c.npz")
    assert config.train_data_files == (Path("a.npz"), Path("b.npz"), Path("c.npz"))
    assert configured("a.npz")[0].more_train_data_files is None
    for flag in ("--train_data_file", "--more_train_data_files"):
        with pytest.raises(InputError, match="the scan is given twice"):
            configured("a.npz", flag, "[b.npz]")


def test_a_scan_of_another_side_is_refused(tmp_path: Path, scan_arrays: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "scan.npz", **scan_arrays)
    assert read_scan(tmp_path / "scan.npz", 32).N == 32 and read_scan(tmp_path / "scan.npz", None).N == 32
    with pytest.raises(ConfigError, match="patterns are 32 x 32 but N is 64 in the model"):
        read_scan(tmp_path / "scan.npz", 64, why=" in the model")


def test_json_is_json_whatever_the_numbers(tmp_path: Path) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    values = {"a": float("inf"), "b": float("nan"), "c": np.float32(1.5), "d": (1, np.int64(2)), "e": None}
    write_json(tmp_path / "a.json", values)
    made = json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)
    assert made == {"a": "inf", "b": "nan", "c": 1.5, "d": [1, 2], "e": None}


def asked(*words: str) -> argparse.Namespace:
    arguments = build_parser(reconstruct, "ptycho reconstruct").read(["scan.npz", "-o", "out", *words])
    reconstruct.check(arguments)
    return arguments


@pytest.mark.parametrize(
    "good, bad",
    [
        ("--sweeps 1", "--sweeps 0"),
        ("--seed 0", "--seed -1"),
        ("--probe_modes 16", "--probe_modes 17"),
        ("--probe_modes 1", "--probe_modes 0"),
        ("--refine adam --objective poisson_nll", "--refine rpie --objective poisson_nll"),
        ("--refine none --model run", "--refine none"),
        ("--backend pytorch", "--backend tensorflow"),
    ],
)
def test_options_of_reconstruct_at_their_edges(good: str, bad: str) -> None:
    asked(*good.split())
    with pytest.raises(InputError):
        asked(*bad.split())


def test_a_product_has_a_suffix_that_is_known(tmp_path: Path) -> None:
    def check(name: str) -> None:
        product_target(argparse.Namespace(product=tmp_path / name), tmp_path / "out" / "a.npz", ())

    for name in ("a.h5", "a.HDF5", "a.npz"):
        check(name)
    for name in ("a.txt", "a.h4", "a"):
        with pytest.raises(InputError, match="a product of ptychodus ends in"):
            check(name)


def test_simulate_takes_every_option(tmp_path: Path) -> None:
    words = (
        "--object flat --probe disk --scan raster --N 34 --n_positions 7 --step_px 2.5 --jitter_px 1 "
        "--aspect 2 --photons 500 --n_modes 2 --mode_decay 0.5 --dead_fraction 0.1 --probe_error 0.1 "
        "--amp_range 0.2 0.4 --phase_range_rad -1 1 --object_shape 60 70 --seed 3"
    )
    assert main(["simulate", "-o", str(tmp_path / "a.npz"), *words.split()]) == 0
    with np.load(tmp_path / "a.npz") as stored:
        made = json.loads(str(stored["scenario"]))
        assert stored["object_true"].shape == (60, 70) and stored["diff3d"].shape == (7, 34, 34)
    assert made == {
        "object": "flat",
        "probe": "disk",
        "scan": "raster",
        "N": 34,
        "n_positions": 7,
        "step_px": 2.5,
        "jitter_px": 1.0,
        "aspect": 2.0,
        "photons": 500.0,
        "n_modes": 2,
        "mode_decay": 0.5,
        "dead_fraction": 0.1,
        "probe_error": 0.1,
        "amp_range": [0.2, 0.4],
        "phase_range_rad": [-1.0, 1.0],
        "object_shape": [60, 70],
        "seed": 3,
    }

"""What `ptycho reconstruct` shares with the other commands: settings from a file, a time limit, a product."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ptycho.cli import reconstruct
from ptycho.cli.main import main
from ptycho.cli.parser import build_parser
from ptycho.errors import ConfigError

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "scan.npz"
    assert main(f"simulate --N 32 --n_positions 25 --step_px 3 -o {path} --quiet".split()) == 0
    return path


def read(*words: str):
    return build_parser(reconstruct, "ptycho reconstruct").read(words)


def test_a_typed_flag_wins_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        f"scan: a.npz\nsweeps: 5\nintensity: true\npreview: false\noutput-dir: {tmp_path}\nimage: null\n"
    )
    arguments = read("--config", str(path), "--sweeps", "7")
    assert (arguments.scan, arguments.sweeps, arguments.intensity) == (Path("a.npz"), 7, True)
    assert not arguments.preview and arguments.output_dir == tmp_path and not hasattr(arguments, "image")
    assert read("b.npz", "--config", str(path)).scan == Path("b.npz")


def test_the_file_s_mistakes_are_named(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    for text, message in {
        "sweep: 5": "unknown key 'sweep'; nearest known: 'sweeps'",
        "zzqq: 5": "unknown key 'zzqq'; see ptycho reconstruct --help-all",
        "preview: 3": "preview = 3 must be true or false",
    }.items():
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            read("--config", str(path))


def test_the_time_limit_ends_the_sweeps_and_the_image_is_written(scan: Path, tmp_path: Path) -> None:
    words = f"reconstruct {scan} -o {tmp_path} --max_time_s 1e-9 --sweeps 9 --quiet --accelerator cpu"
    assert main(words.split()) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["sweeps"] == 1 and metrics["stopped"] == "callback"


def test_refusals_are_one_line(scan: Path, tmp_path: Path, capsys: Capture) -> None:
    for words, message in {
        "-o out": "no scan to reconstruct; give SCAN",
        f"{scan}": "no folder for the products; give -o OUT",
        f"{scan} -o out --max_time_s 0": "--max_time_s 0: must be greater than 0",
        f"{scan} -o out --product out.txt": "a product of ptychodus ends in .h5 or .npz",
    }.items():
        assert main(["reconstruct", *words.split()]) == 2
        assert message in capsys.readouterr().err

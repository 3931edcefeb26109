"""`ptycho demo`: three methods judged alike, each image in a folder that other commands open."""

import json
from pathlib import Path

import pytest

from ptycho.cli.main import main

_METHODS = ("engine", "network as it ships", "network trained here")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "out"
    assert main(["demo", "--quick", "-o", str(folder), "--quiet"]) == 0
    return folder


def test_every_method_is_judged_on_both_scans(demo: Path) -> None:
    numbers = json.loads((demo / "demo.json").read_text(encoding="utf-8"))
    assert list(numbers) == ["trained_on", "unseen"]
    for methods in numbers.values():
        assert tuple(methods) == _METHODS
        assert methods["engine"]["nrmse"] < methods["network as it ships"]["nrmse"] < 0.1
    assert (demo / "methods.png").read_bytes().startswith(b"\x89PNG")


def test_evaluate_says_the_same_numbers(demo: Path, tmp_path: Path) -> None:
    numbers = json.loads((demo / "demo.json").read_text(encoding="utf-8"))["unseen"]
    for end, method in (("_engine", _METHODS[0]), ("_shipped", _METHODS[1]), ("", _METHODS[2])):
        made, told = demo / f"unseen{end}", tmp_path / f"judged{end}.json"
        assert main(["evaluate", str(made), str(demo / "unseen.npz"), "--json", str(told), "--quiet"]) == 0
        judged = json.loads(told.read_text(encoding="utf-8"))
        assert judged["nrmse"] == pytest.approx(numbers[method]["nrmse"], rel=1e-12)


def test_each_folder_says_which_command_made_it(demo: Path) -> None:
    record = json.loads((demo / "unseen_engine" / "provenance.json").read_text(encoding="utf-8"))
    assert record["command"][:2] == ["ptycho", "reconstruct"]
    assert record["state"] == "done"
    assert (demo / "unseen_shipped" / "report.html").is_file()


def test_it_is_not_written_over_unless_asked(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--quick", "-o", str(demo / "unseen_engine")]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_evaluate_warns_of_the_truth_of_another_scan(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, right, wrong = str(demo / "unseen_engine"), str(demo / "unseen.npz"), str(demo / "trained_on.npz")
    assert main(["evaluate", made, wrong]) == 0
    assert "unseen.npz, as its record says" in capsys.readouterr().err
    assert main(["evaluate", made, right]) == 0
    assert capsys.readouterr().err == ""

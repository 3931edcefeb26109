"""`ptycho report`, and the record and page that training, inference and demo leave by themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ptycho.cli.console import Console
from ptycho.cli.main import main
from ptycho.cli.recording import begin_record, recorded
from ptycho.errors import RunError
from ptycho.run.provenance import read

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "scan.npz"
    main(f"simulate --quiet -o {path} --N 32 --n_positions 36 --seed 1".split())
    return path


@pytest.fixture
def made(tmp_path: Path, scan: Path) -> Path:
    """A finished run: the truth itself as the product."""
    folder = tmp_path / "made"
    folder.mkdir()
    with np.load(scan) as arrays:
        np.savez(folder / "reconstruction.npz", object=arrays["object_true"], probe=arrays["probe_true"],
                 origin_xy=np.zeros(2))  # fmt: skip
    return folder


def test_page_beside_the_run_unless_told(made: Path, scan: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["report", str(made), "--data", str(scan)]) == 0
    shown = capsys.readouterr().out
    assert "made: It worked." in shown and f"page       {made / 'report.html'}" in shown
    out = tmp_path / "deep" / "page.html"
    assert main(["report", str(made), str(made), "-o", str(out), "--data", str(scan)]) == 0
    assert "Side by side" in out.read_text()


@pytest.mark.parametrize(
    "words, message",
    [
        (("nowhere",), "nowhere does not exist"),
        (("empty",), "empty holds nothing of a run"),
        (("scan.npz",), "scan.npz is a file"),
        (("made", "-o", "page.pdf"), "must end in .html"),
        (("made", "-o", "."), "must end in .html"),
        (("made", "--data", "lost.npz"), "lost.npz does not exist"),
        (("made", "--pixel_size_m", "nan"), "must be a number > 0"),
        ((), "the following arguments are required: RUN"),
    ],
)
def test_refusals_are_one_line(
    made: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(made.parent)
    (made.parent / "empty").mkdir()
    assert main(["report", *words]) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.strip().count("\n") == 0
    assert not (made / "report.html").exists()


def test_quiet_says_nothing(made: Path, scan: Path, capsys: Capture) -> None:
    assert main(["report", str(made), "--data", str(scan), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


class TestRecording:
    @staticmethod
    def command(end: Callable[[], Any], folder: Path, begins: bool = True) -> Callable[..., int]:
        @recorded
        def run(arguments: Any, console: Console) -> int:
            console.output = folder
            folder.mkdir(exist_ok=True)
            if begins:
                begin_record(console, arguments, inputs={"scan": None}, seeds={"seed": 1}, device="cpu")
            state = (read(folder) or {}).get("state")
            assert state == ("running" if begins else None)
            return end() or 0

        return run

    @pytest.mark.parametrize(
        "error, state, told",
        [
            (RunError("diverged"), "failed", "diverged"),
            (ValueError("odd"), "failed", "ValueError: odd"),
            (KeyboardInterrupt(), "interrupted", None),
            (MemoryError(), "failed", "MemoryError"),
        ],
    )
    def test_every_end_is_recorded(
        self, tmp_path: Path, error: BaseException, state: str, told: str | None
    ) -> None:
        def end() -> None:
            raise error

        with pytest.raises(type(error)):
            self.command(end, tmp_path / "run")(SimpleNamespace(seed=1), Console("ptycho train"))
        record = read(tmp_path / "run") or {}
        assert (record["state"], record["error"]) == (state, told)
        assert not (tmp_path / "run" / "report.html").exists()

    def test_an_interrupt_that_lightning_turned_into_an_exit(self, tmp_path: Path) -> None:
        def end() -> None:
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt:
                raise SystemExit(1)  # noqa: B904

        with pytest.raises(SystemExit):
            self.command(end, tmp_path / "run")(SimpleNamespace(), Console("ptycho train"))
        assert (read(tmp_path / "run") or {})["state"] == "interrupted"

    def test_codes(self, tmp_path: Path) -> None:
        for code, state in ((0, "done"), (130, "interrupted"), (1, "failed")):
            folder = tmp_path / str(code)
            assert self.command(lambda code=code: code, folder)(SimpleNamespace(), Console("x")) == code
            assert (read(folder) or {})["state"] == state

    def test_a_run_refused_before_it_began_leaves_nothing(self, tmp_path: Path) -> None:
        self.command(lambda: 0, tmp_path / "run", begins=False)(SimpleNamespace(), Console("x"))
        assert not (tmp_path / "run" / "provenance.json").exists()

    def test_a_page_that_cannot_be_made_fails_no_run(self, tmp_path: Path, capsys: Capture) -> None:
        folder = tmp_path / "run"
        (folder / "report.html").mkdir(parents=True)
        assert self.command(lambda: 0, folder)(SimpleNamespace(), Console("x")) == 0
        assert "report.html was not written" in capsys.readouterr().err


def test_training_and_inference_leave_record_and_page(tmp_path: Path, scan: Path, capsys: Capture) -> None:
    run, image = tmp_path / "run", tmp_path / "image"
    assert (
        main(["train", str(scan), "-o", str(run), "--nepochs", "1", "--seed", "7", "--logger", "none"]) == 0
    )
    assert main(["infer", "--model", str(run), "--data", str(scan), "-o", str(image)]) == 0
    trained, inferred = read(run) or {}, read(image) or {}
    assert trained["state"] == inferred["state"] == "done"
    assert trained["seeds"]["seed"] == 7 and trained["arguments"]["nepochs"] == "1"
    assert [i["role"] for i in trained["inputs"]] == ["train"]
    assert [i["role"] for i in inferred["inputs"]] == ["scan", "model"]
    assert trained["inputs"][0]["sha256"] == inferred["inputs"][0]["sha256"]
    assert inferred["inputs"][1]["sha256"] is not None, "the bundle itself"
    assert "Trained" in (run / "report.html").read_text()
    page = (image / "report.html").read_text()
    assert "object_true" in page and "R of every pattern" in page
    assert json.loads((image / "metrics.json").read_text())["r_factor"] > 0


def test_the_page_of_a_run_does_not_tell_its_scan_again(made: Path, scan: Path, capsys: Capture) -> None:
    import logging

    @recorded
    def run(arguments: Any, console: Console) -> int:
        console.output = made
        begin_record(console, arguments, inputs={"scan": scan}, seeds={})
        return 0

    console = Console("ptycho train")
    with console.speaking():
        before = logging.getLogger("ptycho").level
        run(SimpleNamespace(), console)
        assert logging.getLogger("ptycho").level == before
    assert (made / "report.html").is_file() and capsys.readouterr().err == ""

"""What goes away while a command runs: its folder, its reader, its permissions, its memory, its scan."""

from __future__ import annotations

import ctypes
import errno
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import SMALL, environment, small_scan

from ptycho.cli.main import main

Capture = pytest.CaptureFixture[str]
COMMANDS = {
    "train": ["train", "{scan}", "-o", "out", "--nepochs", "1", *SMALL],
    "infer": ["infer", "--model", "{run}", "--data", "{scan}", "-o", "out"],
    "reconstruct": ["reconstruct", "{scan}", "-o", "out", "--sweeps", "2"],
}
PRODUCT = {"train": "wts.h5.zip", "infer": "reconstruction.npz", "reconstruct": "reconstruction.npz"}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_the_folder_is_deleted(
    command: str, trained: dict[str, Path], tmp_path: Path, monkeypatch: Any, capsys: Capture
) -> None:
    """Before every write once: one line and exit code 1, or the product is there after all."""
    from ptycho.io import atomic

    monkeypatch.chdir(tmp_path)
    words = [word.format(**trained) for word in COMMANDS[command]]
    real, hit = atomic._sync, True
    for last in range(60):
        if not hit:
            return
        hit, left = False, last

        def sync(path: Path) -> None:
            nonlocal hit, left
            if left == 0 and not hit:
                hit = True
                shutil.rmtree("out")
            left -= 1
            real(path)

        shutil.rmtree("out", ignore_errors=True)
        with monkeypatch.context() as patch:
            patch.setattr("ptycho.io.atomic._sync", sync)
            code = main(words)
        shown = capsys.readouterr().err
        assert "Traceback" not in shown and "--debug" not in shown, (last, shown)
        assert code in (0, 1, 2), (last, code)
        assert code or (Path("out") / PRODUCT[command]).is_file(), (last, shown)
    pytest.fail("it never came to its end")


class Full(io.TextIOBase):
    """A stdout on a full disk."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fileno(self) -> int:
        raise io.UnsupportedOperation

    def isatty(self) -> bool:
        return False


def test_nobody_can_read_what_is_said(trained: dict[str, Path], tmp_path: Path, monkeypatch: Any) -> None:
    """A product is there and counts; what a command only says is lost and it says so by its exit code."""
    monkeypatch.chdir(tmp_path)
    place = {name: str(path) for name, path in trained.items()}
    made = ["infer", "--model", place["run"], "--data", place["scan"], "-o", "out"]
    for words, code in (
        (made, 0),
        (["info", place["run"]], 1),
        (["validate", place["scan"], "--json"], 1),
        (["init"], 1),
        (["import", place["scan"], "--dry-run"], 1),
        (["compare", "out", "out"], 1),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", Full())
            assert main(words) == code, words
    assert (tmp_path / "out" / "reconstruction.npz").is_file()


def _as_anybody() -> None:
    """Root without the right to write everywhere: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH are dropped."""
    if os.geteuid() == 0:
        drop = ctypes.CDLL(None).prctl
        drop(24, 1, 0, 0, 0)
        drop(24, 2, 0, 0, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
def test_read_only_folders_and_files(trained: dict[str, Path], tmp_path: Path) -> None:
    """One process tries them all, with no more rights than an ordinary user has."""
    code = """
import os, sys
from ptycho.cli.main import main
scan, run = sys.argv[1:]
try:
    open("locked/x", "w")
except OSError:
    pass
else:
    sys.exit(77)
tries = (
    ["train", scan, "-o", "locked/run"], ["train", scan, "-o", "locked"],
    ["infer", "--model", run, "--data", scan, "-o", "locked/image"],
    ["reconstruct", scan, "-o", "locked/made"], ["demo", "-o", "locked/demo"],
    ["simulate", "-o", "locked/s.npz"], ["import", scan, "-o", "locked/s.h5"],
    ["init", "-o", "locked/s.yaml"],
    ["validate", scan, "--write-mask", "locked/m.npy"], ["report", run, "-o", "locked/p.html"],
    ["train", "unread.npz", "-o", "out"], ["validate", "unread.npz"], ["infer", "--model", "unread.npz",
     "--data", scan, "-o", "out"], ["train", scan, "--config", "unread.npz", "-o", "out"],
    ["evaluate", "unread.npz", scan], ["reconstruct", scan, "--bad_pixels", "unread.npz", "-o", "out"],
)
for words in tries:
    print(main([*words, "--quiet"]), *words)
"""
    (tmp_path / "locked").mkdir(mode=0o500)
    (tmp_path / "unread.npz").write_bytes(b"PK\x03\x04")
    (tmp_path / "unread.npz").chmod(0)
    done = subprocess.run(
        [sys.executable, "-c", code, str(trained["scan"]), str(trained["run"])], cwd=tmp_path,
        env=environment(), capture_output=True, text=True, preexec_fn=_as_anybody, timeout=300,
    )  # fmt: skip
    if done.returncode == 77:
        pytest.skip("this user may write everywhere")
    assert done.returncode == 0, done.stderr
    ends = [line.split(" ", 1) for line in done.stdout.splitlines()]
    assert len(ends) == 16 and all(code == "2" for code, _ in ends), done.stdout + done.stderr
    assert "--debug" not in done.stderr and len(done.stderr.splitlines()) == 16, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["locked", "unread.npz"]


def test_frames_of_an_array_cut_short_while_they_are_read(tmp_path: Path) -> None:
    """A map of the file would kill the process here (SIGBUS)."""
    from ptycho.errors import InputError
    from ptycho.io.formats.registry import find

    path = tmp_path / "frames.npy"
    np.save(path, np.ones((400, 32, 32), np.uint16))
    frames = find(path).frames
    assert frames is not None
    with path.open("r+b") as file:
        file.truncate(20_000)
    with pytest.raises(InputError, match="cut short"):
        np.asarray(frames[390:400])


def test_no_memory_for_what_torch_allocates(tmp_path: Path, monkeypatch: Any, capsys: Capture) -> None:
    """torch's own failure, in the middle of a command, is told with the number and leaves no traceback."""
    import torch

    monkeypatch.chdir(tmp_path)
    np.savez("scan.npz", **small_scan())

    def refused(*arguments: Any, **options: Any) -> Any:
        return torch.empty(1 << 60, dtype=torch.uint8)

    monkeypatch.setattr("ptycho_torch.refine.reconstruct", refused)
    assert main(["reconstruct", "scan.npz", "-o", "out", "--sweeps", "1"]) == 1
    shown = capsys.readouterr().err
    assert "out of memory (1.07e+09 GiB more were needed)" in shown and "Traceback" not in shown


def test_the_settings_beside_a_run_say_which_scan(tmp_path: Path, monkeypatch: Any, capsys: Capture) -> None:
    """A run without a record: the page finds its scan by config.yaml, here beside the folder."""
    monkeypatch.chdir(tmp_path)
    np.savez("scan.npz", **small_scan())
    run = tmp_path / "run"
    run.mkdir()
    (run / "history.json").write_text('{"train_loss": [3.0, 2.0]}')
    assert main(["report", "run"]) == 0
    assert "the scan was not found" in (run / "report.html").read_text()
    (run / "config.yaml").write_text("train_data_file: scan.npz\n")
    assert main(["report", "run"]) == 0
    page = (run / "report.html").read_text()
    assert "the scan was not found" not in page and "16" in page
    capsys.readouterr()

"""No command writes onto what it read, onto a measured file unasked, or in place of a pipe or link."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from programs import small_scan

from ptycho.cli.main import main
from ptycho.errors import InputError
from ptycho.io.atomic import atomic_write
from ptycho.io.lock import LOCK_NAME, FolderLock
from ptycho.io.targets import check_target

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    obj = rng.standard_normal((40, 40)) + 1j * rng.standard_normal((40, 40))
    np.savez(tmp_path / "scan.npz", **small_scan(), object_true=obj, roi=np.array([5, 35, 5, 35]))
    np.savez(tmp_path / "made.npz", object=obj, coverage=np.ones((40, 40)), origin_xy=np.zeros(2))
    os.link(tmp_path / "scan.npz", tmp_path / "twin.json")
    (tmp_path / "way.json").symlink_to(tmp_path / "scan.npz")
    (tmp_path / "notes.txt").write_text("measured on Monday\n")
    os.mkfifo(tmp_path / "pipe.json")
    return tmp_path


REFUSED = {
    "truth of evaluate": "evaluate made.npz scan.npz --json scan.npz",
    "image of evaluate": "evaluate made.npz scan.npz --json made.npz",
    "another spelling": "evaluate made.npz scan.npz --json ./scan.npz",
    "a hard link": "evaluate made.npz scan.npz --json twin.json",
    "a link": "evaluate made.npz scan.npz --json way.json",
    "a pipe": "evaluate made.npz scan.npz --json pipe.json",
    "a device": "evaluate made.npz scan.npz --json /dev/null",
    "someone's notes": "evaluate made.npz scan.npz --json notes.txt",
    "compare onto A": "compare made.npz scan.npz --json made.npz",
    "compare onto B": "compare made.npz scan.npz --json scan.npz",
    "even with overwrite": "compare made.npz scan.npz --json scan.npz --overwrite",
    "simulate onto a scan": "simulate -o scan.npz --n_positions 9 --N 32",
    "simulate onto a pipe": "simulate -o pipe.json --n_positions 9 --N 32",
    "folder is missing and its parent a file": "simulate -o scan.npz/sub/a.npz --n_positions 9 --N 32",
}  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and not p.is_fifo()}


@pytest.mark.parametrize("words", REFUSED.values(), ids=REFUSED)
def test_refused_and_nothing_changed(words: str, work: Path, capsys: Capture) -> None:
    before = contents(work)
    assert main(words.split()) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert contents(work) == before and (work / "way.json").is_symlink() and (work / "pipe.json").is_fifo()


def test_overwrite_replaces_what_was_not_read(work: Path) -> None:
    words = "simulate -o made.npz --n_positions 9 --N 32"
    assert main(words.split()) == 2
    assert main([*words.split(), "--overwrite"]) == 0
    assert "diff3d" in np.load(work / "made.npz").files


def test_a_json_of_before_is_replaced(work: Path) -> None:
    (work / "out.json").write_text("{}")
    assert main(["evaluate", "made.npz", "scan.npz", "--json", "out.json"]) == 0
    assert json.loads((work / "out.json").read_text())["nrmse"] >= 0


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_link(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize("make", [make_fifo, make_link, Path.mkdir])
def test_whatever_writes_leaves_odd_things_alone(make: Callable[[Path], None], tmp_path: Path) -> None:
    target = tmp_path / "odd.npz"
    make(target)
    with pytest.raises(InputError, match="cannot write"), atomic_write(target) as temporary:
        temporary.write_text("x")
    with pytest.raises(InputError, match="cannot write"):
        check_target(target, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["odd.npz"]


READING = (
    "validate {}", "train {} -o out", "train good.npz --config {} -o out", "infer --model {} --data good.npz",
    "infer --model {} --data {} -o out", "reconstruct {} -o out", "evaluate {} good.npz",
    "compare {} good.npz", "export {}", "info {}", "report {}",
)  # fmt: skip


@pytest.mark.parametrize("name", ["pipe.npz", "pipe.h5", "pipe.yaml", "pipe.onnx", "pipe.zip"])
@pytest.mark.parametrize("words", READING)
def test_a_pipe_is_refused_at_once(
    name: str, words: str, tmp_path: Path, monkeypatch, capsys: Capture
) -> None:
    """None of them may wait for a writer that never comes; the test would hang."""
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "good.npz", **small_scan())
    os.mkfifo(tmp_path / name)
    assert main(words.format(name, name).split()) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["good.npz", name])


class TestLock:
    def test_the_owner_is_named_and_the_file_goes_with_him(self, tmp_path: Path) -> None:
        import subprocess
        import sys

        code = (
            "import sys; from pathlib import Path; from ptycho.io.lock import FolderLock\n"
            "FolderLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
        )
        other = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=f"is being written by process {other.pid} on "):
            FolderLock(tmp_path)
        other.kill()  # as the kernel kills for memory: nothing of the process runs any more
        other.wait()
        assert (tmp_path / LOCK_NAME).is_file()
        lock = FolderLock(tmp_path)
        assert str(os.getpid()) in (tmp_path / LOCK_NAME).read_text()
        lock.release()
        assert list(tmp_path.iterdir()) == []

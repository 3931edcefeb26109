"""provenance.json says what ran, on what, where and how it ended, whatever the end was."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from ptycho.errors import DataError
from ptycho.run import provenance
from ptycho.run.provenance import PROVENANCE_NAME, begin, finish, read


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "scan.npz"
    path.write_bytes(b"counts" * 1000)
    return path


def test_the_start_is_on_disk_before_the_run_ends(tmp_path: Path, scan: Path) -> None:
    begin(tmp_path / "run", command=["/x/ptycho", "train", "scan.npz"], inputs={"train": scan, "test": None},
          seeds={"seed": 3, "subsample_seed": None}, device="auto")  # fmt: skip
    record = json.loads((tmp_path / "run" / PROVENANCE_NAME).read_text())
    assert record["state"] == "running" and record["ended"] is None
    assert record["command"] == ["ptycho", "train", "scan.npz"]
    (given,) = record["inputs"]
    assert given["sha256"] == hashlib.sha256(scan.read_bytes()).hexdigest()
    assert (given["role"], given["bytes"], Path(given["path"])) == ("train", 6000, scan.resolve())
    assert record["seeds"] == {"seed": 3, "subsample_seed": None}
    assert record["machine"]["cores"] == os.cpu_count() and record["machine"]["asked_device"] == "auto"
    assert record["versions"]["numpy"] and record["versions"]["ptychopinn"]
    assert datetime.fromisoformat(record["started"]).utcoffset() is not None


@pytest.mark.parametrize("state", ["done", "failed", "interrupted"])
def test_the_end_is_added(tmp_path: Path, scan: Path, state: str) -> None:
    begin(tmp_path, command=["ptycho"], inputs={"scan": scan}, seeds={})
    finish(tmp_path, state, error="diverged" if state == "failed" else None)
    record = read(tmp_path)
    assert record is not None and record["state"] == state
    assert record["seconds"] >= 0 and record["ended"] >= record["started"]
    assert record["error"] == ("diverged" if state == "failed" else None)


def test_a_second_run_in_the_folder_keeps_what_the_first_one_was(tmp_path: Path) -> None:
    for number in range(3):
        begin(tmp_path, command=["ptycho", str(number)], inputs={}, seeds={})
        finish(tmp_path, "interrupted" if number < 2 else "done")
    record = read(tmp_path)
    assert record is not None
    assert [(e["command"][1], e["state"]) for e in record["earlier"]] == [
        ("0", "interrupted"), ("1", "interrupted")
    ]  # fmt: skip
    assert "earlier" not in record["earlier"][1]


def test_another_process_s_record_is_left_alone(tmp_path: Path) -> None:
    finish(tmp_path, "done")
    assert not (tmp_path / PROVENANCE_NAME).exists()
    begin(tmp_path, command=["ptycho"], inputs={}, seeds={})
    record = read(tmp_path)
    (tmp_path / PROVENANCE_NAME).write_text(json.dumps({**(record or {}), "pid": -1}))
    finish(tmp_path, "done")
    assert (read(tmp_path) or {})["state"] == "running"


def test_a_killed_run_leaves_running(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from ptycho.run.provenance import begin;"
        "begin(Path(sys.argv[1]), command=sys.argv, inputs={}, seeds={});"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert (read(tmp_path) or {})["state"] == "running"
    assert [path.name for path in tmp_path.iterdir()] == [PROVENANCE_NAME]


def git(folder: Path, *words: str) -> str:
    names = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *names, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_git_state_of_a_checkout(tmp_path: Path) -> None:
    assert provenance.git_state(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert provenance.git_state(tmp_path) is None, "no commit yet"
    (tmp_path / "a.py").write_text("1\n")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-q", "-m", "a")
    assert provenance.git_state(tmp_path) == {"commit": git(tmp_path, "rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "a.py").write_text("2\n")
    assert (provenance.git_state(tmp_path) or {})["dirty"] is True
    (tmp_path / "below").mkdir()
    assert provenance.git_state(tmp_path / "below") is None, "an installed package is no checkout"


def test_passwords_in_addresses_are_not_kept(tmp_path: Path) -> None:
    begin(tmp_path, command=["ptycho", "--uri=https://ann:secret@host/x"], inputs={}, seeds={})
    assert "secret" not in (tmp_path / PROVENANCE_NAME).read_text()
    assert (read(tmp_path) or {})["command"][1] == "--uri=https://***@host/x"


def test_a_folder_as_input_is_named_not_hashed(tmp_path: Path) -> None:
    begin(tmp_path / "run", command=["ptycho"], inputs={"model": tmp_path}, seeds={})
    (given,) = (read(tmp_path / "run") or {})["inputs"]
    assert given["sha256"] is None and given["role"] == "model"


def test_damage_is_said_in_one_line(tmp_path: Path) -> None:
    assert read(tmp_path) is None
    for text in ("{", "[1]", "\xff"):
        (tmp_path / PROVENANCE_NAME).write_bytes(text.encode("latin-1"))
        with pytest.raises(DataError, match="provenance.json"):
            read(tmp_path)


def test_no_heavy_package_is_loaded() -> None:
    code = "import sys, ptycho.run.provenance as p; p.versions(); p.machine(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "tensorflow", "keras", "matplotlib", "scipy", "numpy"}.isdisjoint(done.stdout.split())

"""What Windows and macOS lack is not needed: locks, limits of resources, affinity, some signals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

WITHOUT = """
import os, signal, sys
sys.modules["fcntl"] = sys.modules["resource"] = None
for module, names in ((os, "sched_getaffinity O_CLOEXEC getuid fork"), (signal, "SIGHUP SIGXCPU")):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
import pathlib
known = pathlib.Path.read_text, pathlib.Path.open
def without_proc(function):
    def call(path, *given, **named):
        if str(path).startswith(("/proc", "/sys")):
            raise FileNotFoundError(path)
        return function(path, *given, **named)
    return call
pathlib.Path.read_text, pathlib.Path.open = map(without_proc, known)
from ptycho.cli.main import main
for words in (
    "simulate -o scan.npz --N 32 --n_positions 36 --step_px 3",
    "validate scan.npz",
    "reconstruct scan.npz -o out --sweeps 2",
    "watch out",
):
    assert main(words.split()) == 0, words
"""


def test_a_run_without_what_unix_alone_has(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "out" / "report.html").is_file() and "state      done" in done.stdout

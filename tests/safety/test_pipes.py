"""Asking what a pipe is does not wait for what somebody might write into it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from programs import environment

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name here")

ASKED = {
    "is_hdf5": ("from ptycho.io.hdf5_read import is_hdf5 as ask", "False"),
    "is_compressed": ("from ptycho.io.compressed.file import is_compressed as ask", "False"),
    "recognised": ("from ptycho.io.formats.registry import recognised as ask", "None"),
}


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Python code in a folder, as a program that a pipe cannot hold up for more than a minute."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("suffix", [".h5", ".tif"])
def test_a_pipe_is_no_file_of_any_kind(name: str, suffix: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / f"pipe{suffix}")
    line, answer = ASKED[name]
    code = f"from pathlib import Path\n{line}\nprint(ask(Path('pipe{suffix}')))"
    done = run(code, tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, answer), done.stderr


@pytest.mark.parametrize("place", ["pipe.tif", "run"])
def test_a_command_refuses_it_at_once(place: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / "reconstruction.npz")
    os.mkfifo(tmp_path / "pipe.tif")
    code = f"from ptycho.io.images import read_image\nread_image({place!r})"
    done = run(code, tmp_path)
    assert done.returncode == 1 and "is a pipe (FIFO), not a file" in done.stderr

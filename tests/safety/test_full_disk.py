"""A disk that is full under an HDF5 file: one line, exit code 1, nothing left, no crash."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from programs import environment

from ptycho.errors import RunError
from ptycho.io.atomic import atomic_write
from ptycho.io.guarded_disk import GuardedDisk
from ptycho.io.sealed_hdf5 import check_written, new_file, put

#: `ptycho WORDS` whose files may not grow beyond so many bytes
LIMITED = """
import resource, sys
from ptycho.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.exit(main(sys.argv[2:]))
"""


def fill(archive: Any) -> None:
    """Small values, a large one, and rows written one after another."""
    rng = np.random.default_rng(0)
    put(archive, "small", np.arange(3))
    put(archive, "group/large", rng.normal(size=5000))
    rows = archive.create_dataset("rows", (60, 32, 32), "u2", chunks=(1, 32, 32), compression="gzip")
    for row in range(60):
        rows[row] = rng.poisson(20, (32, 32))
        check_written(archive)


class _FullAfter:
    """A raw file that takes so many bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self._file, self._room = file, room

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: Any) -> int:
        if self._room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = self._file.write(data[: self._room])
        self._room -= done
        return int(done)


@pytest.mark.parametrize("command", ["compress", "import"])
@pytest.mark.parametrize("most", [500, 4000, 8000])
def test_a_command_ends_with_one_line(command: str, most: int, scan: Path) -> None:
    words = [command, "scan.npz", "-o", "out/made.h5"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(most), *words], cwd=scan.parent, env=environment(),
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300,
    )  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if "warning" not in line]
    assert (done.returncode, len(lines)) == (1, 1), done.stderr
    assert "cannot write out/made.h5" in lines[0] and "choose another disk" in lines[0]
    assert list((scan.parent / "out").iterdir()) == []


@pytest.mark.parametrize("room", [0, 100, 3000, 20000, 48500, 60000])
def test_the_line_names_the_full_disk_and_the_file(room: int, tmp_path: Path, monkeypatch: Any) -> None:
    begin = GuardedDisk.__init__

    def limited(disk: GuardedDisk, path: Any) -> None:
        begin(disk, path)
        disk._file = _FullAfter(disk._file, room)  # type: ignore[assignment]

    monkeypatch.setattr(GuardedDisk, "__init__", limited)
    target = tmp_path / "made.h5"
    target.write_text("before")
    with (
        pytest.raises(RunError, match="made.h5: the disk is full"), atomic_write(target) as temporary,
        new_file(temporary) as archive,
    ):  # fmt: skip
        fill(archive)
    assert [path.name for path in tmp_path.iterdir()] == ["made.h5"] and target.read_text() == "before"


def test_the_same_contents_are_the_same_bytes_and_are_read_back(tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        with new_file(tmp_path / name) as archive:
            fill(archive)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    with h5py.File(tmp_path / "a.h5") as archive:
        assert archive["rows"][:].shape == (60, 32, 32) and archive["rows"].fletcher32 is False
        np.testing.assert_array_equal(archive["small"][:], np.arange(3))


def _write_while_it_rings(path: Path) -> None:
    with new_file(path) as archive:
        os.kill(os.getpid(), signal.SIGALRM)
        put(archive, "still", np.arange(4))


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="no alarm here")
def test_a_signal_waits_until_the_library_is_done(tmp_path: Path) -> None:
    def ring(*_: Any) -> None:
        raise TimeoutError("alarm")

    earlier = signal.signal(signal.SIGALRM, ring)
    try:
        with pytest.raises(TimeoutError, match="alarm"):
            _write_while_it_rings(tmp_path / "a.h5")
        assert signal.getsignal(signal.SIGALRM) is ring
    finally:
        signal.signal(signal.SIGALRM, earlier)
    with h5py.File(tmp_path / "a.h5") as archive:
        np.testing.assert_array_equal(archive["still"][:], np.arange(4))

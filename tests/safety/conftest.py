"""Fixtures of the safety tests: small scans in a folder, and a training to look at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from programs import SMALL, ptycho, small_scan


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """`scan.npz` in the test's own folder."""
    path = tmp_path / "scan.npz"
    np.savez(path, **small_scan())
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A folder with `scan.npz` and a training of one epoch in `run`, made once."""
    folder = tmp_path_factory.mktemp("trained")
    np.savez(folder / "scan.npz", **small_scan())
    done = ptycho("train", "scan.npz", "-o", "run", "--nepochs", 1, *SMALL, cwd=folder)
    assert done.returncode == 0, done.stderr
    return {"folder": folder, "scan": folder / "scan.npz", "run": folder / "run"}

"""The real ptychodus drives this package. Collected only where ptychodus is installed: `make test-clients`.

There nothing may be skipped: a skip counts as a failure.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from client_driver import Client
    from client_scans import Case

    from ptycho.simulation import Simulated

if find_spec("ptychodus") is None:
    if os.environ.get("PTYCHO_CLIENTS") == "required":
        raise RuntimeError("ptychodus is not installed in the environment of make test-clients")
    collect_ignore_glob = ["test_*.py"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """A client that was not driven has not passed."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which counts as a failure here: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def simulated() -> Callable[[Case], Simulated]:
    """The scan of a case, simulated once."""
    return cache(lambda case: case.simulate())


@pytest.fixture
def client() -> Iterator[Client]:
    """A ptychodus of its own, which must not have logged a warning of ours when the test is over."""
    from client_driver import running_client

    with running_client() as running:
        yield running
    assert running.complaints() == []


@pytest.fixture
def scan_folder(tmp_path: Path, simulated: Callable[[Case], Simulated]) -> Callable[..., Path]:
    """Writes diffraction.h5 and product.h5 of a case; `truth` puts the object in as labels."""
    from client_scans import write_scan

    def write(case: Case, *, truth: bool = False, name: str = "given") -> Path:
        write_scan(tmp_path / name, simulated(case), truth=truth)
        return tmp_path / name

    return write

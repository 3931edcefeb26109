"""Files written by other programs. Collected only where they are installed: `make test-formats`.

There nothing may be skipped: a skip counts as a failure.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import pytest

PROGRAMS = ("cdtools", "PtyLab", "hyperspy", "rsciio", "py4DSTEM", "nexusformat", "tifffile", "zarr")
missing = [name for name in PROGRAMS if find_spec(name) is None]
if missing:
    if os.environ.get("PTYCHO_FORMATS") == "required":
        raise RuntimeError(f"not installed in the environment of make test-formats: {', '.join(missing)}")
    collect_ignore_glob = ["test_*.py"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """A program that was not run has not passed."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which counts as a failure here: {report.longrepr}"
    return report

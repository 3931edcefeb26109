"""Runs that left bad frames out, for the tests of triage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ptycho.cli.main import main


def image_without_bad(scan: Path, out: Path) -> Path:
    """The folder of `reconstruct --skip_bad`, three sweeps."""
    assert main(["reconstruct", str(scan), "-o", str(out), "--skip_bad", "--sweeps", "3", "--quiet"]) == 0
    return out


def record(folder: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((folder / "provenance.json").read_text())
    return made

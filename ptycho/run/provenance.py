"""What ran, on which data, where, and how it ended: `provenance.json`, written first and completed last.

The record is on disk before the work begins, so that a run that was killed still tells what it was; only its
state stays `running`.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from ptycho.errors import DataError
from ptycho.io.atomic import atomic_write

PROVENANCE_NAME = "provenance.json"
FORMAT = 1
STATES = ("running", "done", "failed", "interrupted")
#: what a result may depend on, where it is installed
PACKAGES = (
    "ptychopinn", "numpy", "scipy", "scikit-image", "h5py", "safetensors", "torch", "lightning",
    "torchmetrics", "tensorflow", "tensorflow-cpu", "keras", "mlflow", "onnxruntime",
)  # fmt: skip
_KEPT_RUNS = 20


def begin(
    folder: Path,
    *,
    command: Sequence[str],
    inputs: Mapping[str, Path | None],
    seeds: Mapping[str, int | None],
    device: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    kind: str | None = None,
    findings: Sequence[Mapping[str, str]] = (),
    settings: Mapping[str, Any] | None = None,
    skipped: Mapping[str, Any] | None = None,
) -> Path:
    """Write the record of a run that starts now, state `running`, and return its path.

    inputs: role -> file; None entries are left out, a folder is named without a hash. seeds: name -> value.
    device: what was asked for. kind: the command, whose folder it is. findings: what the checks of the scans
    found (`ptycho.scan.findings`). settings: those that the weights of a training depend on.
    skipped: scan file -> the frames that triage left out, and why. An earlier
    record in the folder is kept under `earlier`, the last twenty of them. Passwords in addresses are cut.
    Time: one read of the input files. Raises RunError where the folder cannot be written.
    """
    record = {
        "format": FORMAT,
        "state": "running",
        "kind": kind,
        "command": [_without_password(word) for word in _short(command)],
        "arguments": {
            name: _without_password(str(value))
            for name, value in (arguments or {}).items()
            if value is not None and value is not False
        },
        "directory": os.getcwd(),
        "started": _now(),
        "ended": None,
        "seconds": None,
        "error": None,
        "pid": os.getpid(),
        "seeds": dict(seeds),
        "findings": [dict(found) for found in findings],
        "settings": dict(settings or {}),
        "skipped": dict(skipped or {}),
        "inputs": [describe_file(role, path) for role, path in inputs.items() if path is not None],
        "versions": versions(),
        "git": git_state(Path(__file__).resolve().parents[1]),
        "machine": {**machine(), "asked_device": device},
        "earlier": _earlier(folder),
    }
    return _write(folder, record)


def finish(folder: Path, state: str, *, error: str | None = None) -> None:
    """Complete the record that this process began in the folder; any other record is left as it is."""
    record = read(folder)
    if record is None or record.get("pid") != os.getpid() or record.get("state") != "running":
        return
    ended = _now()
    try:
        seconds = (datetime.fromisoformat(ended) - datetime.fromisoformat(record["started"])).total_seconds()
        record["machine"]["devices"] = _devices()
    except (KeyError, TypeError, ValueError) as trouble:
        raise DataError(f"{folder / PROVENANCE_NAME} was changed during the run") from trouble
    record |= {"state": state, "ended": ended, "seconds": seconds, "error": error}
    _write(folder, record)


def read(folder: Path) -> dict[str, Any] | None:
    """The record in a folder, None where there is none. Raises DataError for a damaged one."""
    path = folder / PROVENANCE_NAME
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({' '.join(str(error).split())}); delete it") from error
    if not isinstance(record, dict):
        raise DataError(f"{path} is no record of a run; delete it")
    return record


def describe_file(role: str, path: Path) -> dict[str, Any]:
    """Role, absolute path, size in bytes and SHA-256 of a file; a folder or missing file has no hash."""
    found: dict[str, Any] = {"role": role, "path": str(path.resolve()), "bytes": None, "sha256": None}
    if path.is_file():
        found |= {"bytes": path.stat().st_size, "sha256": sha256(path)}
    return found


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal; constant memory."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Installed versions of Python and of the packages a result may depend on; nothing is imported."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Platform, processor, cores, memory in GiB."""
    return {
        "platform": platform.platform(),
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and whether tracked files differ from it, where the folder itself is a git checkout."""
    if not (folder / ".git").exists():
        return None
    commit, status = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain", "-uno")
    if commit is None or status is None:
        return None
    return {"commit": commit, "dirty": bool(status)}


def _git(folder: Path, *words: str) -> str | None:
    # Without optional locks: asking must never get in the way of somebody's commit.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True, text=True, timeout=10, check=True, env=environment, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _earlier(folder: Path) -> list[dict[str, Any]]:
    try:
        last = read(folder)
    except DataError:
        return []
    if last is None:
        return []
    kept = last.get("earlier")
    names = ("state", "command", "started", "ended", "seconds", "error")
    runs = [*(kept if isinstance(kept, list) else []), {name: last.get(name) for name in names}]
    return runs[-_KEPT_RUNS:]


def _write(folder: Path, record: Mapping[str, Any]) -> Path:
    path = folder / PROVENANCE_NAME
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return path


def _short(command: Sequence[str]) -> list[str]:
    return [Path(command[0]).name, *command[1:]] if command else []


def _without_password(word: str) -> str:
    return re.sub(r"(?<=://)[^/@\s]+(?=@)", "***", word)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return named[1] if named else platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _devices() -> list[str]:
    """What a backend that was loaded by the run could compute on; none is loaded for the question."""
    found = ["cpu"]
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found += [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return found

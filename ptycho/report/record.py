"""A provenance record as text. The file is not trusted: all contents are shown as text."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

#: number of frames that are named one by one
_MOST_FRAMES = 40
#: label, text, set in a fixed-width face
Row = tuple[str, str, bool]


def provenance_rows(record: Mapping[str, Any] | None) -> list[Row]:
    """Label and text of every entry of a record."""
    return list(_rows(record)) if record else []


def seconds_of(record: Mapping[str, Any] | None) -> float | None:
    """Duration of the run, None if the record does not give it."""
    value = (record or {}).get("seconds")
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _rows(record: Mapping[str, Any]) -> Iterator[Row]:
    yield "state", _words(record.get("state"), record.get("error")), False
    yield "command", _command(record.get("command")), True
    yield "in folder", str(record.get("directory", "unknown")), True
    seconds = seconds_of(record)
    took = "" if seconds is None else f", {seconds:.1f} s"
    yield "started", _time(record.get("started")), False
    yield "ended", _time(record.get("ended")) + took, False
    for given in _list(record.get("inputs")):
        if isinstance(given, Mapping):
            size = given.get("bytes")
            length = f", {size / 1e6:.1f} MB" if isinstance(size, (int, float)) else ""
            digest = f", sha256 {given['sha256']}" if given.get("sha256") else ""
            yield f"input: {given.get('role', 'file')}", f"{given.get('path')}{length}{digest}", True
    for path, said in _left_out(record):
        yield "frames left out", f"{path}: {said}", False
    seeds = record.get("seeds")
    if isinstance(seeds, Mapping) and seeds:
        yield "seeds", _pairs(seeds), False
    git = record.get("git")
    if isinstance(git, Mapping):
        yield "git", f"{git.get('commit')}{' with local changes' if git.get('dirty') else ''}", True
    versions = record.get("versions")
    if isinstance(versions, Mapping):
        yield "versions", _pairs(versions), False
    machine = record.get("machine")
    if isinstance(machine, Mapping):
        yield "machine", _machine(machine), False
    for before in _list(record.get("earlier")):
        if isinstance(before, Mapping):
            text = f"{_time(before.get('started'))}: {_command(before.get('command'))}"
            yield f"earlier, {before.get('state', 'unknown')}", text, True


def skipped_lines(record: Mapping[str, Any] | None) -> list[str]:
    """`scan.npz: 3 of 100: 4 shifted; ...` for each scan of a run that left frames out."""
    return [f"{PurePath(path).name}: {said}" for path, said in _left_out(record or {})]


def skipped_reasons(record: Mapping[str, Any] | None, scan: str) -> dict[int, str]:
    """Frame number -> the faults for which a run left it out, as far as its record is valid."""
    skipped = (record or {}).get("skipped")
    said = skipped.get(scan) if isinstance(skipped, Mapping) else None
    frames = _list(said.get("frames")) if isinstance(said, Mapping) else []
    named = {one.get("frame"): one for one in frames if isinstance(one, Mapping)}
    return {n: _faults(named[n]) for n in skipped_frames(record, scan)}


def skipped_frames(record: Mapping[str, Any] | None, scan: str) -> list[int]:
    """Numbers of the frames of a scan file that a run left out, as far as its record is valid."""
    skipped = (record or {}).get("skipped")
    said = skipped.get(scan) if isinstance(skipped, Mapping) else None
    frames = _list(said.get("frames")) if isinstance(said, Mapping) else []
    numbers = [one.get("frame") for one in frames if isinstance(one, Mapping)]
    return [n for n in numbers if isinstance(n, int) and not isinstance(n, bool) and n >= 0]


def _left_out(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Scan file, and what a run left out of it; scans of which every frame was used are not there."""
    skipped = record.get("skipped")
    for path, said in skipped.items() if isinstance(skipped, Mapping) else ():
        yield str(path), _skipped(said)


def _faults(frame: Mapping[str, Any]) -> str:
    return " and ".join(map(str, _list(frame.get("faults"))))


def _skipped(said: Any) -> str:
    """`3 of 100 (frame 4 shifted; ...)`: the triage of a scan."""
    if not isinstance(said, Mapping):
        return str(said)
    frames = [one for one in _list(said.get("frames")) if isinstance(one, Mapping)]
    named = [f"{one.get('frame')} {_faults(one)}" for one in frames[:_MOST_FRAMES]]
    more = f"; {len(frames) - _MOST_FRAMES} more in provenance.json" if len(frames) > _MOST_FRAMES else ""
    return f"{said.get('n_bad')} of {said.get('n_frames')}{': ' * bool(named)}{'; '.join(named)}{more}"


def _words(state: Any, error: Any) -> str:
    return str(state) if error is None else f"{state}: {error}"


def _command(words: Any) -> str:
    return shlex.join(str(word) for word in _list(words)) or "unknown"


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else []


def _time(value: Any) -> str:
    """2026-11-21T08:30:00.000+00:00 -> 2026-11-21 08:30:00 UTC."""
    if value is None:
        return "not yet"
    text = str(value)
    return f"{text[:10]} {text[11:19]} UTC" if len(text) >= 25 and text.endswith("+00:00") else text


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {'none' if value is None else value}" for name, value in values.items())


def _machine(values: Mapping[str, Any]) -> str:
    parts = [str(values[name]) for name in ("cpu", "platform") if values.get(name)]
    parts += [f"{values[name]} {word}" for name, word in (("cores", "cores"), ("memory_gib", "GiB"))
              if values.get(name) is not None]  # fmt: skip
    devices = values.get("devices")
    if isinstance(devices, list) and devices:
        parts.append("devices: " + ", ".join(map(str, devices)))
    return ", ".join(parts)

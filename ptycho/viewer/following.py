"""What the folder of a run says while the run goes on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ptycho.errors import InputError, MissingFileError
from ptycho.report.record import skipped_lines
from ptycho.report.runs import numbers_in
from ptycho.run.provenance import read
from ptycho.tracking.csv_file import read_rows

_ENDED = ("done", "failed", "interrupted")
_LOSSES = ("train_loss", "val_loss", "r_factor")
_BARS = "▁▂▃▄▅▆▇█"
_SHOWN = 40


@dataclass(frozen=True)
class Sight:
    """A run at one moment: its state ('running', 'done', 'failed', 'interrupted', or '' without one), the
    error it ended with, losses by name, the last picture and when it was written (s since 1970); left_out:
    the frames that the run skips, a line a scan."""

    state: str
    error: str | None
    losses: dict[str, list[float]]
    picture: Path | None
    written: float
    left_out: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.state in _ENDED


def look(folder: Path) -> Sight:
    """The run in a folder as it is now; MissingFileError where there is no such folder."""
    if not folder.exists():
        raise MissingFileError(f"{folder} does not exist; give the output folder of a run")
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; give the output folder of a run")
    record = read(folder) or {}
    pictures = [(path.stat().st_mtime, path) for path in _pictures(folder)]
    written, picture = max(pictures, default=(0.0, None))
    error = record.get("error")
    state, said = str(record.get("state", "")), None if error is None else str(error)
    return Sight(state, said, _losses(folder), picture, written, tuple(skipped_lines(record)))


def news(before: Sight | None, now: Sight) -> Iterator[str]:
    """The lines that tell what changed between two looks; all there is at the first one."""
    if now.left_out != (() if before is None else before.left_out):
        for line in now.left_out:
            yield f"left out   {line}"
    steps = max(map(len, now.losses.values()), default=0)
    known = 0 if before is None else max(map(len, before.losses.values()), default=0)
    if steps != known:
        yield _line(now.losses, steps)
    if now.picture is not None and (before is None or now.written != before.written):
        yield f"picture    {now.picture}"
    if before is None or now.state != before.state:
        reason = f": {now.error}" if now.error else ""
        yield f"state      {now.state or 'no record yet'}{reason}"


def sparkline(values: list[float]) -> str:
    """The last 40 values as bars between their lowest and highest, on a log scale where all are positive.

    >>> sparkline([8.0, 4.0, 2.0, 1.0])
    '█▆▃▁'
    """
    shown = [value for value in values if math.isfinite(value)][-_SHOWN:]
    if not shown:
        return ""
    scaled = [math.log(value) for value in shown] if min(shown) > 0 else shown
    low, high = min(scaled), max(scaled)
    span = (high - low) or 1.0
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in scaled)


def _line(losses: dict[str, list[float]], steps: int) -> str:
    word = "sweep" if "r_factor" in losses else "epoch"
    parts = [f"{word} {steps:<5}"]
    for name in _LOSSES:
        if losses.get(name):
            label = {"r_factor": "R", "train_loss": "training", "val_loss": "validation"}[name]
            parts.append(f"{label} {losses[name][-1]:.4g} {sparkline(losses[name])}")
    return "  ".join(parts)


def _losses(folder: Path) -> dict[str, list[float]]:
    """From history.json, which is written at the end, else from the log of a training that goes on."""
    history = numbers_in(folder / "history.json")
    log = folder / "logs" / "metrics.csv"
    if not history and log.is_file():
        rows = read_rows(log)
        history = {name: [_number(row.get(name)) for row in rows] for name in _LOSSES}
    return {name: history[name] for name in _LOSSES if any(map(math.isfinite, history.get(name, ())))}


def _number(text: str | None) -> float:
    try:
        return float(text) if text is not None else math.nan
    except ValueError:
        return math.nan


def _pictures(folder: Path) -> list[Path]:
    names = ("preview.png", "reconstruction.png")
    found = [folder / name for name in names if (folder / name).is_file()]
    return [*found, *(folder / "figures").glob("*.png")]

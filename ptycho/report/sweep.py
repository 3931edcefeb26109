"""The table and the plot of a sweep: one row for each knob setting, mean and spread over its seeds.

A key that ends in `seed` repeats a run, every other swept key is a knob.  The spread is the sample standard
deviation; one run has none.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptycho.io.atomic import atomic_write

#: metric: its name in tables and plots, in the order of their columns
METRICS = {
    "nrmse": "cNRMSE",
    "r_factor": "R",
    "frc50": "FRC50",
    "frc_half_bit": "FRC 1/2-bit",
    "amplitude_psnr": "amp PSNR / dB",
    "amplitude_ssim": "amp SSIM",
    "phase_psnr": "phase PSNR / dB",
    "phase_ssim": "phase SSIM",
    "val_loss": "val loss",
    "train_s": "training / s",
    "infer_s": "inference / s",
}
_PLOTTED = ("nrmse", "r_factor", "frc50", "val_loss")
_MAX_PANELS = 3
_LOG_FROM = 10.0


@dataclass(frozen=True)
class RunRecord:
    """One run of a sweep: folder name, swept values by key, numbers, state (`done`, `failed`), error."""

    run: str
    swept: Mapping[str, str]
    metrics: Mapping[str, Any]
    state: str = "done"
    error: str | None = None


@dataclass(frozen=True)
class Row:
    """The runs with equal knobs: numbers of finished and failed runs, mean and spread of each metric."""

    knobs: dict[str, str]
    runs: int
    failed: int
    mean: dict[str, float]
    spread: dict[str, float]


def is_seed(key: str) -> bool:
    """Whether a swept key only repeats a run with other random numbers."""
    return key.rpartition(".")[2].endswith("seed")


def summarise(records: Sequence[RunRecord]) -> list[Row]:
    """One row for each combination of the swept settings, in the order of first appearance."""
    groups: dict[tuple[tuple[str, str], ...], list[RunRecord]] = {}
    for record in records:
        knobs = tuple((key, value) for key, value in record.swept.items() if not is_seed(key))
        groups.setdefault(knobs, []).append(record)
    return [_row(dict(knobs), members) for knobs, members in groups.items()]


def _row(knobs: dict[str, str], members: Sequence[RunRecord]) -> Row:
    done = [record for record in members if record.state == "done"]
    values = {name: _numbers(done, name) for name in METRICS}
    mean = {name: statistics.fmean(found) for name, found in values.items() if found}
    spread = {name: statistics.stdev(found) for name, found in values.items() if len(found) > 1}
    return Row(knobs, len(done), len(members) - len(done), mean, spread)


def _numbers(records: Sequence[RunRecord], name: str) -> list[float]:
    found = [record.metrics.get(name) for record in records if record.state == "done"]
    return [float(v) for v in found if isinstance(v, (int, float)) and v == v]


def write_tables(folder: Path, records: Sequence[RunRecord]) -> list[Path]:
    """Write runs.csv (every run), sweep.csv and sweep.md (mean and spread), each whole or not at all."""
    rows = summarise(records)
    keys = list(dict.fromkeys(key for record in records for key in record.swept))
    knobs = [key for key in keys if not is_seed(key)]
    shown = [name for name in METRICS if any(name in row.mean for row in rows)]
    each: list[list[Any]] = [["run", *keys, "state", *shown, "error"]]
    for record in records:
        numbers = [record.metrics.get(name) if record.state == "done" else None for name in shown]
        each.append([record.run, *(record.swept.get(k) for k in keys), record.state, *numbers, record.error])
    both = [f"{name}_{kind}" for name in shown for kind in ("mean", "spread")]
    summed: list[list[Any]] = [[*knobs, "runs", "failed", *both]]
    for row in rows:
        numbers = [kind.get(name) for name in shown for kind in (row.mean, row.spread)]
        summed.append([*(row.knobs.get(key) for key in knobs), row.runs, row.failed, *numbers])
    return [
        _write(folder / "runs.csv", _csv(each)),
        _write(folder / "sweep.csv", _csv(summed)),
        _write(folder / "sweep.md", markdown(rows, knobs, shown)),
    ]


def markdown(rows: Sequence[Row], knobs: Sequence[str], shown: Sequence[str]) -> str:
    """The summary as a Markdown table, mean +- spread in a cell."""
    failed = any(row.failed for row in rows)
    head = [*knobs, "runs", *(["failed"] if failed else []), *(METRICS[name] for name in shown)]
    lines = ["| " + " | ".join(_cell(text) for text in head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [*(row.knobs.get(key, "") for key in knobs), row.runs, *([row.failed] if failed else [])]
        cells += [_with_spread(row, name) for name in shown]
        lines.append("| " + " | ".join(_cell(str(text)) for text in cells) + " |")
    return "\n".join(lines) + "\n"


def _with_spread(row: Row, name: str) -> str:
    if name not in row.mean:
        return ""
    spread = f" ± {row.spread[name]:.2g}" if name in row.spread else ""
    return f"{row.mean[name]:.4g}{spread}"


def _cell(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").split())


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _write(path: Path, text: str) -> Path:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
    return path


def sweep_figure(path: Path, records: Sequence[RunRecord]) -> Path | None:
    """Mean and spread of up to three metrics over the first knob; None where no run has a number.

    Every run is a faint dot; further knobs are lines of their own. A knob whose values are all numbers has an
    axis of numbers (logarithmic from a ratio of 10), any other one an axis of names.
    """
    from matplotlib.figure import Figure

    rows = summarise(records)
    shown = [name for name in _PLOTTED if any(name in row.mean for row in rows)][:_MAX_PANELS]
    if not shown:
        return None
    knobs = list(dict.fromkeys(key for row in rows for key in row.knobs))
    varied = [key for key in knobs if len({row.knobs.get(key) for row in rows}) > 1] or knobs
    axis_key = varied[0] if varied else ""
    places = _places([row.knobs.get(axis_key, "") for row in rows])
    figure = Figure(figsize=(4.2 * len(shown), 3.6), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        _draw(axis, name, rows, records, axis_key, places)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=160)
    return path


def _places(values: Sequence[str]) -> tuple[dict[str, float], bool]:
    """The axis position of each value of the knob, and whether the axis is numeric."""
    try:
        return {value: float(value) for value in values}, True
    except ValueError:
        return {value: float(i) for i, value in enumerate(dict.fromkeys(values))}, False


def _draw(
    axis: Any,
    name: str,
    rows: Sequence[Row],
    records: Sequence[RunRecord],
    key: str,
    places: tuple[dict[str, float], bool],
) -> None:
    from ptycho.report.style import COLOURS, FAINT, INK

    at, numeric = places
    lines: dict[str, list[Row]] = {}
    for row in rows:
        if name in row.mean:
            label = ", ".join(f"{k}={v}" for k, v in row.knobs.items() if k != key)
            lines.setdefault(label, []).append(row)
    for record in records:
        for value in _numbers([record], name):
            axis.plot(at[record.swept.get(key, "")], value, ".", color=FAINT, markersize=5, zorder=3)
    for i, (label, members) in enumerate(lines.items()):
        members = sorted(members, key=lambda row: at[row.knobs.get(key, "")])
        axis.errorbar(
            [at[row.knobs.get(key, "")] for row in members],
            [row.mean[name] for row in members],
            [row.spread.get(name, 0.0) for row in members],
            fmt="o-" if numeric else "o",
            color=COLOURS[i % len(COLOURS)],
            markersize=4,
            capsize=3,
            label=label,
        )
    if not numeric:
        axis.set_xticks(list(at.values()), list(at))
        axis.margins(x=0.2)
    elif min(at.values()) > 0 and max(at.values()) >= _LOG_FROM * min(at.values()):
        axis.set_xscale("log")
    axis.set_xlabel(key, color=INK)
    axis.set_title(METRICS[name], color=INK, fontsize=11)
    axis.spines[["top", "right"]].set_visible(False)
    if len(lines) > 1:
        axis.legend(frameon=False, fontsize=8)

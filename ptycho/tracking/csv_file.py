"""`logs/metrics.csv`: one row an epoch, for any spreadsheet; `logs/hparams.yaml`: the settings.

A run that is resumed continues the file, without gaps or doubles.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ptycho.io.aside import earlier_name
from ptycho.io.atomic import atomic_write
from ptycho.tracking.tracker import Tracker


class CsvTracker(Tracker):
    """Columns in alphabetical order, `epoch` and `step` among them; a cell is empty where there is no value.

    Time and memory: a line an epoch; the file is written anew where a metric appears for the first time.
    """

    name = "csv"

    def __init__(self, output_dir: Path) -> None:
        self.path = output_dir / "logs" / "metrics.csv"
        self._rows: list[Mapping[str, Any]] = []
        self._columns: list[str] = []

    def begin(self, first_epoch: int, first_step: int, params: Mapping[str, Any]) -> None:
        self._rows, self._columns = [], []
        if first_epoch == 0:
            _set_aside(self.path)
        elif self.path.is_file():
            self._rows = [row for row in read_rows(self.path) if int(row["epoch"]) < first_epoch]
            self._rewrite()
        with atomic_write(self.path.with_name("hparams.yaml")) as temporary:
            temporary.write_text(yaml.safe_dump(dict(params), sort_keys=False), encoding="utf-8")

    def log_metrics(self, values: Mapping[str, float], step: int, epoch: int) -> None:
        row = {**values, "epoch": epoch, "step": step}
        self._rows.append(row)
        if set(row) - set(self._columns) or not self.path.is_file():
            self._rewrite()
            return
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def _rewrite(self) -> None:
        self._columns = sorted({name for row in self._rows for name in row})
        with atomic_write(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(self._rows)


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a log as text, empty cells left out; a line that was cut short by a kill is no row."""
    with path.open(newline="", encoding="utf-8") as file:
        lines = [line for line in file if line.endswith("\n")]
    rows = [row for row in csv.DictReader(lines) if None not in row and None not in row.values()]
    return [
        {name: value for name, value in row.items() if value != ""}
        for row in rows
        if (row.get("epoch") or "").isdigit()
    ]


def _set_aside(path: Path) -> None:
    """Give the log of an earlier run in the same folder a number of its own."""
    if path.is_file():
        path.rename(earlier_name(path))

"""The data of the report page: named parts of one run, without HTML."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from ptycho.report.charts import Arrows, Chart, Dots
from ptycho.report.panels import Panel
from ptycho.report.verdict import Verdict


class Number(NamedTuple):
    """A number by its key: label, value, format, whether small or large is better ('' neither)."""

    key: str
    label: str
    value: float
    form: str
    better: str
    hint: str = ""

    @property
    def text(self) -> str:
        """The value as it is shown."""
        return self.form.format(self.value) if math.isfinite(self.value) else "not a number"


class Ruler(NamedTuple):
    """R between its two anchors, in per cent of the ruler's length."""

    noise: float | None
    here: float
    flat: float
    noise_text: str
    here_text: str
    flat_text: str


class Row(NamedTuple):
    """A label and its text; `mono` for paths, hashes and commands."""

    label: str
    text: str
    mono: bool = False


class Pictures(NamedTuple):
    """A titled row of panels."""

    title: str
    panels: list[Panel]
    caption: str = ""


class Slide(NamedTuple):
    """Two pictures of one size, one over the other, with a slider between them."""

    title: str
    left: Panel
    right: Panel


class Extent(NamedTuple):
    """Position of a picture in object pixels of its scan: corner, size; known: whether its file gives it."""

    x: float
    y: float
    width: float
    height: float
    known: bool


class Pick(NamedTuple):
    """One picture of a slider: its id on the page, name of the run, CSS of its position."""

    id: str
    name: str
    place: str


class Choice(NamedTuple):
    """A slider between any two runs, in a frame of width x height object px that all of them cover."""

    title: str
    left: Panel
    right: Panel
    picks: list[Pick]
    width: float
    height: float


@dataclass
class RunView:
    """One run, as input of the template."""

    id: str
    name: str
    folder: str
    trained_in: str | None
    verdict: Verdict
    ruler: Ruler | None
    tiles: list[Number]
    numbers: list[Number]
    hero: list[Panel]
    thumbnails: list[Panel]
    scan: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    measured: list[Pictures] = field(default_factory=list)
    reconstructed: list[Pictures] = field(default_factory=list)
    errors: list[Pictures] = field(default_factory=list)
    slides: list[Slide] = field(default_factory=list)
    r_map: Dots | None = None
    moved: Arrows | None = None
    frc: Chart | None = None
    charts: list[Chart] = field(default_factory=list)
    config: str | None = None
    provenance: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    #: identity of the scan; '' if the run names none
    scan_id: str = ""
    #: position of the shown part of its image; None without an image
    extent: Extent | None = None


class Table(NamedTuple):
    """Numbers of several runs: one row a number, one cell (text, best?) a run.

    one_scan: whether all runs are of one scan; of different scans no number is better than another.
    """

    rows: list[tuple[str, list[tuple[str, bool]]]]
    one_scan: bool = True

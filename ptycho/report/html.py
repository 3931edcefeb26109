"""One HTML page about one run or several: complete and self-contained.

Pictures are data URIs, charts are inline SVG. One fixed script does zoom and sliders; the page's policy
contains its digest, so no other script runs and nothing is fetched. The template escapes every text; no part
of the page is built outside it.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import InputError
from ptycho.io.atomic import atomic_write
from ptycho.io.reading import one_line
from ptycho.report.evidence import collect_evidence
from ptycho.report.pages import side_by_side, view_of
from ptycho.report.runs import Run, find_runs
from ptycho.report.sliders import choices
from ptycho.report.view import RunView
from ptycho.scan.report import ScanReport

#: optional parts of a page, in the order in which they are computed, and their names
_PARTS = {
    "product": "image", "scan": "scan", "history": "curves", "metrics": "numbers",
    "config_text": "configuration", "provenance": "record",
}  # fmt: skip
PathLike = str | os.PathLike[str]


def write_report(
    path: PathLike,
    folders: Sequence[PathLike],
    *,
    data: Path | None = None,
    pixel_size_m: float | None = None,
) -> Path:
    """Write the page of these run folders to `path`, whole or not at all, and return it."""
    return write_page(path, build_views(folders, data=data, pixel_size_m=pixel_size_m))


def build_report(
    folders: Sequence[PathLike],
    *,
    data: Path | None = None,
    pixel_size_m: float | None = None,
    bad_pixels: NDArray[np.bool_] | None = None,
) -> str:
    """The page as text; the same files give the same page. See `build_views`."""
    return _render(build_views(folders, data=data, pixel_size_m=pixel_size_m))


def build_views(
    folders: Sequence[PathLike],
    *,
    data: Path | None = None,
    pixel_size_m: float | None = None,
    bad_pixels: NDArray[np.bool_] | None = None,
    described: Mapping[Path, ScanReport] | None = None,
) -> list[RunView]:
    """The views of these runs, in this order; a folder of runs means each run in it.

    folders: output folders of `ptycho train`, `infer`, `reconstruct` or `demo`. data: the scan of runs that
    do not name theirs. pixel_size_m of the object, for lengths. bad_pixels (N, N): further pixels of the
    scans to ignore. described: recent results of the checks, by the full path of the scan; other scans are
    checked here. Raises InputError for a folder without files of a run. Time and memory:
    as `ptycho.report.evidence.collect_evidence`, one run after the other.
    """
    if not folders:
        raise InputError("no run to report on; give at least one output folder")
    views = []
    for number, run in enumerate(find_runs([Path(folder) for folder in folders], data), start=1):
        run.bad_pixels = bad_pixels
        if described and run.scan is not None:
            run.described = described.get(run.scan.resolve())
        # A view holds pictures only, so the arrays of one run are gone when the next is read.
        views.append(_view(run, f"run-{number}", pixel_size_m))
    return views


def _view(run: Run, anchor: str, pixel_size_m: float | None) -> RunView:
    """The view of a run; a part that cannot be shown is left out with a note."""
    for part in _PARTS:
        try:
            return view_of(collect_evidence(run, pixel_size_m), anchor, pixel_size_m)
        except Exception as error:
            if getattr(run, part):
                setattr(run, part, type(getattr(run, part))() if part in ("history", "metrics") else None)
                run.notes.append(f"the {_PARTS[part]} cannot be shown ({one_line(error)})")
    return view_of(collect_evidence(run, pixel_size_m), anchor, pixel_size_m)


def write_page(path: PathLike, views: Sequence[RunView]) -> Path:
    """Write the page of these views, whole or not at all."""
    target = Path(path)
    text = _render(views)
    with atomic_write(target) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return target


def _render(views: Sequence[RunView]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("ptycho.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = resources.files("ptycho.report").joinpath("templates/script.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    context: dict[str, Any] = {
        "runs": views,
        "table": side_by_side(views) if len(views) > 1 else None,
        "pairs": choices(views),
        "script": Markup(script),
        "script_hash": Markup(f"sha256-{digest}"),
    }
    return environment.get_template("page.html").render(context)

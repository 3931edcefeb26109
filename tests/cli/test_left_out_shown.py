"""Frames that a run left out, and frames that are marked, are shown as such: view, watch, report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ptycho.cli.main import main
from ptycho.evaluation import r_factor
from ptycho.run.provenance import begin, finish
from ptycho.simulation import Scenario, simulate
from ptycho.viewer.following import look, news
from ptycho.viewer.live import told
from ptycho.viewer.routes import about
from ptycho.viewer.shown import open_shown

BAD = {7: ["dim"], 12: ["empty", "shifted"]}
COUNT = 25


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on 23 of 25 frames, with moved positions, and its scan, in which frame 3 is marked."""
    root = tmp_path_factory.mktemp("left_out")
    made = simulate(Scenario(N=32, n_positions=COUNT, step_px=4.0, photons=1e5))
    marks = np.arange(COUNT) == 3
    np.savez(root / "scan.npz", **{k: v for k, v in {**made.raw.as_arrays(), "bad_frames": marks}.items()
                                   if v is not None})  # fmt: skip
    raw = made.raw.without(list(BAD))
    r = r_factor(made.object_true, made.probe_true, raw.xcoords, raw.ycoords, raw.amplitude())
    folder = root / "run"
    folder.mkdir()
    np.savez(
        folder / "reconstruction.npz", object=made.object_true, probe=made.probe_true, origin_xy=np.zeros(2),
        coverage=np.ones(made.object_true.shape), positions_px=raw.positions_px + 0.25,
        r_per_pattern=r.per_pattern,
    )  # fmt: skip
    frames = [{"frame": m, "faults": why} for m, why in BAD.items()]
    said = {"n_frames": COUNT, "n_bad": len(BAD), "counts": {}, "frames": frames}
    scan = root / "scan.npz"
    begin(folder, command=["x"], inputs={"scan": scan}, seeds={}, skipped={str(scan.resolve()): said})
    return folder


def test_the_view_keeps_every_frame_in_its_place_and_names_those_left_out(run: Path) -> None:
    shown = open_shown(run)
    with np.load(run.parent / "scan.npz") as archive:
        places = np.stack([archive["xcoords"], archive["ycoords"]], axis=1)
    used = np.setdiff1d(np.arange(COUNT), list(BAD))
    np.testing.assert_array_equal(shown.positions_px[list(BAD)], places[list(BAD)])
    np.testing.assert_array_equal(shown.positions_px[used], places[used] + 0.25)
    assert not np.isin(list(BAD), shown.mean_rows).any()
    answer = json.loads(json.dumps(about(shown), allow_nan=False))
    assert answer["scan"]["left_out"] == {"7": "dim", "12": "empty and shifted"}
    assert answer["scan"]["marked"] == [3]
    r = answer["image"]["r"]
    assert [row for row in range(COUNT) if r[row] is None] == list(BAD)
    assert shown.frame_lines() == [
        "2 of 25 frames were left out of the run: 7 dim; 12 empty and shifted",
        "1 of 25 frames are marked as bad in the file",
    ]


def test_the_command_says_so(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", str(run), "--mask", str(tmp_path / "m.npz"), "--seconds", "0.2"]) == 0
    assert "frames     2 of 25 frames were left out of the run: 7 dim" in capsys.readouterr().out


def test_watch_says_so_once(run: Path) -> None:
    first = look(run)
    lines = list(news(None, first))
    assert "left out   scan.npz: 2 of 25: 7 dim; 12 empty and shifted" in lines
    assert not [line for line in news(first, look(run)) if "left out" in line]
    assert told(run, 1.0)["left_out"] == ["scan.npz: 2 of 25: 7 dim; 12 empty and shifted"]


def test_the_report_says_so_beside_the_scan(run: Path, tmp_path: Path) -> None:
    finish(run, "done")
    page = tmp_path / "page.html"
    assert main(["report", str(run), "-o", str(page)]) == 0
    text = page.read_text()
    assert "scan.npz: 2 of 25: 7 dim; 12 empty and shifted" in text
    assert "1 of 23 frames are marked as bad in the file and are used (frame 3)" in text

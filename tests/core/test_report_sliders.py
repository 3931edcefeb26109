"""Sliders between images of unequal size: an object pixel lies at the same place of the frame in each."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ptycho.report.html import build_report, build_views
from ptycho.report.sliders import choices
from ptycho.report.view import Choice
from ptycho.simulation import Scenario, simulate

#: (rows, columns) cut off at top, bottom, left, right of the second image
CUT = (6, 2, 3, 10)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two images of one scan: the whole, and a part whose corner lies elsewhere."""
    root = tmp_path_factory.mktemp("sliders")
    made = simulate(Scenario(N=32, n_positions=25, step_px=4.0))
    made.to_npz(root / "scan.npz")
    top, bottom, left, right = CUT
    height, width = made.object_true.shape
    for name, rows, columns in (
        ("whole", slice(0, height), slice(0, width)),
        ("part", slice(top, height - bottom), slice(left, width - right)),
    ):
        (root / name).mkdir()
        np.savez(
            root / name / "reconstruction.npz", object=made.object_true[rows, columns], probe=made.probe_true,
            origin_xy=np.array([columns.start, rows.start]), positions_px=made.raw.positions_px,
        )  # fmt: skip
    return [root / "whole", root / "part"]


def placed(choice: Choice, number: int) -> dict[str, float]:
    """left, top, width, height of a picture, shares of the frame."""
    found = re.findall(r"(\w+): ([-\d.]+)%", choice.picks[number].place)
    return {name: float(value) / 100 for name, value in found}


def test_images_of_unequal_size_lie_on_the_field_that_both_have(runs: list[Path]) -> None:
    views = build_views(runs, data=runs[0].parent / "scan.npz")
    for order in (views, views[::-1]):
        made = choices(order)
        assert [choice.title for choice in made] == ["Amplitude", "Phase", "Complex"]
        for view, number in ((order[0], 0), (order[1], 1)):
            at, extent = placed(made[0], number), view.extent
            assert extent is not None and extent.known
            # object pixel (x, y) = (20, 25) by each picture
            x = at["left"] + (20 - extent.x) / extent.width * at["width"]
            y = at["top"] + (25 - extent.y) / extent.height * at["height"]
            assert (x, y) == pytest.approx(
                ((20 - CUT[2]) / made[0].width, (25 - CUT[0]) / made[0].height), abs=1e-4
            )
            assert at["left"] <= 0 and at["left"] + at["width"] >= 1 and at["top"] + at["height"] >= 0.9999


def test_images_that_share_nothing_have_no_slider(runs: list[Path], tmp_path: Path) -> None:
    with np.load(runs[1] / "reconstruction.npz") as part:
        np.savez(tmp_path / "reconstruction.npz", **{**part, "origin_xy": np.array([500, 0])})
    assert choices(build_views([runs[0], tmp_path], data=runs[0].parent / "scan.npz")) == []


def test_the_picture_under_the_slider_changes_with_its_place(
    runs: list[Path], tmp_path: Path, browser: str
) -> None:
    text = build_report(runs, data=runs[0].parent / "scan.npz")
    (tmp_path / "page.html").write_text(text)
    done = subprocess.run(
        [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom",
         f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "page.html").as_uri()],
        capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr
    assert done.stdout.count("data-place") == 12

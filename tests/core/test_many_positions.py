"""Long scans: what is compared is a sample, what is drawn is means, and both tell what all of it would."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho.report.charts import moved_map
from ptycho.report.drawing_scan import MOST_DOTS, draw_moved, draw_r_map
from ptycho.report.fields import thinned
from ptycho.scan import detector, likeness
from ptycho.scan.detector import measure_detector
from ptycho.scan.frames import order_findings
from ptycho.simulation import Scenario, simulate


def places_of(count: int) -> np.ndarray:
    side = int(np.ceil(np.sqrt(count)))
    raster = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)[:count]
    return raster * 3.0 + np.random.default_rng(0).uniform(-0.5, 0.5, (count, 2))


@pytest.fixture(scope="module")
def scan():
    return simulate(Scenario(N=32, n_positions=900, step_px=2.0, seed=4, photons=1e5)).raw


def found_in(scan, positions: np.ndarray, monkeypatch) -> list[str]:
    """What is found in the order of patterns where more than 500 are many."""
    for module in (detector, likeness):
        monkeypatch.setattr(module, "MANY_FRAMES", 500)
    monkeypatch.setattr(likeness, "_OTHERS", 400)
    monkeypatch.setattr(likeness, "_SPOTS", 10)
    sample = likeness.sample_of(positions)
    assert sample is not None
    rows = sample.rows(len(positions))
    stats = measure_detector(scan.diff3d, scan.diffraction_unit, None, rows)
    assert len(stats.features) == len(rows) <= len(positions) and len(stats.digests) == len(positions)
    return [one.kind for one in order_findings(likeness.likeness(stats, positions, 12.0, sample), 0.75)]


def test_a_sample_tells_the_order_of_patterns(scan, monkeypatch):
    positions = scan.positions_px
    assert found_in(scan, positions, monkeypatch) == []
    assert found_in(scan, np.roll(positions, 1, axis=0), monkeypatch) == ["shifted_patterns"]
    shuffled = np.random.default_rng(1).permutation(positions)
    assert found_in(scan, shuffled, monkeypatch) == ["shuffled_patterns"]


def test_a_sample_does_not_grow_with_the_scan():
    """4,096 patterns with seven that may stand for each, 2,000 strangers with six neighbours each."""
    assert len(likeness.sample_of(places_of(100_000)).rows(100_000)) <= 4096 * 8 + 2000 * 7
    assert likeness.sample_of(places_of(20_000)) is None


def test_many_positions_are_drawn_as_means():
    count = MOST_DOTS + 1
    places = places_of(count)
    r = 0.1 + 0.1 * (places[:, 0] > 150)
    figure = draw_r_map(places, r)
    (picture,) = figure.axes[0].images
    means = np.asarray(picture.get_array())
    assert not figure.axes[0].collections and means.size < count / 5
    assert means[:, 2] == pytest.approx(0.1) and means[:, -3] == pytest.approx(0.2)
    low, high, bottom, top = picture.get_extent()
    assert bottom > top and low < 150 < high  # y down, in object px
    arrows = draw_moved(places, places + np.random.default_rng(0).normal(0, 1, places.shape))
    assert len(arrows.axes[0].collections[0].get_offsets()) <= 2000
    page = moved_map(places, places + np.random.default_rng(0).normal(0, 1, places.shape), "", "viridis")
    assert len(page.lines) <= 12_000


def test_a_large_image_is_thinned_for_its_picture():
    image = np.exp(1j * np.linspace(0, 1, 64 * 32)).reshape(64, 32)
    small, coverage, side = thinned(image, np.ones((64, 32)), most_px=16)
    assert side == 4 and small.shape == coverage.shape == (16, 8)
    assert small[0, 0] == pytest.approx(image[:4, :4].mean())

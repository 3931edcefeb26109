"""Figures: written whole as PNG, from good input of any kind; nothing global changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptycho.errors import InputError
from ptycho.evaluation import evaluate, predicted_amplitudes, r_factor
from ptycho.report import figures
from ptycho.simulation import Scenario, simulate


@pytest.fixture(scope="module")
def scan():
    return simulate(Scenario(N=32, n_positions=49, step_px=3.0, photons=1e5, n_modes=2))


def is_picture(path: Path) -> bool:
    from skimage.io import imread

    image = imread(path)
    return path.read_bytes()[:4] == b"\x89PNG" and min(image.shape[:2]) > 200 and np.ptp(image[..., :3]) > 100


def test_every_figure_is_a_picture(scan, tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    raw, true = scan.raw, scan.object_true
    rec = true * np.exp(0.7j) + 0.02
    rec[:10] = np.nan
    coverage = np.isfinite(rec)
    verdict = evaluate(rec, true, scan.roi, coverage=coverage, pixel_size_m=2e-8)
    r = r_factor(true, scan.probe_true, raw.xcoords, raw.ycoords, raw.amplitude())
    predicted = predicted_amplitudes(true, scan.probe_true, raw.xcoords[:3], raw.ycoords[:3])
    history = {
        "train_loss": [3.0, 2.0, 1.5],
        "val_loss": [3.1, 2.2, 1.8],
        "learning_rate": [1e-3, 1e-3, 1e-4],
    }
    written = [
        figures.reconstruction_figure(tmp_path / "truth.png", rec, true, coverage, "With truth", verdict),
        figures.reconstruction_figure(tmp_path / "dict.png", rec, true, coverage, metrics=verdict.as_dict()),
        figures.reconstruction_figure(tmp_path / "alone.png", rec, coverage=coverage, pixel_size_m=2e-8),
        figures.probe_figure(tmp_path / "probe.png", scan.probe_true, guess=raw.probe_modes),
        figures.history_figure(tmp_path / "history.png", history),
        figures.history_figure(tmp_path / "negative.png", {"train_loss": [-3.0, -4.0]}),
        figures.frc_figure(tmp_path / "frc.png", verdict.frc_curve, pixel_size_m=2e-8),
        figures.r_map_figure(tmp_path / "r.png", raw.positions_px, r.per_pattern, whole=r.whole),
        figures.patterns_figure(tmp_path / "patterns.png", raw.amplitude()[:3], predicted * r.scale),
    ]
    assert all(is_picture(path) for path in written)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in written)
    assert dict(matplotlib.rcParams) == before


def test_colours_are_chosen_where_there_is_light() -> None:
    rng = np.random.default_rng(0)
    obj = 1 + 0.1 * rng.random((60, 60)) + 0j
    coverage = np.full(obj.shape, 0.01)
    coverage[10:50, 10:50] = 1.5
    dim = coverage < 1
    obj[dim] = 5 * rng.random(dim.sum()) * np.exp(6j * rng.random(dim.sum()))
    field, lit = figures.without_ramp(obj, coverage)
    assert field.shape == obj.shape and np.array_equal(lit, ~dim)
    assert (
        0.9
        < figures.colour_limits(np.abs(field), lit)[0]
        < figures.colour_limits(np.abs(field), lit)[1]
        < 1.2
    )
    assert figures.without_ramp(obj, None)[1].all()
    assert figures.without_ramp(obj, coverage > 0)[1].all()


def test_the_same_figure_twice_is_the_same_file(scan, tmp_path: Path) -> None:
    a, b = (figures.probe_figure(tmp_path / name, scan.probe_true) for name in ("a.png", "b.png"))
    assert a.read_bytes() == b.read_bytes()


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda p: figures.reconstruction_figure(p, np.ones((3, 4, 5), complex)), "shape"),
        (lambda p: figures.history_figure(p, {}), "history"),
        (lambda p: figures.probe_figure(p, np.ones(4)), "shape"),
        (lambda p: figures.patterns_figure(p, np.ones((2, 8, 8)), np.ones((2, 9, 9))), "shape"),
        (lambda p: figures.r_map_figure(p, np.ones((3, 2)), np.ones(4)), "positions"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(call, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        call(tmp_path / "x.png")
    assert not list(tmp_path.iterdir())

"""Figures: written whole as PNG, from good input of any kind; nothing global changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptycho.errors import InputError
from ptycho.evaluation import evaluate, predicted_amplitudes, r_factor
from ptycho.report import fields, figures, hues, scale_bar
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
        figures.moved_figure(tmp_path / "moved.png", raw.positions_px, raw.positions_px + 0.1, 2e-8),
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
    field, lit = fields.without_ramp(obj, coverage)
    assert field.shape == obj.shape and np.array_equal(lit, ~dim)
    assert (
        0.9 < fields.colour_limits(np.abs(field), lit)[0] < fields.colour_limits(np.abs(field), lit)[1] < 1.2
    )
    assert fields.without_ramp(obj, None)[1].all()
    assert fields.without_ramp(obj, coverage > 0)[1].all()


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
        (lambda p: figures.moved_figure(p, np.ones((3, 2)), np.ones((4, 2))), "positions"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(call, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        call(tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


def test_equal_steps_of_phase_look_equally_large() -> None:
    from skimage.color import rgb2lab

    colours = hues.phase_colours(np.linspace(-np.pi, np.pi, 73))
    lab = rgb2lab(colours)
    assert np.ptp(lab[:, 0]) < 8, "one lightness"
    steps = np.linalg.norm(np.diff(lab, axis=0), axis=1)
    assert steps.max() < 2.6 * steps.min() and np.allclose(colours[0], colours[-1])
    # twilight, the usual cyclic map, for comparison: its lightness runs over more than half of the scale
    import matplotlib

    assert np.ptp(rgb2lab(matplotlib.colormaps["twilight"](np.linspace(0, 1, 73))[:, :3])[:, 0]) > 50


def test_amplitude_is_lightness_and_unknown_is_transparent() -> None:
    from skimage.color import rgb2lab

    for phase in np.linspace(0, 6, 7):
        colours = hues.complex_colours(np.linspace(0, 1, 9) * np.exp(1j * phase), (0.0, 1.0))
        assert (np.diff(rgb2lab(colours[:, :3])[:, 0]) > 3).all() and (colours[:, 3] == 1).all()
    assert hues.complex_colours(np.array([[np.nan]]))[..., 3] == 0


def test_the_rim_is_not_shown() -> None:
    rng = np.random.default_rng(1)
    coverage = np.full((60, 60), 0.002)
    coverage[12:48, 10:50] = 1.0
    obj = np.where(coverage < 1, 9 * rng.random((60, 60)), 1.0) * np.exp(0.3j)
    field, lit, corner = fields.lit_field(obj, coverage)
    assert field.shape == (36, 40) and corner == (12, 10) and lit.all()
    assert np.nanmax(np.abs(field)) < 1.01


def test_a_scale_bar_says_its_length() -> None:
    from matplotlib.figure import Figure

    for width, unit, wanted in ((2.8, "µm", "0.5 µm"), (130.0, "px", "20 px"), (0.3, "µm", "50 nm")):
        axis = Figure().subplots()
        axis.imshow(np.ones((4, 4)), extent=(0, width, width, 0))
        scale_bar.scale_bar(axis, width, unit)
        (bar,) = axis.artists
        assert bar.txt_label.get_text() == wanted
        length = bar.size_bar.get_children()[0].get_width()
        assert np.isclose(length, {"nm": 1e-3}.get(wanted.split()[1], 1.0) * float(wanted.split()[0]))


def test_a_history_shows_totals_and_terms_apart() -> None:
    from ptycho.report.drawing_history import draw_history

    falling = [4.0, 2.0, 1.0]
    figure = draw_history(
        {
            "train_loss": falling, "val_loss": [5.0, 3.0, 2.0], "loss/same": falling, "loss/zero": [0.0] * 3,
            "loss/poisson": [3.0, 1.0, 0.5], "val/loss/poisson": [3.5, 1.5, 0.9], "lr": [1e-3] * 3,
        }
    )  # fmt: skip
    shown = {axis.get_ylabel(): [line.get_label() for line in axis.lines] for axis in figure.axes}
    assert shown["loss"] == ["training loss", "validation loss"]
    assert shown["terms of the loss"] == ["loss poisson", "validation loss poisson"]
    assert [axis.get_yscale() for axis in figure.axes] == ["log"] * 3
    assert draw_history({"train_loss": [-1.0, 2.0]}).axes[0].get_yscale() == "linear"

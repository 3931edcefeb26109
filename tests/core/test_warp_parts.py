"""What a warp is in NumPy: splines, formula, inverse, folds, distortions, score, settings."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho.errors import ConfigError, DataError, InputError
from ptycho.simulation.objects import lines
from ptycho.warp.distortions import drift_and_hysteresis, random_warp
from ptycho.warp.formula import NAMES, PARTS
from ptycho.warp.prepare import make_pair, warp_image
from ptycho.warp.score import hard_failures, score_pair
from ptycho.warp.settings import PairSettings
from ptycho.warp.splines import refine_points, spline_basis
from ptycho.warp.warp import Warp, identity

RNG = np.random.default_rng


def test_splines_repeat_what_scipy_says() -> None:
    from scipy.interpolate import BSpline

    count, span = 7, 30.0
    knots = (np.arange(count + 4) - 3) * span / (count - 3)
    at = np.linspace(0, span, 41)[:-1]
    theirs = BSpline.design_matrix(at, knots, 3).toarray()
    assert np.allclose(spline_basis(at, count, span), theirs, atol=1e-12)


def test_twice_as_many_intervals_give_the_same_field() -> None:
    points = RNG(0).normal(size=(2, 7, 9))
    finer = refine_points(points, (11, 15))
    one, two = (Warp((40, 50), np.zeros(10), p).field() for p in (points, finer))
    assert np.abs(one - two).max() < 1e-9


def test_a_rotation_turns_x_to_y_and_a_lens_is_radial() -> None:
    turn = identity((65, 65)).replaced(rotation=0.1)
    assert np.allclose(turn.displacement([[64.0, 32.0]]), [[0.0, 3.2]])
    lens = identity((65, 65)).replaced(lens=0.1)
    out = lens.displacement([[64.0, 32.0], [48.0, 32.0]])
    assert np.allclose(out, [[3.2, 0], [0.4, 0]])


def test_field_and_displacement_and_inverse_agree() -> None:
    warp = random_warp((50, 70), 5.0, RNG(3))
    places = np.array([[0.0, 0.0], [69.0, 49.0], [33.0, 12.0]])
    field = warp.field()
    assert np.allclose(warp.displacement(places), [field[int(y), int(x)] for x, y in places])
    assert np.allclose(warp.to_fixed(places + warp.displacement(places)), places, atol=1e-5)


def test_a_fold_is_seen_and_has_no_inverse() -> None:
    points = np.zeros((2, 6, 6))
    points[0, 2:4, 2], points[0, 2:4, 3] = 25.0, -25.0
    folded = Warp((40, 40), np.zeros(10), points)
    assert folded.determinant().min() < 0
    with pytest.raises(DataError, match="too steep"):
        folded.to_fixed(np.argwhere(np.ones((40, 40)))[:, ::-1].astype(float))


def test_the_sizes_of_random_warps_are_as_asked_and_nothing_folds() -> None:
    for seed in range(5):
        told = random_warp((60, 48), 8.0, RNG(seed)).as_dict()
        assert told["largest_px"] == pytest.approx(8.0) and told["smallest_area"] > 0


def test_hysteresis_bows_each_line_and_drift_follows_time() -> None:
    y, x = (v.ravel().astype(float) for v in np.mgrid[:11, :11])
    errors = drift_and_hysteresis(np.stack([x, y], 1), (0.0, 3.0), (2.0, 0.0))
    bow, course = errors[:, 0].reshape(11, 11), errors[:, 1]
    assert np.allclose(bow[0], bow[7]) and bow[0, 5] - bow[0, 0] == pytest.approx(2.0)
    assert (np.diff(course) > 0).all() and course[-1] - course[0] == pytest.approx(3.0)
    with pytest.raises(InputError, match="two or more"):
        drift_and_hysteresis([[0.0, 0.0]])


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.asarray(lines((96, 96), 3), np.complex128)


def test_equal_images_have_the_best_score(image: np.ndarray) -> None:
    pair = make_pair(image, image)
    score = score_pair(pair, identity(pair.shape))
    assert score.total == pytest.approx(1.0, abs=1e-6) and score.failures == ()


def test_scale_phase_and_ramp_do_not_count(image: np.ndarray) -> None:
    y, x = np.indices(image.shape)
    other = 2.5 * image * np.exp(1j * (0.4 + 0.02 * x - 0.03 * y))
    pair = make_pair(image, other)
    assert pair.corner_xy == (0, 0) and score_pair(pair, identity(pair.shape)).total > 0.97


def test_small_shifts_are_left_to_the_fit_and_large_ones_are_not(image: np.ndarray) -> None:
    """Where noise hides the object, the best shift of two whole images is wrong by a pixel or two."""
    assert make_pair(image, np.roll(image, (1, -2), (0, 1))).corner_xy == (0, 0)
    assert make_pair(image, np.roll(image, (5, -4), (0, 1))).corner_xy == (-4, 5)


def test_failures_are_named(image: np.ndarray) -> None:
    rng = RNG(1)
    noise = [1 + 0.1 * (rng.normal(size=(96, 96)) + 1j * rng.normal(size=(96, 96))) for _ in "ab"]
    pair = make_pair(*noise)
    assert score_pair(pair, identity(pair.shape)).failures == ("no structure",)
    pair = make_pair(image, image)
    assert "folds" in hard_failures(
        pair, Warp(pair.shape, np.zeros(10), RNG(0).normal(size=(2, 19, 19)) * 30)
    )
    away = Warp(pair.shape, np.zeros(10), np.full((2, 5, 5), 90.0))
    assert "out of the field" in hard_failures(pair, away)
    assert score_pair(pair, away).total == 0


def test_the_part_that_a_micrograph_shows_is_found(image: np.ndarray) -> None:
    picture = 1 - np.roll(np.angle(image), (2, -3), (0, 1))
    pair = make_pair(picture, image)
    assert pair.part == "phase" and pair.corner_xy == (3, -2)


def test_positions_follow_the_warp_and_its_inverse() -> None:
    true = RNG(2).uniform(10, 80, (40, 2))
    image = np.asarray(lines((96, 96), 3), np.complex128)
    pair = make_pair(image, image)
    warp = identity(pair.shape).replaced(scale=0.05, rotation=0.03)
    on_grid = true - np.array([pair.box[2], pair.box[0]])
    written = true + warp.displacement(on_grid)
    moved = pair.moved_positions(written, (0.0, 0.0), warp)
    wrong, right = written - true, moved - true
    assert np.abs(right - right.mean(0)).max() < 1e-4 < np.abs(wrong - wrong.mean(0)).max()


def test_an_image_drawn_through_a_warp_is_the_image_there(image: np.ndarray) -> None:
    pair = make_pair(image, image)
    drawn = warp_image(image, pair, identity(pair.shape, (2.0, -3.0)))
    assert np.allclose(drawn[10:-10, 10:-10], np.roll(image, (3, -2), (0, 1))[10:-10, 10:-10])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"kind": "afine"}, "warp 'afine' is unknown; use none, affine, lens, flow"),
        ({"steps": 0}, "steps is 0"),
        ({"weights": {"edge": 1.0}}, "did you mean 'edges'"),
        ({"weights": {"edges": -1.0}}, "weight edges"),
    ],
)
def test_settings_are_refused_by_name(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        PairSettings(**changes).check()


def test_too_little_in_common_is_refused(image: np.ndarray) -> None:
    with pytest.raises(InputError, match="needs 32 px"):
        make_pair(image, image, origin_xy=(80, 0))
    nothing = np.zeros(image.shape)
    with pytest.raises(InputError, match="coverage is zero"):
        make_pair(image, image, moving_coverage=nothing)
    with pytest.raises(ConfigError, match="has no 'turn'"):
        identity((32, 32)).replaced(turn=1.0)
    assert set(PARTS) >= {"none", "affine", "lens", "flow"} and len(NAMES) == 10

"""A warp in torch: sampling, gradients, the fold penalty, and what the fit finds and leaves alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from ptycho.simulation.objects import get_object, lines
from ptycho.warp.distortions import random_warp
from ptycho.warp.prepare import make_pair
from ptycho.warp.settings import PairSettings
from ptycho.warp.warp import Warp, corner_areas, identity
from ptycho_torch.warp import WarpField, backward_warp, register
from ptycho_torch.warp.field import Lattice
from ptycho_torch.warp.levels import make_levels
from ptycho_torch.warp.losses import View, data_terms, flow_terms, fold_penalty, local_factor

RNG = np.random.default_rng
DOUBLE = torch.float64


def test_backward_warp_is_scipys() -> None:
    rng = RNG(0)
    image, field = rng.normal(size=(21, 17)), rng.normal(size=(21, 17, 2)) * 3
    there = np.moveaxis(np.moveaxis(np.indices((21, 17)), 0, -1) + field[..., ::-1], -1, 0)
    wanted = ndimage.map_coordinates(image, there, order=1, mode="nearest")
    made = backward_warp(torch.tensor(image)[None, None], torch.tensor(field)[None])
    assert np.abs(made[0, 0].numpy() - wanted).max() < 1e-10


def test_finer_samples_show_the_same_place() -> None:
    coarse = torch.arange(20.0, dtype=DOUBLE).reshape(1, 1, 4, 5)
    fine = torch.from_numpy(ndimage.zoom(coarse[0, 0].numpy(), (13 / 4, 17 / 5), order=1))[None, None]
    move = torch.tensor(RNG(2).normal(size=(1, 4, 5, 2)))
    assert torch.allclose(backward_warp(coarse, move), backward_warp(fine, move, finer=4), atol=1e-9)


def test_half_a_pixel_does_not_smooth_noise() -> None:
    """Else noise fits noise better between the pixels, and two images of noise are moved."""
    rng = RNG(3)
    noise = [rng.normal(size=(64, 64)) + 1j * rng.normal(size=(64, 64)) for _ in "ab"]
    level = make_levels(make_pair(*[1 + 0.1 * n for n in noise]), PairSettings())[1]
    power = []
    for shift in (0.0, 0.5):
        move = torch.full((1, *level.fixed.shape, 2), shift)
        drawn = backward_warp(level.moving[None], move, finer=level.finer)[0, :2, 4:-4, 4:-4]
        power.append(float((drawn - drawn.mean((1, 2), keepdim=True)).square().mean()))
    assert power[1] > 0.95 * power[0]


def test_the_field_is_that_of_the_warp_in_numpy() -> None:
    warp = random_warp((48, 64), 5.0, RNG(1))
    field = WarpField((48, 64), 12.0, DOUBLE)
    assert np.abs(field(Lattice((48, 64), 1, DOUBLE)).detach().numpy()).max() == 0
    field.set(warp)
    made = field(Lattice((48, 64), 1, DOUBLE)).detach().numpy()
    assert np.abs(made - warp.field()).max() < 1e-6
    halved = field(Lattice((48, 64), 2, DOUBLE)).detach().numpy()
    fine = warp.field()
    mean = (fine[::2, ::2] + fine[1::2, ::2] + fine[::2, 1::2] + fine[1::2, 1::2]) / 4
    assert np.abs(halved - mean).max() < 0.01
    assert np.abs(field.warp().field() - warp.field()).max() < 1e-6


def test_nothing_leaves_its_bound() -> None:
    field = WarpField((40, 40), 3.0, DOUBLE)
    field.use("flow")
    field.refine(7)
    with torch.no_grad():
        field.raw += 1e6
        assert field.head is not None
        field.head += 1e6
    assert float(field.points().detach().abs().max()) <= 3.0
    assert float((field.values().detach().abs() - field.get_buffer("bounds")).max()) <= 0


def images(seed: int = 2, side: int = 24) -> list[torch.Tensor]:
    rng = RNG(seed)
    smooth = [ndimage.gaussian_filter(rng.normal(size=(4, side, side)), (0, 2, 2)) * 8 for _ in "a"][0]
    return [torch.complex(torch.tensor(smooth[k] + 1), torch.tensor(smooth[k + 1])) for k in (0, 2)]


@pytest.mark.parametrize(
    "term", ["charbonnier", "ssim", "edges", "orientation", "curvature", "variation", "fold"]
)
def test_gradients_are_those_of_finite_differences(term: str) -> None:
    fixed, moving = images()
    side = fixed.shape[0]
    lattice = Lattice((side, side), 1, DOUBLE)
    field = WarpField((side, side), 6.0, DOUBLE)
    field.use("flow")
    field.refine(5)
    assert field.head is not None
    drawn = torch.tensor(RNG(4).normal(size=field.head.shape) * 0.6)
    start = torch.cat([torch.tensor(RNG(5).normal(size=10) * 0.3), drawn.flatten()])
    weights = dict.fromkeys(("charbonnier", "ssim", "edges", "orientation"), 0.0) | {term: 1.0}

    def loss(numbers: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            field.raw.copy_(numbers[:10])
            field.head.copy_(numbers[10:].reshape(field.head.shape))
        u = field(lattice)
        if term == "fold":
            return fold_penalty(u, 0.9)
        if term in ("curvature", "variation"):
            return flow_terms(field.points(), 10.0, 6.0, 100.0)[term]
        pair = torch.stack([moving.real, moving.imag])[None]
        made = backward_warp(pair, u[None])[0]
        view = View(fixed, torch.complex(made[0], made[1]), torch.ones(side, side, dtype=DOUBLE), u)
        return data_terms(view, weights)[term]

    value = loss(start)
    value.backward()
    assert field.head.grad is not None
    own = torch.zeros(10, dtype=DOUBLE) if field.raw.grad is None else field.raw.grad
    exact = torch.cat([own, field.head.grad.flatten()])
    along = torch.tensor(RNG(6).normal(size=len(start)))
    step = 1e-6
    with torch.no_grad():
        slope = (loss(start + step * along) - loss(start - step * along)) / (2 * step)
    assert float(value.detach()) > 0 and float((exact * along).sum()) == pytest.approx(
        float(slope), rel=2e-3, abs=1e-9
    )


def test_the_fold_penalty_is_zero_exactly_where_nothing_folds() -> None:
    for seed in range(4):
        warp = random_warp((40, 40), 6.0, RNG(seed))
        field = torch.tensor(warp.field())
        assert float(torch.stack(corner_areas(field)).min()) == pytest.approx(float(warp.determinant().min()))
        assert float(fold_penalty(field)) == 0.0
        assert float(fold_penalty(-60 * field)) > 0.0
    crease = torch.zeros((6, 6, 2), dtype=DOUBLE)
    crease[2, 2, 0] = 1.001
    assert float(fold_penalty(crease)) > 0
    crease[2, 2, 0] = 0.999
    assert float(fold_penalty(crease)) == 0


def test_the_local_factor_takes_a_free_factor_out() -> None:
    image = images(side=64)[0]
    image = image / image.abs()
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    free = 1.7 * torch.exp(1j * (0.3 + 0.01 * x - 0.02 * y).double())
    factor = local_factor(free * image, image, torch.ones(64, 64, dtype=DOUBLE), 16)
    assert float(((factor - free).abs() / 1.7)[10:-10, 10:-10].max()) < 0.02


def test_levels_halve_and_hold_squares_out() -> None:
    image = np.asarray(lines((96, 80), 3), np.complex128)
    pair = make_pair(image, image)
    levels = make_levels(pair, PairSettings())
    assert sorted(levels) == [1, 2, 4] and levels[4].fixed.shape == (24, 20)
    assert 0.25 < float(levels[1].judges.float().mean()) < 0.45
    again = make_levels(pair, PairSettings())
    assert torch.equal(levels[1].judges, again[1].judges)


def distorted(warp: Warp, seed: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """fixed(p) = moving(p + u(p)), both with noise, the moving one in another gauge."""
    rng, pad = RNG(seed), 20
    side = warp.shape[0]
    whole = np.asarray(lines((side + 2 * pad,) * 2, seed), np.complex128)
    whole = ndimage.gaussian_filter(whole.real, 0.7) + 1j * ndimage.gaussian_filter(whole.imag, 0.7)
    there = np.moveaxis(np.moveaxis(np.indices(warp.shape), 0, -1) + warp.field()[..., ::-1] + pad, -1, 0)
    fixed = sum(
        unit * ndimage.map_coordinates(part, there, order=3)
        for unit, part in ((1, whole.real), (1j, whole.imag))
    )
    moving = whole[pad:-pad, pad:-pad] * 1.4 * np.exp(0.8j)
    fixed, moving = (
        one + noise * (rng.normal(size=warp.shape) + 1j * rng.normal(size=warp.shape))
        for one in (fixed, moving)
    )
    return fixed, moving


def error_px(pair, found: Warp, true: Warp) -> float:
    y0, y1, x0, x1 = pair.box
    start = np.array(pair.corner_xy) - np.array([x0, y0])
    off = (found.field() + start - true.field()[y0:y1, x0:x1])[8:-8, 8:-8]
    return float(np.sqrt((off**2).sum(-1).mean()))


@pytest.mark.parametrize(
    "kind, values",
    [
        ("affine", {"rotation": 0.06, "scale": -0.04, "skew": 0.03, "shift_x": 0.03}),
        ("lens", {"lens": 0.08, "shift_y": -0.02}),
    ],
)
def test_parameters_are_recovered_on_clean_images(kind: str, values: dict[str, float]) -> None:
    true = identity((112, 112)).replaced(**values)
    fixed, moving = distorted(true, 5, 1e-3)
    pair = make_pair(fixed, moving)
    found = register(pair, PairSettings(kind))
    assert found.score.failures == () and error_px(pair, found.warp, true) < 0.1
    assert np.array_equal(found.warp.values, register(pair, PairSettings(kind)).warp.values)


def test_a_smooth_distortion_is_found_without_folds() -> None:
    true = random_warp((112, 112), 5.0, RNG(8))
    fixed, moving = distorted(true, 6, 0.01)
    pair = make_pair(fixed, moving)
    found = register(pair)
    assert error_px(pair, found.warp, true) < 0.2
    assert found.warp.determinant().min() > 0 and found.score.total > found.start.total


def test_noise_alone_moves_nothing() -> None:
    fixed, moving = distorted(identity((96, 96)), 7, 0.05)
    found = register(make_pair(fixed, moving))
    assert found.warp.as_dict()["rms_px"] < 0.05
    rng = RNG(3)
    blank = [1 + 0.1 * (rng.normal(size=(96, 96)) + 1j * rng.normal(size=(96, 96))) for _ in "ab"]
    found = register(make_pair(*blank))
    assert found.score.failures == ("no structure",) and found.warp.as_dict()["rms_px"] == 0


def test_noise_that_hides_the_object_moves_nothing() -> None:
    """A random field under the noise of 1e3 photons: its best shift as a whole is (1, 1) px."""
    rng, side, pad = RNG([227, 99]), 160, 32
    whole = get_object("gaussian_random_field")((side + 2 * pad,) * 2, 227).astype(np.complex128)
    whole = ndimage.gaussian_filter(whole.real, 0.6) + 1j * ndimage.gaussian_filter(whole.imag, 0.6)
    image = whole[pad:-pad, pad:-pad]
    noisy = []
    for _ in range(2):
        white = rng.standard_normal((2, side, side)) * 0.17 * np.abs(image).mean() / 2**0.5
        noisy.append(image + white[0] + 1j * white[1])
    pair = make_pair(*noisy)
    found = register(pair, PairSettings("affine"))
    assert pair.corner_xy == (0, 0) and found.warp.as_dict()["rms_px"] < 0.05


def test_equal_images_give_the_identity() -> None:
    image = np.asarray(lines((96, 96), 3), np.complex128)
    found = register(make_pair(image, image))
    assert found.warp.as_dict()["largest_px"] < 1e-3

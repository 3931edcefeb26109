"""Merge, views, region and diffraction on NumPy, PyTorch and TensorFlow arrays: the oracle's numbers, and the
laws of the forward model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from array_kinds import NumPy

from ptycho import physics as oracle
from ptycho.forward import diffraction, losses, merging, region
from ptycho.forward.seen import illumination

N = 32
#: what a group's extent and size may be: B, C, largest shift in px
GROUPS = [(1, 4, 3.0), (3, 4, 12.6), (21, 3, 5.5), (16, 4, 0.0), (5, 2, 7.9), (5, 9, 20.3)]


def field(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def relative_positions(rng: np.random.Generator, B: int, C: int, reach: float) -> np.ndarray:
    r = rng.uniform(-reach, reach, (B, C, 2))
    return r - r.mean(1, keepdims=True)


def run(kind: Any, function: Any, *arrays: Any) -> np.ndarray:
    """What a function gives for NumPy arrays, as NumPy; other arguments as they are."""
    return kind.numpy(function(*(kind.asarray(a) if isinstance(a, np.ndarray) else a for a in arrays)))


class TestGroups:
    @pytest.mark.parametrize("B, C, reach", GROUPS)
    @pytest.mark.parametrize("window", ["central", "uniform"])
    def test_merge_and_extract_equal_the_oracle_for_groups_of_any_extent(self, B, C, reach, window, kind):
        rng = np.random.default_rng(B * C)
        patches, relative = field(rng, B, C, N, N), relative_positions(rng, B, C, reach)
        w = oracle.central_window(N) if window == "central" else np.ones((N, N))
        merged = run(kind, merging.merge, patches, relative, w)
        views = run(kind, merging.merge_and_extract, patches, relative, w)
        assert merged.shape[-1] == oracle.canvas_side(N, relative)
        for b in range(B):
            expected = oracle.merge(patches[b], relative[b], w)
            mine = oracle.crop_centre(merged[b], expected.shape[-1])
            np.testing.assert_allclose(mine, expected, atol=1e-9)
            np.testing.assert_allclose(views[b], oracle.extract_group(expected, relative[b], N), atol=1e-9)

    @pytest.mark.parametrize("side", [30, 34, 62])
    def test_sides_that_are_no_power_of_two(self, side, kind):
        rng = np.random.default_rng(side)
        patches, relative = field(rng, 2, 3, side, side), relative_positions(rng, 2, 3, 4.4)
        w = rng.uniform(0, 1, (side, side))
        views = run(kind, merging.merge_and_extract, patches, relative, w)
        for b in range(2):
            expected = oracle.extract_group(oracle.merge(patches[b], relative[b], w), relative[b], side)
            np.testing.assert_allclose(views[b], expected, atol=1e-9)

    def test_a_shared_patch_is_the_canvas(self, kind):
        rng = np.random.default_rng(0)
        patches, relative = field(rng, 3, 1, N, N), relative_positions(rng, 3, 4, 5.2)
        views = run(kind, merging.merge_and_extract, patches, relative, np.ones((N, N)))
        for b in range(3):
            canvas = oracle.pad_centre(patches[b, 0], oracle.canvas_side(N, relative[b]))
            np.testing.assert_allclose(views[b], oracle.extract_group(canvas, relative[b], N), atol=1e-12)

    def test_one_pattern_is_left_as_it_is(self, kind):
        patches = field(np.random.default_rng(0), 3, 1, N, N)
        views = run(kind, merging.merge_and_extract, patches, np.zeros((3, 1, 2)), np.ones((N, N)))
        assert np.array_equal(views, patches)

    @pytest.mark.parametrize("groups", [63 // 4 + 1, 17, 256])
    def test_a_group_does_not_feel_the_rest_of_its_batch(self, groups, kind):
        rng = np.random.default_rng(groups)
        patches = field(rng, groups, 4, N, N).astype(np.complex64)
        relative, w = relative_positions(rng, groups, 4, 6.0), oracle.central_window(N)
        whole = run(kind, merging.merge_and_extract, patches, relative, w)
        alone = run(kind, merging.merge_and_extract, patches[-1:], relative[-1:], w)
        np.testing.assert_allclose(whole[-1], alone[0], atol=2e-5)

    @pytest.mark.parametrize("name", ["central", "probe", "uniform"])
    def test_the_window_is_chosen_by_name(self, name, kind):
        rng = np.random.default_rng(3)
        probe = field(rng, 2, N, N)
        lit = run(kind, illumination, probe)
        np.testing.assert_allclose(lit, (np.abs(probe) ** 2).sum(0), rtol=1e-12)
        wanted = {"central": oracle.central_window(N), "probe": lit / lit.max(), "uniform": np.ones((N, N))}
        window = run(kind, lambda p: merging.merge_window(name, illumination(p)), probe)
        np.testing.assert_allclose(window, wanted[name], rtol=1e-12)
        positions = rng.uniform(20, 28, (2, 4, 2))
        patches = field(rng, 2, 4, N, N)
        views = run(
            kind,
            lambda *a: merging.group_views(a[0], a[1], name, illumination(a[2])),
            patches,
            positions,
            probe,
        )
        relative = positions - positions.mean(1, keepdims=True)
        plain = run(kind, merging.merge_and_extract, patches, relative, wanted[name])
        np.testing.assert_allclose(views, plain, atol=1e-12)


def smooth_object(side: int = 96) -> np.ndarray:
    y, x = np.mgrid[:side, :side] / 16
    return (1 + 0.3 * np.cos(x + 0.4 * y)) * np.exp(1j * np.sin(0.9 * y - 0.7 * x))


def gaussian(sigma: float = 5.0) -> np.ndarray:
    axis = np.arange(N) - N // 2
    return np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * sigma**2))


def places(B: int, C: int, seed: int = 0, whole: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    positions = rng.uniform(30, 60, (B, 1, 2)) + rng.uniform(-4, 4, (B, C, 2))
    return np.round(positions) if whole else positions


def true_patches(positions: np.ndarray) -> np.ndarray:
    flat = positions.reshape(-1, 2)
    patches = oracle.extract(smooth_object(), flat[:, 0], flat[:, 1], N)
    return patches.reshape(*positions.shape[:2], N, N)


class TestRegion:
    @pytest.mark.parametrize("B, C", [(1, 1), (12, 1), (5, 4)])
    def test_whole_pixels_give_true_patches_back_exactly(self, B, C, kind):
        where = places(B, C, whole=True)
        truth = true_patches(where)
        views = run(kind, region.region_views, truth, where, where, gaussian())
        np.testing.assert_allclose(views, truth, atol=1e-12)

    def test_sub_pixel_positions_give_smooth_patches_back(self, kind):
        where = places(12, 1)
        truth = true_patches(where)
        views = run(kind, region.region_views, truth, where, where, gaussian())
        assert np.abs(views - truth)[..., 4:-4, 4:-4].max() < 0.01

    def test_equals_the_oracle(self, kind):
        rng = np.random.default_rng(1)
        where, patches = places(6, 4), field(rng, 6, 4, N, N)
        centre = np.round(where.mean((0, 1)))
        window = gaussian() / gaussian().max()
        flat = where.reshape(-1, 2) - centre
        canvas = oracle.merge(patches.reshape(-1, N, N), flat, window)
        wanted = oracle.extract_group(canvas, flat, N).reshape(patches.shape)
        views = run(kind, region.region_views, patches, where, where, gaussian())
        np.testing.assert_allclose(views, wanted, atol=1e-9)

    def test_one_group_is_the_merge_of_training(self, kind):
        positions = places(1, 4, whole=True)
        # a group mean on whole pixels, so that both canvases have the same grid
        positions[0, 3] = 4 * np.round(positions[0].mean(0)) - positions[0, :3].sum(0)
        patches, window = field(np.random.default_rng(1), 1, 4, N, N), gaussian()
        relative = positions - positions.mean(1, keepdims=True)
        merged = run(kind, merging.merge_and_extract, patches, relative, window / window.max())
        views = run(kind, region.region_views, patches, positions, positions, window)
        np.testing.assert_allclose(views, merged, atol=1e-12)

    def test_blocks_of_any_batch_are_one_canvas(self, kind):
        """A pattern sees its neighbours' patches, wherever in the batch they stand."""
        where, patches = places(6, 4), field(np.random.default_rng(1), 6, 4, N, N)
        views = run(kind, region.region_views, patches, where, where, gaussian())
        order = [3, 0, 5, 1, 4, 2]
        shuffled = run(kind, region.region_views, patches[order], where[order], where[order], gaussian())
        np.testing.assert_allclose(shuffled, views[order], atol=1e-12)
        one = patches.reshape(24, 1, N, N), where.reshape(24, 1, 2), where.reshape(24, 1, 2)
        flat = run(kind, region.region_views, *one, gaussian())
        np.testing.assert_allclose(flat.reshape(6, 4, N, N), views, atol=1e-12)

    def test_a_shared_patch_serves_every_pattern_of_its_group(self, kind):
        positions = places(4, 4)
        truth = true_patches(positions.mean(1, keepdims=True))
        views = run(kind, region.block_views, truth, positions, gaussian())
        assert views.shape == (4, 4, N, N)
        assert np.abs(views - true_patches(positions))[..., 8:-8, 8:-8].max() < 0.01

    def test_a_patch_of_its_own_lies_at_its_own_position(self, kind):
        positions = places(4, 4)
        views = run(kind, region.block_views, true_patches(positions), positions, gaussian())
        assert np.abs(views - true_patches(positions))[..., 8:-8, 8:-8].max() < 0.01

    def test_the_window_gauge_is_free(self, kind):
        where = places(5, 1)
        truth = true_patches(where)
        one, other = (run(kind, region.region_views, truth, where, where, f * gaussian()) for f in (1, 1e6))
        np.testing.assert_allclose(one, other, atol=1e-12)

    @pytest.mark.parametrize("side", [6, 7, 32])
    def test_a_canvas_holds_every_patch_and_no_more(self, side, kind):
        where = places(20, 1).reshape(-1, 2)
        frame = region.Region.around(kind.asarray(where), side)
        corners = kind.numpy(frame.corners(kind.asarray(where), side))
        height, width = (int(n) for n in frame.shape)
        np.testing.assert_allclose(corners, where - side // 2 - kind.numpy(frame.origin_xy))
        assert (corners >= 0).all() and (corners.min(0) < 1).all()
        room = np.array([width, height]) - side - 1 - corners.max(0)
        assert (room >= 0).all() and (room < 1).all()


class TestDiffraction:
    def test_modes_add_as_intensities_and_equal_the_oracle(self, kind):
        rng = np.random.default_rng(7)
        for side in (30, 32):
            patches, probe = field(rng, 5, side, side), field(rng, 3, side, side)
            made = run(kind, diffraction.diffract, patches, probe)
            np.testing.assert_allclose(made, oracle.diffract(patches, probe), rtol=1e-9, atol=1e-12)
            energy = np.sum(np.abs(patches[:, None] * probe) ** 2)
            assert made.sum() == pytest.approx(energy, rel=1e-12)

    def test_rate_and_amplitude(self, kind):
        intensity = np.array([0.0, 4.0])
        np.testing.assert_allclose(
            run(kind, lambda i: diffraction.rate(i, 3.0), intensity), oracle.rate(intensity, 3.0), rtol=1e-15
        )
        np.testing.assert_allclose(run(kind, diffraction.amplitude, intensity), [1e-6, 2], rtol=1e-9)


@pytest.mark.parametrize("context", ["group", "region", "shared"])
@pytest.mark.parametrize("argument", ["patches", "probe"])
def test_gradient_of_the_whole_model_is_the_central_difference(context, argument, kind):
    rng = np.random.default_rng(8)
    side, C = 16, 3
    given = {
        "patches": field(rng, 2, 1 if context == "shared" else C, side, side),
        "probe": field(rng, 2, side, side),
        "counts": rng.poisson(5.0, (2, C, side, side)).astype(float),
        "positions": rng.uniform(10, 14, (2, C, 2)),
        "lit": rng.uniform(0.1, 1, (side, side)),
        "counted": rng.uniform(size=(2, C, side, side)) > 0.1,
    }

    def loss_of(one: Any) -> Any:
        held = {name: one.asarray(value) for name, value in given.items()}

        def loss(x: Any) -> Any:
            a = held | {argument: x}
            if context == "region":
                views = region.block_views(a["patches"], a["positions"], a["lit"])
            else:
                views = merging.group_views(a["patches"], a["positions"], "probe", a["lit"])
            expected = diffraction.rate(diffraction.diffract(views, a["probe"]), 0.7)
            return losses.poisson_deviance(expected, a["counts"], a["counted"])

        return loss

    at = given[argument]
    direction = field(rng, *at.shape)
    measured = NumPy().slope(loss_of(NumPy()), at, direction)
    assert kind.slope(loss_of(kind), at, direction) == pytest.approx(measured, rel=1e-6)


@pytest.mark.tf
@pytest.mark.parametrize("shared", [False, True])
def test_one_trace_of_a_function_serves_two_batch_sizes(shared, tf):
    """Group and region views, diffraction and loss in one graph, for batches of different size and extent."""
    traces = []

    @tf.function(reduce_retracing=True, autograph=False)
    def step(patches, positions, probe, counts):
        traces.append(1)
        lit = illumination(probe)
        counted = counts >= 0
        made = []
        for views in (
            merging.group_views(patches, positions, "probe", lit),
            region.block_views(patches, positions, lit),
        ):
            expected = diffraction.rate(diffraction.diffract(views, probe), 3.0)
            made.append(losses.poisson_deviance(expected, counts, counted))
        return made

    out = 1 if shared else 4
    specs = [
        tf.TensorSpec((None, out, N, N), tf.complex128), tf.TensorSpec((None, 4, 2), tf.float64),
        tf.TensorSpec((None, N, N), tf.complex128), tf.TensorSpec((None, 4, N, N), tf.float64),
    ]  # fmt: skip
    graph = step.get_concrete_function(*specs)
    assert len(traces) == 1
    rng = np.random.default_rng(0)
    for B, reach in ((2, 3.0), (5, 9.0)):
        arrays = [
            field(rng, B, out, N, N), rng.uniform(20, 20 + reach, (B, 4, 2)), field(rng, 1, N, N),
            rng.poisson(3.0, (B, 4, N, N)).astype(float),
        ]  # fmt: skip
        made = graph(*map(tf.constant, arrays))
        lit = illumination(arrays[2])
        plain = [
            merging.group_views(*arrays[:2], "probe", lit), region.block_views(*arrays[:2], lit)
        ]  # fmt: skip
        for value, views in zip(made, plain, strict=True):
            expected = diffraction.rate(diffraction.diffract(views, arrays[2]), 3.0)
            wanted = losses.poisson_deviance(expected, arrays[3], np.array(True))
            assert float(value) == pytest.approx(float(wanted), rel=1e-10)
    assert len(traces) == 1

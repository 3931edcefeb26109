"""Stitching: every patch at its own place, through every route from a network to an image."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from delta_network import PLAIN, Deltas, N, delta_patches, landed, pixels, smooth_object, uniform

from ptycho import physics as oracle
from ptycho.backends import predictor_of
from ptycho.cli.main import main
from ptycho.errors import ConfigError, DataError
from ptycho.forward.merging import merge
from ptycho.image.canvas import auto_window_side, chunks, make_frame, scan_order, window_weights
from ptycho.image.stitcher import Stitcher, stitch
from ptycho.image.stitching import centroid_canvas, reassemble_position
from ptycho.run.reconstruction import reconstruct
from ptycho_torch.workflows import components
from ptycho_torch.workflows.trained import TrainedModel, save_trained


class TestADeltaLandsOnItsPixel:
    @pytest.mark.parametrize("M", [2, 9, 16, 32])
    @pytest.mark.parametrize("weighting", ["probe", "uniform"])
    def test_stitch(self, M, weighting):
        positions = np.array([[40, 70], [200, 75], [61, 90], [-30, 74]], float)
        made = stitch(delta_patches(4), positions, window_weights(PLAIN, M, weighting))
        assert landed(made.object, made.frame.origin_xy) == pixels(positions)
        assert made.object.shape == made.frame.shape and made.object.shape[1] > 3 * made.object.shape[0]

    def test_the_merge_of_training(self):
        positions = torch.tensor([[[40.0, 70], [44, 66], [36, 72], [40, 72]]], dtype=torch.float64)
        centre = positions.mean(1, keepdim=True)
        patches = torch.from_numpy(delta_patches(4))[None]
        canvas = merge(patches, positions - centre, torch.ones(N, N))[0]
        origin = centre[0, 0].numpy() - canvas.shape[-1] // 2
        assert landed(canvas.numpy(), origin) == pixels(positions[0].numpy())

    @pytest.mark.parametrize("gridsize", [1, 2])
    def test_the_workflow(self, make_scan, delta_module, gridsize):
        raw = make_scan(n_positions=23)
        module, _, config = delta_module(raw, gridsize=gridsize)
        results = {"models": {"diffraction_to_obj": module}}
        amplitude, phase, made = components._reassemble_cdi_image_torch(
            raw, config, M=20, train_results=results
        )
        assert amplitude.shape == phase.shape
        assert landed(amplitude, made["origin_xy"]) == pixels(raw.positions_px)
        assert made["obj_tensor_full"].shape == (23 * gridsize**2, N, N)

    def test_groups_put_each_patch_at_its_own_place_and_none_at_the_mean(self, make_scan, delta_module):
        raw = make_scan(
            n_positions=4, xcoords=np.array([20.0, 31, 20, 31]), ycoords=np.array([20.0, 20, 29, 29])
        )
        module, container, _ = delta_module(raw, gridsize=2, n_groups=1)
        made = reconstruct(predictor_of(module), container, M=20)
        assert landed(made.image.object, made.image.frame.origin_xy) == pixels(raw.positions_px)

    def test_a_shared_patch_lies_at_the_mean_of_its_group(self, make_scan, delta_module):
        raw = make_scan(
            n_positions=4, xcoords=np.array([20.0, 30, 20, 30]), ycoords=np.array([20.0, 20, 28, 28])
        )
        module, container, _ = delta_module(raw, gridsize=2, object_big=False, n_groups=1)
        made = reconstruct(predictor_of(module), container, M=20)
        assert landed(made.image.object, made.image.frame.origin_xy) == {(25.0, 24.0)}

    def test_the_client_call(self, make_scan, delta_module):
        raw = make_scan(n_positions=23)
        module, container, _ = delta_module(raw)
        model = TrainedModel(module)
        patches = model.predict([container.X * model.intensity_scale, container.local_offsets])
        image = np.squeeze(reassemble_position(patches, container.global_offsets, M=20))
        # on the canvas of the client's object, pixel on pixel
        assert image.shape == raw.objectGuess.shape and image.dtype == np.complex64
        assert landed(image, (0, 0)) == pixels(raw.positions_px)

    def test_the_client_call_without_an_object(self, make_scan, delta_module):
        raw = make_scan(n_positions=23, objectGuess=None)
        module, container, _ = delta_module(raw)
        patches = TrainedModel(module).predict([container.X, container.local_offsets])
        image = np.squeeze(reassemble_position(patches, container.global_offsets, M=20))
        origin, shape = centroid_canvas(container.global_offsets, 20)
        assert image.shape == shape
        assert landed(image, origin) == pixels(raw.positions_px)

    def test_the_client_call_with_groups(self, make_scan, delta_module):
        raw = make_scan(n_positions=23)
        module, container, _ = delta_module(raw, gridsize=2)
        patches = TrainedModel(module).predict([container.X])
        places = container.global_offsets - container.local_offsets
        image = reassemble_position(patches, places, M=20)
        assert landed(image, centroid_canvas(places, 20)[0]) == pixels(raw.positions_px)

    def test_the_client_call_with_groups_and_one_place_a_group(self, make_scan, delta_module):
        raw = make_scan(
            n_positions=4, xcoords=np.array([20.0, 30, 20, 30]), ycoords=np.array([20.0, 20, 28, 28])
        )
        module, container, _ = delta_module(raw, gridsize=2, n_groups=1)
        patches = TrainedModel(module).predict([container.X, container.local_offsets])
        assert patches.shape == (1, 32, 32, 1)
        image = np.squeeze(reassemble_position(patches, container.global_offsets, M=20))
        # far from the middle of a patch only its neighbours' tails lower the mean
        assert landed(image, (0, 0)) == pixels(raw.positions_px)

    @pytest.mark.parametrize("with_object", [True, False])
    def test_the_command_line(self, make_scan, delta_module, tmp_path, with_object):
        raw = make_scan(n_positions=23) if with_object else make_scan(n_positions=23, objectGuess=None)
        module, _, _ = delta_module(raw)
        save_trained(module, tmp_path / "model")
        np.savez(tmp_path / "scan.npz", **{k: v for k, v in raw.as_arrays().items() if v is not None})
        words = ["--model", tmp_path / "model", "--data", tmp_path / "scan.npz", "-o", tmp_path / "out"]
        assert main(["infer", *map(str, words), "--accelerator", "cpu", "--quiet"]) == 0
        with np.load(tmp_path / "out" / "reconstruction.npz", allow_pickle=False) as product:
            image, origin = product["object"], product["origin_xy"]
        assert landed(image, origin) == pixels(raw.positions_px)
        if with_object:
            assert image.shape == raw.objectGuess.shape and tuple(origin) == (0, 0)

    @pytest.mark.parametrize("flip_x", [False, True])
    @pytest.mark.parametrize("flip_y", [False, True])
    @pytest.mark.parametrize("transpose", [False, True])
    @pytest.mark.parametrize("coord_scale", [1.0, 2.0])
    def test_turned_positions(self, make_scan, delta_module, flip_x, flip_y, transpose, coord_scale):
        raw = make_scan(n_positions=7)
        module, _, config = delta_module(raw)
        turn = {"flip_x": flip_x, "flip_y": flip_y, "transpose": transpose, "coord_scale": coord_scale}
        amplitude, _, made = components._reassemble_cdi_image_torch(
            raw, config, **turn, train_results={"models": {"diffraction_to_obj": module}}
        )
        signs = np.array([-1 if flip_x else 1, -1 if flip_y else 1])
        expected = raw.positions_px * signs * coord_scale
        expected = expected[:, ::-1] if transpose else expected
        assert landed(amplitude, made["origin_xy"]) == pixels(expected)

    @pytest.mark.parametrize("bad", [0.0, -1.0, np.nan])
    def test_a_scale_that_is_none(self, make_scan, delta_module, bad):
        raw = make_scan(n_positions=7)
        module, container, _ = delta_module(raw)
        with pytest.raises(ConfigError, match="coord_scale"):
            reconstruct(predictor_of(module), container, coord_scale=bad)


class TestValues:
    def scan(self, count: int = 150, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        where = rng.uniform(30, [100, 70], (count, 2))
        return where, rng.normal(size=(count, N, N, 2)).astype(np.float32)

    def random(self, count: int = 150) -> tuple[np.ndarray, np.ndarray]:
        where, parts = self.scan(count)
        return where, np.ascontiguousarray(parts).view(np.complex64)[..., 0]

    @pytest.mark.parametrize("M", [7, 16, 32])
    def test_equals_the_numpy_oracle(self, M):
        where, patches = self.random()
        made = stitch(patches, where, uniform(M))
        image = reassemble_position(patches, where[:, None, :, None], M)
        (left, top), _ = centroid_canvas(where, M)
        x, y = (int(v) for v in np.array(made.frame.origin_xy) - (left, top))
        height, width = made.object.shape
        assert x >= 0 and y >= 0
        np.testing.assert_allclose(image[y : y + height, x : x + width], made.object, atol=2e-3)
        inside = np.zeros(image.shape, bool)
        inside[y : y + height, x : x + width] = made.covered
        assert (image[~inside] == 0).all()

    @pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
    def test_the_chunk_changes_nothing(self, chunk):
        where, patches = self.random()
        one, other = (stitch(patches, where, uniform(16), chunk=size) for size in (chunk, 32))
        assert one.frame == other.frame
        np.testing.assert_allclose(one.object, other.object, atol=1e-3)
        np.testing.assert_allclose(one.coverage, other.coverage, rtol=1e-4, atol=1e-5)

    def test_the_order_changes_nothing(self):
        where, patches = self.random()
        order = np.random.default_rng(7).permutation(len(where))
        one = stitch(patches, where, uniform(16))
        other = stitch(patches[order], where[order], uniform(16))
        np.testing.assert_allclose(one.object, other.object, atol=1e-3)

    def test_every_row_stands_once_in_the_scan_order(self):
        where, _ = self.random()
        for chunk in (1, 16, 1000):
            order = scan_order(where, chunk)
            assert sorted(order.tolist()) == list(range(len(where)))
        assert [part.stop - part.start for part in chunks(10, 4)] == [4, 4, 2]

    @pytest.mark.parametrize("weighting", ["probe", "uniform"])
    def test_sub_pixel_positions_give_a_smooth_object_back(self, weighting):
        obj, (where, _) = smooth_object(), self.scan()
        patches = oracle.extract(obj, where[:, 0], where[:, 1], N).astype(np.complex64)
        axis = np.arange(N) - N // 2
        probe = np.exp(-(axis[:, None] ** 2 + axis**2) / 50)[None].astype(np.complex64)
        made = stitch(patches, where, window_weights(probe, 16, weighting))
        x, y = (int(v) for v in made.frame.origin_xy)
        height, width = made.object.shape
        error = np.abs(made.object - obj[y : y + height, x : x + width])[made.covered]
        # where only the bilinear tail of a window reaches, a value is right to a fraction of a pixel
        assert np.median(error) < 2e-3 and np.percentile(error, 95) < 0.02

    def test_probe_weights_decide_in_the_overlap(self):
        axis = np.arange(N) - N // 2
        probe = np.exp(-(axis[:, None] ** 2 + axis**2) / 60)[None].astype(np.complex64)
        w = window_weights(probe, 16)
        assert w[8, 8] == pytest.approx(1.001) and w[8, 0] < w[8, 4] < w[8, 8]
        patches = np.ones((2, N, N), np.complex64) * np.array([1, 3j], np.complex64)[:, None, None]
        made = stitch(patches, np.array([[40.0, 40.0], [46.0, 40.0]]), w)
        x, y = (int(v) for v in made.frame.origin_xy)
        first, second = w[8, 42 - 32], w[8, 42 - 38]
        expected = (first + 3j * second) / (first + second)
        assert made.object[40 - y, 42 - x] == pytest.approx(expected, rel=1e-5)
        assert made.object[40 - y, 33 - x] == pytest.approx(1, rel=1e-5)

    def test_incoherent_modes_weigh_by_their_sum(self):
        modes = np.zeros((2, N, N), np.complex64)
        modes[0, :, : N // 2], modes[1, :, N // 2 :] = 1, 2j
        w = window_weights(modes, 16)
        assert w[0, 0] == pytest.approx(0.251) and w[0, 15] == pytest.approx(1.001)

    @pytest.mark.parametrize("M", [0, 1, N + 1])
    def test_a_window_that_cannot_be(self, M, make_scan, delta_module):
        with pytest.raises(DataError, match=f"M = {M}: the stitched window must be between 2 and N = {N}"):
            window_weights(PLAIN, M)
        module, container, _ = delta_module(make_scan(n_positions=7))
        with pytest.raises(DataError, match=f"M = {M}"):
            reconstruct(predictor_of(module), container, M=M)

    def test_the_automatic_window_follows_the_light(self):
        axis = np.arange(N) - N // 2
        sides = []
        for sigma in (2, 5, 8):
            probe = np.exp(-(axis[:, None] ** 2 + axis**2) / (4 * sigma**2))[None].astype(np.complex64)
            sides.append(auto_window_side(probe))
        assert sides[0] == N // 2 < sides[1] < sides[2] <= N


class TestStreaming:
    def test_patches_are_gone_once_they_are_added(self, make_scan, delta_module):
        alive: list[weakref.ref] = []
        batches: list[int] = []

        class Watched(Deltas):
            def forward(self, diffraction, probe):
                modulus, phase = super().forward(diffraction, probe)
                batches.append(len(diffraction))
                assert sum(reference() is not None for reference in alive) <= 1
                alive.append(weakref.ref(modulus))
                return modulus, phase

        raw = make_scan(n_positions=60)
        module, container, _ = delta_module(raw)
        module.network = Watched(1)
        seen = []
        made = reconstruct(
            predictor_of(module),
            container,
            batch_size=8,
            progress=lambda done, total: seen.append((done, total)),
        )
        assert made.patches is None
        assert batches == [8] * 7 + [4] and seen[-1] == (60, 60)

    def test_batch_size_and_kept_patches_do_not_change_the_image(self, make_scan, delta_module):
        raw = make_scan(n_positions=30)
        module, container, _ = delta_module(raw, gridsize=2)
        one = reconstruct(predictor_of(module), container, batch_size=3)
        other = reconstruct(predictor_of(module), container, batch_size=30, keep_patches=True)
        np.testing.assert_allclose(one.image.object, other.image.object, atol=1e-5)
        assert other.patches is not None and other.patches.shape == (120, N, N)

    def test_kept_patches_stand_in_the_order_of_the_groups(self, make_scan, delta_module):
        raw = make_scan(n_positions=30)
        module, container, _ = delta_module(raw)

        class Bright(Deltas):
            def forward(self, diffraction, probe):
                modulus, phase = super().forward(diffraction, probe)
                return modulus * diffraction.sum((1, 2, 3))[:, None, None, None], phase

        module.network = Bright(1)
        made = reconstruct(predictor_of(module), container, batch_size=7, keep_patches=True)
        expected = container.patterns[container.nn_indices[:, 0]].sum((1, 2))
        np.testing.assert_allclose(made.patches[:, N // 2, N // 2].real, expected, rtol=1e-4)

    def test_the_canvas_is_all_that_grows(self):
        """Ten times the patches on the same area: the same canvas."""
        shapes = set()
        for count in (20, 200):
            where = np.random.default_rng(0).uniform(20, 60, (count, 2))
            where[:2] = [[20, 20], [60, 60]]
            stitcher = Stitcher(make_frame(where, 16), uniform(16))
            for part in chunks(count, 8):
                place = where[part]
                stitcher.add(torch.ones(len(place), N, N, dtype=torch.complex64), place)
            shapes.add((stitcher._sum.shape, stitcher._weight.shape))
        assert len(shapes) == 1

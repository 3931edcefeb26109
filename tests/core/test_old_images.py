"""The image calls of older programs: stitching, registration and cropping by their older names."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from ptycho.errors import DataError, InputError
from ptycho.image.cropping import align_for_evaluation, center_crop_spatial
from ptycho.image.registration import (
    apply_shift_and_crop,
    apply_shift_fourier,
    find_translation_offset,
    register_and_align,
)
from ptycho.physics import extract
from ptycho.tf_helper import reassemble_position


@pytest.fixture
def obj() -> np.ndarray:
    rng = np.random.default_rng(5)
    smooth = gaussian_filter(rng.normal(size=(2, 120, 150)), (0, 2, 2))
    return (1 + smooth[0]) * np.exp(1j * smooth[1])


@pytest.fixture
def places() -> np.ndarray:
    return np.random.default_rng(6).integers([40, 45], [100, 75], (60, 2)).astype(float)


class TestStitching:
    @pytest.mark.parametrize("shape", [(-1, 1, 2, 1), (-1, 1, 1, 2)])
    def test_squeeze_and_the_last_index_are_the_same_image(self, obj, places, shape):
        patches = extract(obj, places[:, 0], places[:, 1], 32)
        image = reassemble_position(patches[..., None], places.reshape(shape), M=20)
        assert image.ndim == 3 and image.shape[-1] == 1
        np.testing.assert_array_equal(np.squeeze(image), image[..., 0])
        (x, y), (height, width) = places.mean(0), image.shape[:2]
        left, top = int(np.floor(x + 0.5)) - width // 2, int(np.floor(y + 0.5)) - height // 2
        seen = image[..., 0] != 0
        assert seen.sum() > 2000
        truth = obj[top : top + height, left : left + width]
        np.testing.assert_allclose(image[seen, 0], truth[seen], rtol=1e-5)

    def test_both_shapes_of_offsets_give_one_image(self, obj, places):
        patches = extract(obj, places[:, 0], places[:, 1], 32)
        images = [reassemble_position(patches, places.reshape(s), 20) for s in ((-1, 1, 2, 1), (-1, 1, 1, 2))]
        np.testing.assert_array_equal(*images)

    def test_another_shape_of_offsets_is_refused(self, obj, places):
        patches = extract(obj, places[:, 0], places[:, 1], 32)
        with pytest.raises(DataError, match=r"expected \(n,1,2,1\)"):
            reassemble_position(patches, places.reshape(-1, 2, 1, 1), 20)


class TestRegistration:
    def test_the_offset_moves_the_image_onto_the_reference(self, obj):
        moved = apply_shift_fourier(obj, (-3.25, 1.5))
        offset = find_translation_offset(moved, obj, upsample_factor=100)
        np.testing.assert_allclose(offset, (3.25, -1.5), atol=0.02)

    @pytest.mark.parametrize("take", [np.asarray, np.abs, np.angle])
    def test_aligned_images_agree(self, obj, take):
        reference = take(obj)
        image = apply_shift_fourier(reference, (2.0, -4.0))
        image = image if np.iscomplexobj(reference) else image.real
        first, second = register_and_align(image, reference, border_crop=5)
        assert first.shape == second.shape == (110, 140)
        assert np.iscomplexobj(first) == np.iscomplexobj(reference)
        np.testing.assert_array_equal(second, reference[5:-5, 5:-5])
        assert np.abs(first - second).mean() < 0.05 * np.abs(second - second.mean()).mean()

    def test_no_border_and_too_wide_a_border(self, obj):
        first, second = apply_shift_and_crop(obj, obj, (0.0, 0.0), border_crop=0)
        np.testing.assert_allclose(first, second, atol=1e-12)
        with pytest.raises(InputError, match="border_crop is 60"):
            apply_shift_and_crop(obj, obj, (0.0, 0.0), border_crop=60)


class TestCropping:
    def test_centre_of_an_image_and_of_images_with_channels(self, obj):
        np.testing.assert_array_equal(center_crop_spatial(obj, 20, 30), obj[50:70, 60:90])
        np.testing.assert_array_equal(center_crop_spatial(obj, 20), obj[50:70, 65:85])
        stack = np.stack([obj, 2 * obj])[..., None]
        np.testing.assert_array_equal(center_crop_spatial(stack, 20, 30), stack[:, 50:70, 60:90])
        with pytest.raises(InputError, match="cannot crop"):
            center_crop_spatial(obj, 200, 20)

    @pytest.mark.parametrize("by_name", [True, False])
    @pytest.mark.parametrize("whole", [True, False])
    def test_the_older_alignment_lays_a_reconstruction_on_the_truth(self, obj, places, whole, by_name):
        patches = extract(obj, places[:, 0], places[:, 1], 32)
        image = reassemble_position(patches, places.reshape(-1, 1, 2, 1), M=20)
        if whole:
            x, y = np.floor(places.mean(0) + 0.5).astype(int) - np.array(image.shape[1::-1]) // 2
            canvas = np.zeros_like(obj)
            canvas[y : y + image.shape[0], x : x + image.shape[1]] = image[..., 0]
            image = canvas
        names = ("reconstruction_image", "ground_truth_image", "scan_coords_yx", "stitch_patch_size")
        values = (image, obj, places[:, ::-1], 20)
        named = dict(zip(names, values, strict=True))
        recon, truth = align_for_evaluation(**named) if by_name else align_for_evaluation(*values)
        extent = np.ptp(places, 0)[::-1] + 20
        assert recon.shape == truth.shape == tuple(extent.astype(int))
        seen = recon != 0
        assert seen.mean() > 0.5
        np.testing.assert_allclose(recon[seen], truth[seen], rtol=1e-5)

    def test_the_call_of_today_stays(self, obj):
        recon, truth, box = align_for_evaluation(obj[10:50, 20:80], obj, (20, 10))
        assert box == (10, 50, 20, 80)
        np.testing.assert_array_equal(recon, truth)
        with pytest.raises(TypeError, match="recon_image"):
            align_for_evaluation(recon_image=obj, truth=obj)

    def test_positions_of_another_shape_are_refused(self, obj):
        with pytest.raises(InputError, match=r"scan_coords_yx has shape \(2, 60\)"):
            align_for_evaluation(obj, obj, np.ones((2, 60)), 20)

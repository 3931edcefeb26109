"""The NumPy stitching: exact placement, the plain mean, any dtype, and errors that name the remedy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from ptycho.errors import DataError
from ptycho.image.stitching import centroid_canvas, reassemble_position
from ptycho.physics import extract


def offsets(positions_xy, dtype=np.float64) -> np.ndarray:
    return np.asarray(positions_xy, dtype)[:, None, :, None]


def deltas(n: int, N: int = 32) -> np.ndarray:
    patches = np.zeros((n, N, N, 1), np.complex64)
    patches[:, N // 2, N // 2] = 1
    return patches


@pytest.mark.parametrize("M", [2, 7, 20, 32])
@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int64, np.float32, np.float64])
def test_a_delta_lands_on_its_own_pixel(M, dtype):
    positions = np.array([[40, 70], [100, 75], [61, 120]])
    image = reassemble_position(deltas(3), offsets(positions, dtype), M=M)
    (left, top), shape = centroid_canvas(offsets(positions), M)
    assert image.shape == shape and image.dtype == np.complex64
    assert np.argwhere(image != 0).tolist() == sorted([y - top, x - left] for x, y in positions.tolist())


def test_the_centre_of_the_canvas_is_the_centroid():
    positions = np.array([[10.0, 200.0], [14.0, 206.0], [18.0, 214.0]])
    (left, top), (height, width) = centroid_canvas(positions, 20)
    assert (left + width // 2, top + height // 2) == (14, 207)
    assert height > width


def test_a_half_pixel_is_shared_by_its_neighbours():
    image = reassemble_position(deltas(1), offsets([[50.5, 60.0]]), M=20)
    (left, top), _ = centroid_canvas([[50.5, 60.0]], 20)
    assert image[60 - top, 50 - left] == image[60 - top, 51 - left] == 0.5
    assert image.sum() == 1


def test_overlapping_windows_are_averaged_and_nothing_else_is_touched():
    patches = np.stack([np.full((32, 32), value, complex) for value in (1, 3j)])
    image = reassemble_position(patches, offsets([[0, 0], [10, 0]]), M=20)
    (left, _), _ = centroid_canvas([[0, 0], [10, 0]], 20)
    row = image[image.shape[0] // 2]
    assert (row[-10 - left : 0 - left] == 1).all()
    assert (row[0 - left : 10 - left] == 0.5 + 1.5j).all()
    assert (row[10 - left : 20 - left] == 3j).all()
    lonely = reassemble_position(deltas(2) + 1, offsets([[0, 0], [100, 100]]), M=20)
    assert np.count_nonzero(lonely) == 2 * 20 * 20


def test_patches_of_an_object_give_the_object_back():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:120, :150] / 20
    obj = (1 + 0.3 * np.cos(x + 0.5 * y)) * np.exp(1j * np.sin(y - 0.7 * x))
    positions = rng.uniform([40, 45], [110, 75], (80, 2))
    patches = extract(obj, positions[:, 0], positions[:, 1], 32)
    image = reassemble_position(patches, offsets(positions), M=16)
    (left, top), (height, width) = centroid_canvas(positions, 16)
    truth = obj[top : top + height, left : left + width]
    # a window's outermost pixels are bilinear tails: right to a fraction of a pixel
    seen = binary_erosion(image != 0)
    assert seen.mean() > 0.5
    errors = np.abs(image - truth)[seen]
    assert np.median(errors) < 2e-3 and errors.max() < 0.03


def test_groups_of_patches_go_to_their_own_places():
    positions = np.array([[[50, 60], [54, 60], [50, 65], [55, 66]]])
    channels = np.moveaxis(deltas(4)[..., 0], 0, -1)[None]
    image = reassemble_position(channels, np.moveaxis(positions, 1, 2)[:, None], M=20)
    (left, top), _ = centroid_canvas(positions[0], 20)
    expected = sorted([y - top, x - left] for x, y in positions[0].tolist())
    assert np.argwhere(image != 0).tolist() == expected


def test_a_single_patch_and_a_squeeze_is_what_a_client_does():
    image = np.squeeze(reassemble_position(deltas(1), offsets([[5.25, -3.5]]), M=20))
    assert image.ndim == 2 and np.iscomplexobj(image) and np.isfinite(image).all()


def test_double_precision_stays():
    assert reassemble_position(deltas(1).astype(complex), offsets([[0, 0]])).dtype == np.complex128
    assert reassemble_position(deltas(1).real, offsets([[0, 0]])).dtype == np.complex64


@pytest.mark.parametrize(
    "obj, places, M, message",
    [
        (deltas(2), offsets([[0, 0]]), 20, r"a place for every patch"),
        (deltas(2), offsets([[0, 0], [1, np.nan]]), 20, r"NaN or infinite"),
        (deltas(1), offsets([[0, 0]], complex), 20, r"must be real numbers"),
        (deltas(1), offsets([[0, 0]]), 33, r"between 2 and N = 32"),
        (deltas(1), offsets([[0, 0]]), 1, r"between 2 and N = 32"),
        (deltas(1)[:, :20], offsets([[0, 0]]), 20, r"expected patches \(n,N,N,1\)"),
        (deltas(0), np.zeros((0, 1, 2, 1)), 20, r"n at least 1"),
        (np.zeros((1, 32, 32, 4)), offsets([[0, 0]]), 20, r"global_offsets - container.local_offsets"),
        (np.full((1, 32, 32), "a"), offsets([[0, 0]]), 20, r"real or complex numbers"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(obj, places, M, message):
    with pytest.raises(DataError, match=message) as caught:
        reassemble_position(obj, places, M=M)
    assert "\n" not in str(caught.value)

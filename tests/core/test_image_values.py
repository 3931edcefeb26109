"""Canvas, windows, stitching and registration: odd sides, foreign canvases, places far out, partial
chunks.
"""

from __future__ import annotations

import numpy as np
import pytest

from ptycho.errors import DataError, InputError
from ptycho.image.canvas import (
    Frame,
    auto_window_side,
    chunks,
    make_frame,
    scan_order,
    transform_positions,
    window_weights,
)
from ptycho.image.cropping import centre_crop, centre_origin, common_box, covered_box
from ptycho.image.registration import (
    apply_shift_fourier,
    fit_phase_ramp,
    hann_window,
    phase_ramp,
    register_translation,
    spectral_peak,
    weighted_mean,
)
from ptycho.image.stitcher import Stitcher
from ptycho.image.stitching import centroid_canvas, reassemble_position


def test_centres_of_odd_and_even_sides():
    """The centre of n pixels is pixel n // 2, whatever the other image's side."""
    for have in (6, 7, 9, 10):
        for want in (3, 4, 5, 6):
            image = np.arange(have)[None, :] * np.ones((have, 1))
            assert centre_crop(image, (want, want))[0, want // 2] == have // 2
            assert centre_origin((want, want), (have, have + 1)) == (
                (have + 1) // 2 - want // 2,
                have // 2 - want // 2,
            )
    assert centre_origin((4, 4), (7, 9)) == (2, 1)
    with pytest.raises(InputError):
        centre_crop(np.zeros((4, 4)), (5, 4))


def test_common_box_stays_on_both():
    assert common_box((10, 12), (9, 20), (-3.0, 2.0)) == (2, 9, 0, 9)
    assert common_box((4, 5), (9, 20), (1.0, 2.0)) == (2, 6, 1, 6)
    with pytest.raises(InputError, match="does not overlap"):
        common_box((4, 4), (9, 20), (20.0, 0.0))


def test_covered_box_cuts_the_emptiest_border():
    seen = np.zeros((20, 24))
    seen[3:17, 5:20] = 1.0
    assert covered_box(seen) == (3, 17, 5, 20)
    seen[2, 5:18] = 1.0  # a row that is covered for 13 of 15 pixels
    assert covered_box(seen) == (3, 17, 5, 20)
    assert covered_box(seen, share=0.8) == (2, 17, 5, 20)


def test_window_side_and_weights_by_the_probe():
    """A flat square of 20 px holds 0.99 of its power only when it is whole; with a faint halo the share
    rules.
    """
    N = 32
    probe = np.zeros((1, N, N), np.complex64)
    probe[0, 6:26, 6:26] = 1.0
    assert auto_window_side(probe) == 20
    assert auto_window_side(probe, power=0.8) == 18
    shares = np.zeros((N, N))  # 96 % of the power within 18 px, 99.2 % within 20 px, the rest within 24 px
    shares[16, 16], shares[16, 6], shares[16, 4] = 0.96, 0.032, 0.008
    assert auto_window_side(np.sqrt(shares)[None].astype(np.complex64)) == 20
    whole = np.ones((1, N, N), np.complex64)
    assert auto_window_side(whole) == N
    two = np.stack([probe[0], np.zeros_like(probe[0])])
    two[0, 16, 16], two[1, 16, 16] = 2.0, 1.0
    weights = window_weights(two, 8)
    assert weights[4, 4] == pytest.approx(1 + 1e-3) and weights[0, 0] == pytest.approx(1 / 5 + 1e-3)
    assert (window_weights(two, 7, "uniform") == np.ones((7, 7), np.float32)).all()
    with pytest.raises(DataError, match="M = 1"):
        window_weights(two, 1)


def test_frame_of_the_scan_holds_every_window():
    positions = np.array([[10.2, 7.0], [14.0, 9.6]])
    frame = make_frame(positions, 5)
    assert frame.origin_xy == (8.0, 5.0)
    # the last window begins at floor(14 - 2) = 12 and floor(9.6 - 2) = 7, and has a row of bilinear tail
    assert frame.shape == (9, 10)


def test_frame_of_a_given_canvas():
    on = np.array([[-0.5, 0.0], [9.5, 4.5]])
    assert make_frame(on, 4, (5, 10)) == Frame((0.0, 0.0), (5, 10))
    assert make_frame(on[:1], 4, (5, 10)).origin_xy == make_frame(on[1:], 4, (5, 10)).origin_xy == (0.0, 0.0)
    off = on + [100.0, 200.0]
    # positions that are not on it are laid in its middle: their middle (104.5, 202.25) on pixel (4.5, 2)
    assert make_frame(off, 4, (5, 10)) == Frame((100.0, 200.0), (5, 10))
    assert make_frame(off, 4, (6, 11)) == Frame((np.round(104.5 - 5), np.round(202.25 - 2.5)), (6, 11))


def test_positions_turned_by_each_option():
    places = np.array([[1.0, 2.0], [3.0, -4.0]])
    plain = {"flip_x": False, "flip_y": False, "transpose": False, "coord_scale": 1.0}
    assert transform_positions(places, **plain).tolist() == places.tolist()
    assert transform_positions(places, **{**plain, "flip_x": True}).tolist() == [[-1, 2], [-3, -4]]
    assert transform_positions(places, **{**plain, "flip_y": True}).tolist() == [[1, -2], [3, 4]]
    assert transform_positions(places, **{**plain, "transpose": True}).tolist() == [[2, 1], [-4, 3]]
    assert transform_positions(places, **{**plain, "coord_scale": 0.5}).tolist() == [[0.5, 1], [1.5, -2]]


def test_chunks_end_with_a_partial_one():
    assert list(chunks(7, 3)) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert list(chunks(2, 3)) == [slice(0, 2)] and list(chunks(0, 3)) == []
    order = scan_order(np.random.default_rng(0).uniform(0, 9, (23, 2)), 4)
    assert sorted(order) == list(range(23))


def stitched_by_hand(patches, places, weights, frame):
    """The weighted mean, pixel by pixel, with bilinear shares, in double precision."""
    M, N = len(weights), patches.shape[-1]
    low = N // 2 - M // 2
    total = np.zeros((frame.shape[0] + 2 * M, frame.shape[1] + 2 * M), complex)
    light = np.zeros(total.shape)
    for patch, place in zip(patches, places, strict=True):
        x, y = place - M // 2 - np.array(frame.origin_xy) + M
        column, row = int(np.floor(x)), int(np.floor(y))
        fx, fy = x - column, y - row
        for i, wy in ((0, 1 - fy), (1, fy)):
            for j, wx in ((0, 1 - fx), (1, fx)):
                target = np.s_[row + i : row + i + M, column + j : column + j + M]
                total[target] += wy * wx * weights * patch[low : low + M, low : low + M]
                light[target] += wy * wx * weights
    total, light = (z[M : M + frame.shape[0], M : M + frame.shape[1]] for z in (total, light))
    reached = light > 1e-3 * weights.max()
    return np.where(reached, total / np.where(reached, light, 1), 0), np.where(reached, light, 0)


def test_stitcher_is_the_weighted_mean_also_far_from_the_origin():
    """Places of 2^20 px: a fraction formed in float32 would be off by a sixteenth of a pixel."""
    rng = np.random.default_rng(0)
    patches = (rng.standard_normal((9, 12, 12)) + 1j * rng.standard_normal((9, 12, 12))).astype(np.complex64)
    weights = rng.uniform(0.5, 2, (7, 7)).astype(np.float32)
    for far in (0.0, 2.0**20):
        places = far + rng.uniform(10, 22, (9, 2))
        frame = make_frame(places, 7)
        stitcher = Stitcher(frame, weights)
        for part in chunks(9, 4):
            stitcher.add(patches[part], places[part])
        made = stitcher.result()
        image, light = stitched_by_hand(patches, places, weights, frame)
        assert np.abs(made.object - image).max() < 1e-4
        seen = np.sort(light[light > 0])
        middle = seen[(len(seen) - 1) // 2]
        assert np.abs(made.coverage - light / middle).max() < 1e-4


def test_fractions_are_formed_in_double_precision_on_a_wide_canvas():
    """At column 2^18 + 0.3 float32 knows places to a thirty-second of a pixel."""
    rng = np.random.default_rng(2)
    patch = (rng.standard_normal((1, 4, 4)) + 1j).astype(np.complex64)
    frame = Frame((0.0, 0.0), (8, 2**18 + 8))
    stitcher = Stitcher(frame, np.ones((4, 4), np.float32))
    stitcher.add(patch, np.array([[2.0**18 + 0.3, 4.0]]))
    made = stitcher.result().object[4, 2**18 - 2 :]
    window = patch[0, 2]
    wanted = [window[0], *(0.7 * window[1:] + 0.3 * window[:-1]), window[-1]]
    assert made[:5] == pytest.approx(np.array(wanted), abs=1e-5)


def test_coverage_is_told_in_the_lower_of_the_two_middle_weights():
    stitcher = Stitcher(Frame((0.0, 0.0), (4, 8)), np.ones((4, 4), np.float32))
    one = np.ones((1, 4, 4), np.complex64)
    for x in (2.0, 6.0, 6.0):  # sixteen pixels once, sixteen pixels twice
        stitcher.add(one, np.array([[x, 2.0]]))
    made = stitcher.result()
    assert made.coverage[:, :4].max() == 1.0 and made.coverage[:, 4:].min() == 2.0


def test_a_patch_outside_the_canvas_is_left_out():
    stitcher = Stitcher(Frame((0.0, 0.0), (8, 8)), np.ones((4, 4), np.float32))
    stitcher.add(np.ones((2, 6, 6), np.complex64), np.array([[4.0, 4.0], [400.0, 4.0]]))
    assert stitcher.result().object[4, 4] == 1.0
    nowhere = Stitcher(Frame((0.0, 0.0), (8, 8)), np.ones((4, 4), np.float32))
    nowhere.add(np.ones((1, 6, 6), np.complex64), np.array([[400.0, 4.0]]))
    with pytest.raises(DataError, match="no patch reached"):
        nowhere.result()


@pytest.mark.parametrize("M", [4, 5])
def test_reassembled_patch_lies_where_centroid_canvas_says(M):
    """One bright pixel at the middle of each patch; places wider than high, centroid at a half."""
    places = np.array([[10.0, 20.0], [15.0, 22.0], [18.5, 21.0]])
    patches = np.zeros((3, 9, 9), np.complex128)
    patches[:, 4, 4] = [1.0, 2.0, 4.0]
    (x0, y0), (height, width) = centroid_canvas(places, M)
    assert (x0 + width // 2, y0 + height // 2) == (15, 21)  # the centroid is (14.5, 21)
    assert width > height
    image = reassemble_position(patches, places[:, None, :, None], M)
    assert image.shape == (height, width) and image.dtype == np.complex128
    assert image[20 - y0, 10 - x0] == pytest.approx(1.0)
    assert image[22 - y0, 15 - x0] != 0
    low = 9 // 2 - M // 2
    flat = np.arange(81.0).reshape(1, 9, 9)
    single = reassemble_position(flat, np.array([[[[30.0], [40.0]]]]), M)
    assert single.dtype == np.complex128
    (x0, y0), _ = centroid_canvas(np.array([[30.0, 40.0]]), M)
    assert (
        single[40 - M // 2 - y0 :, 30 - M // 2 - x0 :][:M, :M] == flat[0, low : low + M, low : low + M]
    ).all()
    assert (
        reassemble_position(flat.astype(np.float32), np.array([[[[30.0], [40.0]]]]), M).dtype == np.complex64
    )


def test_a_faint_bilinear_tail_is_no_coverage():
    places = np.array([[[[10.0005], [10.0]]]])
    image = reassemble_position(np.ones((1, 8, 8), np.complex128), places, 4)
    assert (np.abs(image) > 0).sum() == 16


def test_an_image_laid_on_the_clients_canvas_is_cut_to_it(make_scan):
    """Pixel on pixel, with a window that hangs over the canvas at the top and at the left."""
    from ptycho.image.stitching import _laid

    image = np.arange(1.0, 13).reshape(3, 4)
    made = _laid(image, (-1, -2), (2, 3))
    assert made.tolist() == [[10.0, 11.0, 12.0], [0.0, 0.0, 0.0]]
    made = _laid(image, (1, 1), (3, 3))
    assert made.tolist() == [[0.0, 0.0, 0.0], [0.0, 1.0, 2.0], [0.0, 5.0, 6.0]]


def test_shift_and_registration_have_one_sign():
    rng = np.random.default_rng(0)
    image = rng.standard_normal((40, 48)) + 1j * rng.standard_normal((40, 48))
    assert np.allclose(apply_shift_fourier(image, (3.0, -2.0)), np.roll(image, (3, -2), (0, 1)))
    smooth = apply_shift_fourier(
        np.outer(hann_window((40, 48))[:, 24], hann_window((40, 48))[20]) * image, (0, 0)
    )
    moved = apply_shift_fourier(smooth, (2.25, -3.5))
    found = register_translation(moved, smooth, upsample=1000)
    assert found == pytest.approx((2.25, -3.5), abs=5e-3)
    far = apply_shift_fourier(image, (7.0, -6.0))
    assert register_translation(far, image, rounds=2) == pytest.approx((7.0, -6.0), abs=0.02)


def test_the_second_round_finds_what_the_window_hid():
    """On a smooth image the window pulls a large shift towards zero; the second round finds the rest."""
    y, x = np.indices((64, 64))
    image = np.exp(-((x - 30.0) ** 2 + (y - 34.0) ** 2) / 150)
    moved = apply_shift_fourier(image, (6.0, 8.0))
    one, two = (register_translation(moved, image, upsample=100, rounds=n) for n in (1, 2))
    assert np.hypot(two[0] - 6, two[1] - 8) < 0.5 * np.hypot(one[0] - 6, one[1] - 8)


def test_ramp_is_told_in_cycles_a_pixel_along_each_axis():
    rng = np.random.default_rng(1)
    b = rng.standard_normal((40, 64)) + 1j * rng.standard_normal((40, 64))
    ramp = phase_ramp((40, 64), (0.011, -0.023))
    y, x = np.indices((40, 64))
    assert np.allclose(ramp, np.exp(2j * np.pi * (0.011 * y - 0.023 * x)))
    assert fit_phase_ramp(b * ramp, b) == pytest.approx((0.011, -0.023), abs=1e-4)


def test_upsampling_is_honoured():
    rows = np.exp(2j * np.pi * 3.2345 * np.arange(32) / 32)
    product = rows[:, None] * np.ones(32)
    fine = spectral_peak(product, upsample=1000)
    assert abs(fine[0] - 3.2345) < 1e-3 and abs(fine[1]) < 1e-3
    assert weighted_mean(np.array([[1.0, 3.0]]), np.array([[1.0, 3.0]])) == pytest.approx(2.5)

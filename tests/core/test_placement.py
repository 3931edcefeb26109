"""The call that clients know lays the image on the canvas of the client's object."""

from __future__ import annotations

import numpy as np

from ptycho.clients.loading import load
from ptycho.image.stitching import reassemble_position
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.placement import with_canvas_shape


def test_patches_of_the_object_give_the_object_back(make_scan):
    """True patches through generate_grouped_data, load and reassemble_position: same shape, same pixels."""
    raw = make_scan()
    grouped = raw.generate_grouped_data(raw.N, K=7, nsamples=raw.n_positions, gridsize=1)
    container = load(lambda: grouped, raw.probeGuess)
    image = reassemble_position(container.Y, container.global_offsets, M=12)
    assert image.shape == raw.objectGuess.shape
    seen = np.abs(image) > 0
    assert seen.sum() > 400
    np.testing.assert_allclose(image[seen], raw.objectGuess[seen], atol=1e-5)


def test_a_delta_lands_on_its_pixel():
    patches = np.zeros((1, 32, 32, 1), np.complex64)
    patches[0, 16, 16] = 1
    centre = np.array([20.0, 31.0]).reshape(1, 1, 2, 1)
    image = reassemble_position(patches, with_canvas_shape(centre, (50, 61)), M=8)
    assert image.shape == (50, 61) and np.argwhere(image).tolist() == [[31, 20]]


def test_a_canvas_that_is_too_small_cuts(make_scan):
    """Windows may stick out of the client's object; what lies inside stays where it was."""
    raw = make_scan()
    container = PtychoDataContainer.from_raw(raw, 1)
    whole = reassemble_position(container.Y, container.global_offsets, M=32)
    cut = reassemble_position(container.Y, with_canvas_shape(container.global_offsets, (40, 45)), M=32)
    np.testing.assert_array_equal(cut, whole[:40, :45])


def test_an_array_computed_from_offsets_is_plain(make_scan):
    offsets = PtychoDataContainer.from_raw(make_scan(), 1).global_offsets
    assert offsets.canvas_shape is not None
    for derived in (offsets[:3], offsets + 1, offsets.astype(np.float32)):
        assert derived.canvas_shape is None


def test_one_sample_of_many_is_pointed_out(make_scan, caplog):
    raw = make_scan()
    raw.generate_grouped_data(raw.N, nsamples=1, gridsize=1)
    assert "only 1 of 30 positions" in caplog.text
    caplog.clear()
    raw.generate_grouped_data(raw.N, nsamples=30, gridsize=1)
    assert caplog.text == ""

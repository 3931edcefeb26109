"""The illumination: shapes, masks, and modes that keep their intensity."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho.clients.probe import get_probe, set_probe_guess
from ptycho.errors import DataError
from ptycho.scan.probe import (
    as_modes,
    illuminated_diameter_px,
    orthogonalise_modes,
    probe_mask,
)


def random_modes(P=3, N=32, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((P, N, N)) + 1j * rng.standard_normal((P, N, N))).astype(np.complex64)


def test_shapes_become_modes():
    one = random_modes(1)
    for given in (one, one[0], one[0][..., None]):
        np.testing.assert_array_equal(as_modes(given), one)
    three = random_modes(3)
    np.testing.assert_array_equal(as_modes(three.astype(np.complex128)), three)


@pytest.mark.parametrize("shape", [(32,), (32, 31), (3, 32, 31), (1, 1, 32, 32), (0, 32, 32)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(DataError, match="probeGuess has shape"):
        as_modes(np.ones(shape, complex))


def test_the_old_surface_keeps_a_probe():
    from ptycho.clients import params

    before = dict(params.cfg)
    try:
        set_probe_guess(None, random_modes(2))
        np.testing.assert_array_equal(get_probe(), random_modes(2))
        params.cfg.pop("probe")
        with pytest.raises(DataError, match="set_probe_guess"):
            get_probe()
    finally:
        params.cfg.clear()
        params.cfg.update(before)


def test_orthogonalised_modes():
    modes = random_modes(3)
    modes[2] += 0.7 * modes[0]
    rotated = orthogonalise_modes(modes)
    np.testing.assert_allclose(
        np.sum(np.abs(rotated) ** 2, axis=0), np.sum(np.abs(modes) ** 2, axis=0), rtol=1e-4
    )
    far = [np.sum(np.abs(np.fft.fft2(m)) ** 2, axis=0) for m in (rotated, modes)]
    np.testing.assert_allclose(far[0], far[1], rtol=1e-4)
    flat = rotated.reshape(3, -1).astype(complex)
    gram = flat @ flat.conj().T
    powers = np.diag(gram).real
    np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=1e-3 * powers[-1])
    assert np.all(np.diff(powers) <= 0)


def test_mask_is_a_soft_disk():
    mask = probe_mask(64, sigma=1.0, diameter=20)
    assert mask.shape == (64, 64) and mask.dtype == np.float32
    assert mask[32, 32] == pytest.approx(1) and mask[0, 0] == pytest.approx(0)
    assert mask[32, 42] == pytest.approx(0.5)
    assert mask.sum() == pytest.approx(np.pi * (10**2 + 1), rel=0.01)
    np.testing.assert_array_equal(mask[1:, 1:], mask[1:, 1:][::-1, ::-1])


def test_hard_and_default_masks():
    assert set(np.unique(probe_mask(64, sigma=0.0))) == {0.0, 1.0}
    assert probe_mask(64, sigma=0.0).sum() == pytest.approx(np.pi * 16**2, rel=0.02)
    for options in ({"sigma": -1.0}, {"diameter": 0.0}, {"diameter": float("nan")}):
        with pytest.raises(DataError, match="probe_mask_"):
            probe_mask(64, **options)


def test_illuminated_diameter():
    disk = probe_mask(128, sigma=0.0, diameter=40).astype(complex)
    assert illuminated_diameter_px(np.roll(disk, 9, axis=1)) == pytest.approx(40 * np.sqrt(0.9), abs=1)
    dot = np.zeros((32, 32), complex)
    dot[16, 16] = 1
    assert 1 < illuminated_diameter_px(dot) < 1.2

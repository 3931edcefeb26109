"""The container: each pattern held once, groups and labels cut from it when asked for."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from ptycho.clients.loading import load
from ptycho.errors import DataError
from ptycho.scan.container import PtychoDataContainer


def from_raw(make_scan, **options):
    return PtychoDataContainer.from_raw(make_scan(), **{"gridsize": 2, "n_neighbors": 6, **options})


def test_shapes_and_dtypes(make_scan):
    c = from_raw(make_scan)
    assert len(c) == 30 and (c.N, c.gridsize) == (32, 2)
    assert c.patterns.shape == (30, 32, 32) and c.patterns.dtype == np.float32
    assert c.X.shape == (30, 32, 32, 4) and c.X.dtype == np.float32
    assert c.Y.shape == (30, 32, 32, 4) and c.Y.dtype == np.complex64
    assert c.global_offsets.shape == (30, 1, 2, 1) and c.global_offsets.dtype == np.float64
    assert c.local_offsets.shape == c.coords_nominal.shape == c.coords_true.shape == (30, 1, 2, 4)
    assert c.probe.shape == (1, 32, 32) and c.probe.dtype == np.complex64
    assert c.nn_indices.shape == (30, 4) and c.positions_px.shape == (30, 2)


def test_groups_are_the_patterns_they_name(make_scan):
    c = from_raw(make_scan)
    for b in (0, 7, 29):
        for k in range(4):
            np.testing.assert_array_equal(c.X[b, ..., k], c.patterns[c.nn_indices[b, k]])
            centre = c.global_offsets[b, 0, :, 0] - c.local_offsets[b, 0, :, k]
            np.testing.assert_allclose(centre, c.positions_px[c.nn_indices[b, k]])


def test_gauges(make_scan, scan_arrays):
    c = from_raw(make_scan)
    counts = (c.intensity_scale * c.patterns.astype(float)) ** 2
    np.testing.assert_allclose(counts, scan_arrays["diff3d"], rtol=1e-5)
    assert c.nphotons == pytest.approx(scan_arrays["diff3d"].sum((1, 2)).mean(), rel=1e-6)
    assert np.mean(np.sum(c.patterns.astype(float) ** 2, (1, 2))) == pytest.approx(16**2, rel=1e-5)


def test_training_gauge_is_reused(make_scan):
    train = from_raw(make_scan)
    brighter = make_scan(photons=4e4)
    test = PtychoDataContainer.from_raw(brighter, 1, x_scale=train.x_scale, nphotons=train.nphotons)
    assert (test.x_scale, test.nphotons) == (train.x_scale, train.nphotons)
    np.testing.assert_allclose(test.patterns, brighter.amplitude() * train.x_scale, rtol=1e-6)


def test_labels_are_at_the_patterns_own_positions(make_scan, scan_arrays):
    """A ramp object makes bilinear patches exact, also between pixels; members of a group differ as positions
    do."""
    rows, columns = np.indices((90, 90))
    ramp = (1.0 * columns + 1000.0 * rows) * (1 + 0j)
    x, y = scan_arrays["xcoords"] + 0.25, scan_arrays["ycoords"] + 0.5
    c = PtychoDataContainer.from_raw(make_scan(objectGuess=ramp, xcoords=x, ycoords=y), 2, n_neighbors=6)
    centre = c.Y[:, 16, 16, :]
    np.testing.assert_allclose(centre, x[c.nn_indices] + 1000 * y[c.nn_indices], rtol=1e-6)
    np.testing.assert_allclose(c.Y_I, np.abs(c.Y))
    np.testing.assert_allclose(c.Y_phi, np.angle(c.Y))


def test_no_object_no_labels(make_scan):
    c = PtychoDataContainer.from_raw(make_scan(objectGuess=None), 1)
    assert c.Y is None and c.Y_I is None and c.Y_phi is None


def test_given_labels_win(make_scan):
    raw = make_scan()
    raw.Y = np.full(raw.diff3d.shape, 2j)
    np.testing.assert_array_equal(PtychoDataContainer.from_raw(raw, 1).Y, 2j)


def test_bad_pixels_are_carried(make_scan):
    bad = np.eye(32, dtype=bool)
    c = PtychoDataContainer.from_raw(make_scan(bad_pixels=bad), 1)
    np.testing.assert_array_equal(c.bad_pixels, bad)


@pytest.mark.parametrize("nsamples, gridsize", [(30, 2), (5, 2), (5, 1), (1, 1)])
def test_load_agrees_with_from_raw(make_scan, nsamples, gridsize):
    """The legacy way, through a dictionary of materialised groups, holds the same numbers."""
    raw = make_scan()
    data = raw.generate_grouped_data(32, K=6, nsamples=nsamples, seed=4, gridsize=gridsize)
    old = load(lambda: data, raw.probeGuess, which=None, create_split=False)
    new = PtychoDataContainer.from_raw(raw, gridsize, n_groups=nsamples, n_neighbors=6, seed=4)
    for name in ("X", "Y", "global_offsets", "local_offsets", "coords_nominal", "probe"):
        np.testing.assert_allclose(getattr(old, name), getattr(new, name), rtol=1e-6, err_msg=name)
    np.testing.assert_array_equal(old.source_rows[old.nn_indices], new.nn_indices)
    assert old.x_scale == pytest.approx(new.x_scale, rel=1e-6)
    assert old.nphotons == pytest.approx(new.nphotons, rel=0.3)


def test_load_splits_when_asked(make_scan):
    data = make_scan().generate_grouped_data(32, nsamples=30, gridsize=1)
    probe = make_scan().probeGuess
    train, test = (load(lambda: data, probe, which=which, create_split=True) for which in ("train", "test"))
    assert len(train) + len(test) == 30 and len(test) >= 1
    together = set(train.source_rows[train.nn_indices[:, 0]]) | set(test.source_rows[test.nn_indices[:, 0]])
    assert together == set(range(30))
    with pytest.raises(DataError, match="which is 'x'.*'train' or 'test'"):
        load(lambda: data, probe, which="x", create_split=True)


def test_load_names_a_missing_key(make_scan):
    data = make_scan().generate_grouped_data(32, gridsize=1)
    del data["coords_nn"]
    with pytest.raises(DataError, match="'coords_nn'"):
        load(lambda: data, make_scan().probeGuess)


def test_select_keeps_only_the_chosen_groups(make_scan):
    c = from_raw(make_scan)
    part = c.select(np.array([3, 9]))
    assert len(part) == 2
    np.testing.assert_array_equal(part.X, c.X[[3, 9]])
    assert np.shares_memory(part.patterns, c.patterns)


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.2, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("n", [2, 3, 30])
def test_split_always_leaves_both_sides_something(make_scan, n, fraction):
    train, validation = from_raw(make_scan, n_groups=n).split(fraction, seed=1)
    assert len(train) >= 1 and len(validation) >= 1
    assert sorted([*train, *validation]) == list(range(n))


def test_split_is_seeded_and_about_the_asked_size(make_scan):
    c = from_raw(make_scan)
    np.testing.assert_array_equal(c.split(0.2, 1)[1], c.split(0.2, 1)[1])
    assert not np.array_equal(c.split(0.2, 1)[1], c.split(0.2, 2)[1])
    assert len(c.split(0.2, 1)[1]) == 6


def test_one_group_cannot_be_split(make_scan):
    train, validation = from_raw(make_scan, n_groups=1).split(0.5, seed=0)
    assert len(train) == 1 and len(validation) == 0
    with pytest.raises(DataError, match="val_fraction is 1.5"):
        from_raw(make_scan).split(1.5, seed=0)


def test_survives_a_spawned_process(make_scan):
    c = pickle.loads(pickle.dumps(from_raw(make_scan)))
    np.testing.assert_array_equal(c.X, from_raw(make_scan).X)


def test_scan_of_another_gridsize_is_not_disturbed(make_scan):
    one, two = from_raw(make_scan, gridsize=1), from_raw(make_scan, gridsize=2)
    assert (one.X.shape[-1], two.X.shape[-1]) == (1, 4)

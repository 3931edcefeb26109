"""The pipeline hands out what the plan says: same groups, same order, validation always, patterns once."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho.run.batches import label_scale
from ptycho.run.preparation import ensure_container, plan_training, train_and_test

tf = pytest.importorskip("tensorflow")
data = pytest.importorskip("ptycho.tf.data")


def prepared(raw, config):
    container = ensure_container(raw, config)
    plan = plan_training(container, None, config)
    return (
        container,
        plan,
        data.ScanSetTensors.of(container, held_out=plan.held_out, label_scales=plan.label_scales),
    )


@pytest.mark.parametrize("workers", [0, 3])
def test_batches_are_the_plans(make_scan, small_config, workers):
    raw = make_scan()
    config = small_config(raw, gridsize=2, region_ratio=0.5)
    container, plan, scan = prepared(raw, config)
    seen = list(data.training_dataset(scan, plan, 1, 3, workers=workers))
    wanted = plan.epoch(1) + plan.epoch(2)
    assert len(seen) == len(wanted) == 2 * plan.n_batches
    for batch, (groups, region) in zip(seen, wanted, strict=True):
        members = container.nn_indices[groups]
        np.testing.assert_array_equal(batch["x"], container.patterns[members])
        np.testing.assert_array_equal(batch["positions_xy"], container.positions_px[members])
        assert bool(batch["region"]) == region and "labels" not in batch
        assert batch["positions_xy"].dtype == tf.float64


def test_shapes_that_do_not_vary_are_known_when_the_step_is_traced(make_scan, small_config):
    _, plan, scan = prepared(make_scan(), small_config(make_scan(), gridsize=2))
    spec = data.training_dataset(scan, plan, 0, 1).element_spec
    assert spec["x"].shape.as_list() == [None, 4, 32, 32]
    assert spec["positions_xy"].shape.as_list() == [None, 4, 2]


def test_more_than_ten_thousand_groups_keep_their_validation_and_the_patterns_are_held_once(
    make_scan, small_config
):
    raw = make_scan(n_positions=49)
    config = small_config(
        raw, gridsize=2, n_groups=12000, neighbor_count=20, enable_oversampling=True, batch_size=500
    )
    container, plan, scan = prepared(raw, config)
    assert len(container) == 12000
    assert scan.scans[0].patterns.shape == (49, 32, 32)
    counted = sum(int(tf.reduce_sum(tf.cast(b["counted"], tf.int64))) for b in
                  data.validation_dataset(scan, plan))  # fmt: skip
    assert counted == 4 * plan.held_out.sum() >= 4 * 1200


def test_labels_are_in_the_networks_gauge(make_scan, small_config):
    raw = make_scan()
    config = small_config(raw, model_type="supervised")
    container, plan, scan = prepared(raw, config)
    batch = next(iter(data.validation_dataset(scan, plan)))
    groups = plan.validation[0][0]
    wanted = container.pattern_labels(container.nn_indices[groups]) * label_scale(container, 4.0)
    np.testing.assert_allclose(batch["labels"], wanted, rtol=1e-6)
    assert batch["counted"].numpy().all()


def test_of_two_scans_each_groups_own_flag_says_whether_it_counts(pair, small_config):
    config = small_config(pair[0])
    scans, _ = train_and_test(pair, None, config)
    held_out = np.zeros(64, bool)
    held_out[[1, 2, 39, 45, 63]] = True
    scan = data.ScanSetTensors.of(scans, held_out=held_out)
    found = [
        scan.batch(tf.constant([group], tf.int64), tf.constant(False))["counted"].numpy().all()
        for group in range(64)
    ]
    np.testing.assert_array_equal(found, held_out)


def test_a_scan_in_double_precision(make_scan, small_config):
    container = ensure_container(make_scan(), small_config(make_scan()))
    scan = data.ScanSetTensors.of(container, label_scales=[1.0], dtype="float64").scans[0]
    assert scan.patterns.dtype == tf.float64 and scan.labels.dtype == tf.complex128

"""A deliberately broken run: a learning rate that kills a network of rectifiers, and the alarm that tells."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ptycho_torch.workflows import components

#: what no pixel is left to light up does not come back: the gradient is zero where a rectifier is
DEADLY = {"amp_activation": "relu", "probe_from": "guess", "nepochs": 8}


def test_the_alarm_sounds_for_a_run_that_its_learning_rate_killed(make_scan, small_config, silent, caplog):
    raw, dead = make_scan(), "the network is dead: for 3 epochs"
    config = small_config(raw, **DEADLY)
    healthy = components.train_cdi_model_torch(raw, None, config, silent)["history"]
    assert min(healthy["diagnostics/object_spread_mean"]) > 0.03 and dead not in caplog.text

    with caplog.at_level("WARNING"):
        killed = dataclasses.replace(silent, learning_rate=0.3)
        history = components.train_cdi_model_torch(raw, None, config, killed)["history"]
    spread = history["diagnostics/object_spread_mean"]
    assert spread[0] > 0.1 and spread[-3:] == [0.0] * 3  # it lived at first
    assert caplog.text.count(dead) == 1
    # nothing is predicted any more, and nothing moves
    assert history["diagnostics/r_frac"][-1] == pytest.approx(1)
    np.testing.assert_array_equal(np.diff(history["val_loss"][-3:]), 0)


def test_the_alarm_sounds_where_a_few_pixels_are_left(make_scan, small_config, silent, caplog):
    raw = make_scan()
    blinded = dataclasses.replace(silent, learning_rate=1.0)
    with caplog.at_level("WARNING"):
        history = components.train_cdi_model_torch(raw, None, small_config(raw, **DEADLY), blinded)["history"]
    assert min(history["diagnostics/object_spread_mean"]) > 0.1 and min(history["diagnostics/r_frac"]) > 1
    assert (
        caplog.text.count("the network is dead: for 3 epochs it has explained none of the diffraction") == 1
    )

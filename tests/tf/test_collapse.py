"""A deliberately broken Keras run: a learning rate that kills rectifiers, and the alarm that tells."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ptycho.workflows import components

#: what no pixel is left to light up does not come back: the gradient is zero where a rectifier is
DEADLY = {"amp_activation": "relu", "probe_from": "guess", "nepochs": 8}


def test_the_alarm_sounds_for_a_run_that_its_learning_rate_killed(make_scan, small_config, silent, caplog):
    """That it is silent for a healthy run, and sounds with a few pixels left, is shown with torch."""
    raw, dead = make_scan(), "the network is dead: for 3 epochs"
    config = small_config(raw, **DEADLY)
    with caplog.at_level("WARNING"):
        killed = dataclasses.replace(silent, learning_rate=0.3)
        history = components.train_cdi_model(raw, None, config, killed)["history"]
    spread = history["diagnostics/object_spread_mean"]
    assert spread[0] > 0.1 and spread[-3:] == [0.0] * 3  # it lived at first
    assert caplog.text.count(dead) == 1
    # nothing is predicted any more, and nothing moves
    assert history["diagnostics/r_frac"][-1] == pytest.approx(1)
    np.testing.assert_array_equal(np.diff(history["val_loss"][-3:]), 0)

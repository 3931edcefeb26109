"""The manifest in TensorFlow: flat is declared, watching changes nothing, a diagnostic stops nothing."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho.config.config import PyTorchExecutionConfig
from ptycho.objectives.terms import DIAGNOSTICS
from ptycho.tracking.names import in_contract
from ptycho.workflows import components

tf = pytest.importorskip("tensorflow")

EVERY = [{"name": name} for name in DIAGNOSTICS]


def weights(results) -> dict[str, np.ndarray]:
    from ptycho.tf.fit.checkpoints import model_arrays

    return model_arrays(results["models"]["diffraction_to_obj"])


def same(one, other) -> bool:
    return all(np.array_equal(value, weights(other)[name]) for name, value in weights(one).items())


def test_flat_is_declared_and_watching_changes_nothing(make_scan, small_config, silent):
    raw = make_scan()
    flat = {"mae_weight": 2.0, "realspace_weight": 0.01}
    declared = {
        "objectives": [
            {"name": "poisson_nll"},
            {"name": "amplitude_mae", "weight": 2.0},
            {"name": "total_variation", "weight": 0.01},
        ]
    }
    settings = {"probe_trainable": True, "gradient_clip_val": 1.0, "nepochs": 1}
    blind, watched = (
        components.train_cdi_model(raw, None, small_config(raw, diagnostics=d, **given, **settings), silent)
        for given, d in ((flat, []), (declared, EVERY))
    )
    assert same(blind, watched)
    history = watched["history"]
    for name in set(blind["history"]):
        assert blind["history"][name] == history[name], name
    assert all(in_contract(name) for name in set(history) - {"epoch"})
    assert 0 < history["diagnostics/r_frac"][-1] < 1
    assert 0 < history["diagnostics/probe_drift_frac"][-1] < 0.5
    assert history["diagnostics/gradient_norm_mean"][-1] > 0


def test_a_diagnostic_that_fails_warns_once_and_a_dead_network_is_told(
    make_scan, small_config, silent, monkeypatch, caplog
):
    from ptycho.forward import diagnostics
    from ptycho.tf.model import PtychoPINN_Keras

    def broken(seen):
        raise ValueError("no such thing")

    plain = PtychoPINN_Keras.attach_scan

    def dead(self, *arguments, **options):
        plain(self, *arguments, **options)
        for variable in self.network.weights:
            variable.assign(tf.zeros_like(variable))

    raw = make_scan()
    config = small_config(raw, diagnostics=[{"name": "photons"}, {"name": "collapse"}], nepochs=3)
    monkeypatch.setitem(diagnostics.BATCH_SUMS, "photons", broken)
    monkeypatch.setattr(PtychoPINN_Keras, "attach_scan", dead)
    execution = PyTorchExecutionConfig(**{**vars(silent), "learning_rate": 1e-12})
    with caplog.at_level("WARNING"):
        history = components.train_cdi_model(raw, None, config, execution)["history"]
    # one for training, one for validation
    assert caplog.text.count("diagnostic photons failed and is switched off: no such thing") == 2
    assert not [name for name in history if "photons" in name]
    assert len(history["diagnostics/object_spread_mean"]) == 3
    assert caplog.text.count("the network is dead: for 3 epochs") == 1

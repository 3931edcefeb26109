"""Diagnostics of Keras runs: torch's numbers, and a failure at any time costs the diagnostic, not the run."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ptycho.objectives.diagnostics import finish, slots
from ptycho.objectives.manifest import Module
from ptycho.workflows import components

tf = pytest.importorskip("tensorflow")

MODULES = tuple(map(Module, ("r_factor", "photons", "phase_range", "collapse")))


def batches(count: int, N: int = 16) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(3)

    def one(size: int) -> dict[str, np.ndarray]:
        wave = rng.normal(size=(2, size, 4, N, N))
        counted = rng.random((size, 4)) > 0.3
        return {
            "x": rng.random((size, 4, N, N)), "of_batch": counted, "amplitude": rng.random((size, 4, N, N)),
            "expected": rng.random((size, 4, N, N)), "counts": rng.random((size, 4, N, N)),
            "counted": counted[..., None, None] & (rng.random((N, N)) > 0.1),
            "patches": wave[0] + 1j * wave[1], "illumination": rng.random((N, N)) ** 2,
        }  # fmt: skip

    return [one(8 - n) for n in range(count)]


def seen(arrays: dict[str, np.ndarray], as_tensor) -> SimpleNamespace:
    made = {name: as_tensor(value) for name, value in arrays.items()}
    return SimpleNamespace(batch={"x": made.pop("x"), "counted": made.pop("of_batch")}, **made)


def test_the_sums_in_and_outside_a_graph_are_those_of_torch():
    from ptycho.tf.diagnostics import Watch
    from ptycho_torch.diagnostics import Watch as TorchWatch

    theirs, eager, traced = TorchWatch(MODULES), Watch(MODULES), Watch(MODULES)
    for watch in (eager, traced):
        watch.open("float64")
    traces = []

    @tf.function(reduce_retracing=True, autograph=False)
    def step(arrays):
        traces.append(1)
        traced.see(seen(arrays, tf.convert_to_tensor))

    for arrays in batches(4):
        theirs.see(seen(arrays, torch.from_numpy))
        eager.see(seen(arrays, tf.convert_to_tensor))
        eager.look()
        step({name: tf.convert_to_tensor(value) for name, value in arrays.items()})
        traced.look()
    wanted = theirs.finish(lambda values: values)
    assert len(wanted) == 7 and not any(np.isnan(value) for value in wanted.values())
    for watch in (eager, traced):
        assert watch.finish() == pytest.approx(wanted, rel=1e-12)
    assert len(traces) <= 2  # once, and once more for a batch of any size


def late(sums, calls):
    """Fails while the graph runs, in the second batch and all others."""

    def failing(seen):
        with tf.control_dependencies([tf.debugging.assert_less(calls.assign_add(1), 2, message="too late")]):
            return tuple(map(tf.identity, sums(seen)))

    return failing


def never(seen):
    """Can be traced; what it says is wrong of every batch."""
    tf.debugging.assert_less(tf.reduce_max(seen.batch["x"]), 0.0, message="x is not negative")
    return tf.constant(1.0), tf.constant(1.0), tf.constant(1.0)


@pytest.mark.parametrize("how", ["never", "late"])
def test_a_diagnostic_that_fails_while_the_graph_runs_is_switched_off(
    make_scan, small_config, silent, monkeypatch, caplog, how
):
    from ptycho.forward import diagnostics
    from ptycho.tf.fit.checkpoints import model_arrays

    raw, calls = make_scan(n_positions=24), tf.Variable(0)
    config = small_config(raw, diagnostics=[{"name": "photons"}, {"name": "r_factor"}])
    wanted = components.train_cdi_model(raw, None, config, silent)
    broken = never if how == "never" else late(diagnostics._photons, calls)
    monkeypatch.setitem(diagnostics.BATCH_SUMS, "photons", broken)
    with caplog.at_level("WARNING"):
        found = components.train_cdi_model(raw, None, config, silent)
    # one for training, one for validation
    assert caplog.text.count("diagnostic photons failed and is switched off: ") == 2
    assert caplog.text.count("x is not negative" if how == "never" else "too late") == 2
    assert "photons" not in " ".join(found["history"])
    assert found["history"]["diagnostics/r_frac"] == wanted["history"]["diagnostics/r_frac"]
    one, other = (model_arrays(made["models"]["diffraction_to_obj"]) for made in (wanted, found))
    assert all(np.array_equal(value, other[name]) for name, value in one.items())


def test_a_diagnostic_off_leaves_the_sums_of_the_others():
    from ptycho.tf.diagnostics import Watch

    watch = Watch(MODULES)
    watch.open("float64")
    watch._off.add("collapse")
    (arrays,) = batches(1)
    watch.see(seen(arrays, tf.convert_to_tensor))
    watch.look()
    found = watch.finish()
    assert np.isnan(found["object_spread_mean"]) and found["r_frac"] > 0
    assert slots(MODULES) and finish(MODULES, dict.fromkeys(slots(MODULES), 1.0)).keys() == found.keys()

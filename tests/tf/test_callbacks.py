"""Callbacks of Keras itself: average and histograms, judged against formulas and what torch writes."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from ptycho.config.config import PyTorchExecutionConfig
from ptycho.workflows import components


class Steps(keras.callbacks.Callback):
    """The scale after every optimiser step, and the one that is validated."""

    def __init__(self) -> None:
        super().__init__()
        self.after: list[float] = []
        self.validated: list[float] = []

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.steps.iterations.numpy()) > len(self.after):
            self.after.append(float(self.model.log_scale.numpy()))

    def on_test_batch_begin(self, batch, logs=None):
        if batch == 0:
            self.validated.append(float(self.model.log_scale.numpy()))


def averages(steps: list[float], decay: float) -> list[float]:
    kept, made = steps[0], [steps[0]]
    for n, now in enumerate(steps[1:], 1):
        kept += (1 - min(decay, (1 + n) / (10 + n))) * (now - kept)
        made.append(kept)
    return made


def test_the_moving_average_is_validated_and_kept(make_scan, small_config, tmp_path, monkeypatch):
    from ptycho.tf.fit import run

    raw, seen = make_scan(n_positions=49), Steps()
    plain = run.make_callbacks
    monkeypatch.setattr(run, "make_callbacks", lambda *a, **k: [*plain(*a, **k), seen])
    execution = PyTorchExecutionConfig(
        accelerator="cpu", accum_steps=2, checkpoint_save_top_k=0, logger_backend="none"
    )
    config = small_config(raw, nepochs=3, ema_decay=0.3, output_dir=tmp_path)
    results = components.train_cdi_model(raw, None, config, execution)
    wanted = averages(seen.after, 0.3)
    per_epoch = len(seen.after) // 3
    np.testing.assert_allclose(seen.validated, wanted[per_epoch - 1 :: per_epoch], rtol=1e-5)
    final = float(results["models"]["diffraction_to_obj"].log_scale.numpy())
    assert final == pytest.approx(wanted[-1], rel=1e-5) and abs(final - seen.after[-1]) > 1e-4 * abs(final)


def test_tensorboard_gets_the_histograms_of_torch(make_scan, small_config, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from ptycho_torch.workflows import components as torch_components

    raw, found = make_scan(n_positions=12), []
    execution = PyTorchExecutionConfig(
        accelerator="cpu", enable_checkpointing=False, logger_backend="tensorboard"
    )
    for name, train, backend in (
        ("tf", components.train_cdi_model, "tensorflow"),
        ("torch", torch_components.train_cdi_model_torch, "pytorch"),
    ):
        config = small_config(
            raw, nepochs=10, output_dir=tmp_path / name, probe_trainable=True, backend=backend
        )
        train(raw, None, config, execution)
        events = EventAccumulator(str(tmp_path / name / "logs"), size_guidance={"histograms": 0})
        events.Reload()
        found.append({tag: events.Histograms(tag)[0] for tag in events.Tags()["histograms"]})
        assert [image.step for image in events.Images("figures/sampler_coverage")] == [19]
    assert found[0].keys() == found[1].keys()
    for tag, histogram in found[0].items():
        assert histogram.step == found[1][tag].step == 19
        assert histogram.histogram_value.num == found[1][tag].histogram_value.num, tag

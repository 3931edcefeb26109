"""The moving average of the weights in a Keras run with stages: kept, and that of torch."""

from __future__ import annotations

import keras
import numpy as np

from ptycho.config.config import PyTorchExecutionConfig
from ptycho.workflows import components

DECAY = 0.4
#: 27 training groups are four batches, so two optimiser steps an epoch; two stages begin within one
STAGES = [
    {"name": "heads", "steps": 3, "trainable": "decoder", "objectives": "poisson_nll"},
    {"name": "probe", "steps": 2, "trainable": "probe"},
    {"name": "all", "epochs": 2, "learning_rate": {"encoder": 1e-3}},
]
#: plain gradient descent: where a gradient is zero, Adam makes a whole step of rounding
SETTINGS = {
    "stages": STAGES, "objectives": [{"name": "poisson_nll"}, {"name": "smoothness", "weight": 0.1}],
    "scheduler": "WarmupCosine", "probe_trainable": True, "probe_from": "guess", "ema_decay": DECAY,
    "optimizer": "sgd", "momentum": 0.5, "gradient_clip_val": 1.0,
}  # fmt: skip
EXECUTION = PyTorchExecutionConfig(
    accelerator="cpu", logger_backend="none", learning_rate=0.005, accum_steps=2
)


class Steps(keras.callbacks.Callback):
    """The probe after every optimiser step, and the one that is validated."""

    def __init__(self) -> None:
        super().__init__()
        self.after: list[np.ndarray] = []
        self.validated: list[np.ndarray] = []

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.steps.iterations.numpy()) > len(self.after):
            self.after.append(np.array(self.model.probe.numpy()))

    def on_test_batch_begin(self, batch, logs=None):
        if batch == 0:
            self.validated.append(np.array(self.model.probe.numpy()))


def averages(steps: list[np.ndarray]) -> list[np.ndarray]:
    """The average after every step: the n-th forgets by min(decay, (1 + n) / (10 + n)), the first copies."""
    made = [steps[0]]
    for n, now in enumerate(steps[1:], 1):
        made.append(made[-1] + (1 - min(DECAY, (1 + n) / (10 + n))) * (now - made[-1]))
    return made


def arrays(results) -> dict[str, np.ndarray]:
    from ptycho.tf.fit.checkpoints import model_arrays

    return model_arrays(results["models"]["diffraction_to_obj"])


def test_the_average_goes_on_across_stages_and_is_that_of_torch(
    make_scan, small_config, tmp_path, monkeypatch
):
    from ptycho.tf.fit import run as training
    from ptycho.tf.fit.checkpoints import read_checkpoint
    from ptycho_torch.layers import neutral_weights
    from ptycho_torch.workflows.components import train_cdi_model_torch

    raw, seen = make_scan(), Steps()
    plain = training.make_callbacks
    monkeypatch.setattr(training, "make_callbacks", lambda *a, **k: [*plain(*a, **k), seen])
    config = small_config(raw, output_dir=tmp_path / "tf", **SETTINGS)
    results = components.train_cdi_model(raw, None, config, EXECUTION)
    wanted = averages(seen.after)
    assert len(wanted) == 9 and len(seen.validated) == 5
    for after, validated in zip((2, 4, 6, 8, 9), seen.validated, strict=True):
        np.testing.assert_allclose(validated, wanted[after - 1], rtol=1e-5, atol=1e-6)
    final = arrays(results)
    np.testing.assert_allclose(final["probe"], wanted[-1], rtol=1e-5, atol=1e-6)
    went = np.abs(seen.after[-1] - seen.after[0]).max()
    assert np.abs(final["probe"] - seen.after[-1]).max() > 0.01 * went > 0
    stored = read_checkpoint(tmp_path / "tf" / "checkpoints" / "last.safetensors")[0]
    assert all(np.array_equal(value, final[name]) for name, value in stored.items())

    theirs = train_cdi_model_torch(
        raw, None, small_config(raw, output_dir=tmp_path / "torch", backend="pytorch", **SETTINGS), EXECUTION
    )
    module = theirs["models"]["diffraction_to_obj"]
    torch_arrays = {f"network.{n}": v.numpy() for n, v in neutral_weights(module.network).items()}
    torch_arrays |= {"probe": module.probe.detach().numpy(), "log_scale": module.log_scale.detach().numpy()}
    for name, value in torch_arrays.items():
        # a gradient that vanishes is rounding: judged by the longest step, which clipping makes the rate
        assert np.abs(final[name] - value).max() < 5e-3 * EXECUTION.learning_rate, name
    for name in ("train_loss", "val_loss", "diagnostics/r_frac", "val/diagnostics/r_frac"):
        ours = results["history"][name]
        np.testing.assert_allclose(ours, theirs["history"][name], rtol=1e-4, err_msg=name)

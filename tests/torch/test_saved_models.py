"""What a run leaves for later: the bundle and the checkpoint, opened again by the calls of programs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ptycho.config.config import PyTorchExecutionConfig
from ptycho.errors import BundleError, DataError
from ptycho_torch import model as model_module
from ptycho_torch.workflows import components


class TestBundle:
    def test_a_bundle_gives_back_the_same_answers(self, make_scan, small_config, silent, tmp_path):
        raw = make_scan()
        config = small_config(raw, gridsize=2, output_dir=tmp_path, probe_trainable=True)
        _, _, results = components.run_cdi_example_torch(raw, None, config, execution_config=silent)
        model, stored = components.load_inference_bundle_torch(tmp_path)
        container = results["train_container"]
        x = container.X * stored["intensity_scale"]
        one = model.predict([x, container.local_offsets])
        other = results["models"]["autoencoder"].predict([x, container.local_offsets])
        assert one.shape == (len(container), 32, 32, 1) and one.dtype == np.complex64
        assert model.predict([x]).shape == (len(container), 32, 32, 4)
        np.testing.assert_array_equal(one, other)
        image, _, _ = components.infer_scan(tmp_path / "wts.h5.zip", raw)
        again, _, _ = components.infer_scan(model, raw)
        np.testing.assert_array_equal(image, again)

    def test_a_bundle_of_another_size_is_refused_for_the_scan(
        self, make_scan, small_config, silent, tmp_path
    ):
        raw = make_scan()
        components.run_cdi_example_torch(
            raw, None, small_config(raw, output_dir=tmp_path), execution_config=silent
        )
        with pytest.raises(DataError, match="patterns are 64 x 64 px, the model was trained on 32"):
            components.infer_scan(tmp_path, make_scan(N=64))

    def test_no_bundle(self, tmp_path):
        with pytest.raises(BundleError, match="wts.h5.zip"):
            components.load_inference_bundle_torch(tmp_path)


class TestCheckpoint:
    def test_a_checkpoint_loads_with_no_arguments_and_runs_no_code(self, make_scan, small_config, tmp_path):
        raw = make_scan()
        modes = np.stack([raw.probeGuess, 0.3 * np.roll(raw.probeGuess, 3, 0)])
        scan = make_scan(probeGuess=modes)
        config = small_config(scan, output_dir=tmp_path)
        execution = PyTorchExecutionConfig(logger_backend="csv", accelerator="cpu")
        results = components.train_cdi_model_torch(scan, None, config, execution)
        path = tmp_path / "checkpoints" / "last.ckpt"
        torch.load(path, weights_only=True)
        module = model_module.PtychoPINN_Lightning.load_from_checkpoint(path)
        assert module.complex_probe.shape == (2, 32, 32)
        assert module.x_scale == results["train_container"].x_scale
        assert dataclasses.asdict(module.config) == dataclasses.asdict(results["config"])

    def test_the_metrics_a_client_follows_exist(self, make_scan, small_config, silent):
        raw = make_scan()
        history = components.train_cdi_model_torch(raw, None, small_config(raw), silent)["history"]
        module = model_module.PtychoPINN_Lightning
        assert {
            module.loss_name,
            module.val_loss_name,
            "loss/poisson_nll",
            "val/loss/poisson_deviance",
        } <= set(history)

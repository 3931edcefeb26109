"""Histograms of a Keras run, judged against what torch writes."""

from __future__ import annotations

import pytest

from ptycho.config.config import PyTorchExecutionConfig
from ptycho.workflows import components


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

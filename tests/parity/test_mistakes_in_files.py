"""The mistakes of the public reference that are made with files, settings, units; see `test_mistakes.py`."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from both_backends import gauges, settings, silent

from ptycho.errors import BundleError, ConfigError
from ptycho.run.preparation import ensure_container


def test_loading_that_can_return_random_weights(side, trained, tmp_path):
    model = trained[2]["models"]["diffraction_to_obj"]
    weights = side.weights(model)
    first = next(iter(weights))
    lacking = {name: value for name, value in weights.items() if name != first}
    renamed, more = {**lacking, f"{first}x": weights[first]}, {**weights, "stranger": np.zeros(1, "f4")}
    for wrong in (lacking, renamed, more):
        with pytest.raises(ConfigError, match="weights do not fit the network: missing .*wrong architecture"):
            side.load(model, wrong)
    side.workflow.save_trained(model, tmp_path)
    opened = side.open(tmp_path).module
    for name, value in side.weights(opened).items():
        np.testing.assert_array_equal(value, weights[name])


def test_loader_device_and_precision_settings_ignored(side, make_scan):
    """What a backend does, reaches the run; what it does not do, is refused or told by name."""
    raw = make_scan(n_positions=16)
    config = settings(raw)
    with pytest.raises(ConfigError, match="accelerator = 'mps'"):
        side.train(raw, config, silent(accelerator="mps"))
    (settings_reach_torch if side.name == "pytorch" else settings_reach_tensorflow)(side, raw, config)


def settings_reach_torch(side, raw, config):
    container = ensure_container(raw, config)
    options = {"num_workers": 2, "persistent_workers": True, "prefetch_factor": 3, "pin_memory": True}
    for loader in side.workflow._build_lightning_dataloaders(container, None, config, silent(**options)):
        assert {name: getattr(loader, name) for name in options} == options
    execution = silent(precision="bf16-mixed", accum_steps=3)
    from ptycho_torch.fit.trainer import make_trainer

    trainer = make_trainer(config, execution, [], None)
    assert (trainer.precision, trainer.accumulate_grad_batches) == ("bf16-mixed", 3)
    assert type(trainer.accelerator).__name__ == "CPUAccelerator"


def settings_reach_tensorflow(side, raw, config):
    from ptycho.tf.fit.run import settings_without_effect
    from ptycho.tf.model import PtychoPINN_Keras

    container, modes, numbers = gauges(raw, config)
    answers = []
    for precision in ("32-true", "bf16-mixed"):
        model = PtychoPINN_Keras(config, precision=precision)
        model.attach_scan(modes, **numbers)
        side.load(model, {name: value + 0.02 for name, value in side.weights(model).items()})
        answers.append(side.patches(model, container.patterns[:4, None]))
    assert 0 < np.abs(answers[1] - answers[0]).max() < 0.1 * np.abs(answers[0]).max()
    for word, changes in {
        "devices = 2": {"devices": 2},
        "strategy = 'ddp'": {"strategy": "ddp"},
        "precision = '16-mixed'": {"precision": "16-mixed"},
    }.items():
        with pytest.raises(ConfigError, match=f"{word}.*use --backend pytorch"):
            side.train(raw, config, silent(**changes))
    told = settings_without_effect(silent(num_workers=2, persistent_workers=True, pin_memory=True))
    assert [line.split(" = ")[0] for line in told] == ["pin_memory", "persistent_workers"]


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.mark, "ran"))


def test_pickled_bundles_that_run_code(side, trained, tmp_path):
    raw, config, results = trained
    mark = tmp_path / "ran"
    buffer = io.BytesIO()
    pickle.Pickler(buffer).dump(Bomb(mark))
    whole = side.workflow.save_trained(results["models"]["diffraction_to_obj"], tmp_path / "run")
    with zipfile.ZipFile(whole) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for number, name in enumerate([*members, "custom.dill"]):
        spoiled = tmp_path / f"{number}" / "wts.h5.zip"
        spoiled.parent.mkdir()
        with zipfile.ZipFile(spoiled, "w") as archive:
            for member, content in {**members, name: buffer.getvalue()}.items():
                archive.writestr(member, content)
        with pytest.raises(BundleError):
            side.open(spoiled)
    for suffix in ("ckpt", "safetensors"):
        (tmp_path / f"last.{suffix}").write_bytes(buffer.getvalue())
        with pytest.raises(ConfigError, match="cannot be read"):
            side.train(raw, config, resume=tmp_path / f"last.{suffix}")
    assert not mark.exists()
    pickle.loads(buffer.getvalue())
    assert mark.exists(), "the bomb itself works, so the silence above means something"


def test_counts_read_as_amplitude(side, make_scan):
    """The unit is decided by the core; both backends train on what it decided."""
    counts = make_scan().diff3d
    told = {
        "whole numbers": make_scan(),
        "floats that say counts": make_scan(diff3d=counts.astype(float), diffraction_unit="counts"),
        "amplitude": make_scan(diff3d=np.sqrt(counts.astype(float)), diffraction_unit="amplitude"),
    }
    batches = {}
    for name, raw in told.items():
        container = ensure_container(raw, settings(raw))
        batches[name] = side.numpy(side.batch(container, np.arange(5), False)["x"])
        assert container.nphotons == pytest.approx(counts.astype(float).sum((1, 2)).mean(), rel=1e-4)
    np.testing.assert_allclose(batches["floats that say counts"], batches["whole numbers"], rtol=1e-6)
    np.testing.assert_allclose(batches["amplitude"], batches["whole numbers"], rtol=1e-5, atol=1e-7)


# ---------------------------------------------------------------- neutral code, once: no backend has it twice


def configured(*words: str) -> Any:
    from ptycho.cli import train
    from ptycho.cli.console import Console
    from ptycho.cli.main import build_parser

    return train.configure(build_parser(train, "ptycho train").read(list(words)), Console("ptycho train"))[0]


def test_yaml_values_overwritten_by_defaults(tmp_path):
    """The command line is the core's."""
    path = tmp_path / "run.yaml"
    path.write_text("nepochs: 7\nbackend: tensorflow\nmodel: {gridsize: 2}\n")
    config = configured("scan.npz", "--config", str(path), "--batch_size", "4")
    assert (config.nepochs, config.backend) == (7, "tensorflow")
    assert (config.model.gridsize, config.batch_size) == (2, 4)
    assert configured("scan.npz", "--config", str(path), "--nepochs", "50").nepochs == 50


def test_boolean_flags_that_are_always_true():
    """The command line is the core's."""
    assert configured("scan.npz", "--probe_trainable").probe_trainable is True
    assert configured("scan.npz", "--no-probe_trainable").probe_trainable is False
    model = configured("scan.npz", "--no-object_big", "--no-pad_object").model
    assert (model.object_big, model.pad_object, model.probe_big) == (False, False, True)


def test_psnr_with_peak_255_on_data_of_order_one():
    """Judging is the core's. A peak of 255 on data of order one adds 20 log10 255 = 48.13 dB."""
    from ptycho.evaluation.metrics import psnr

    true = np.linspace(0, 1, 400).reshape(20, 20)
    found = true + 10 ** (-37.40 / 20)
    assert psnr(found, true) == pytest.approx(37.40, abs=0.01)
    assert psnr(found, true, data_range=255) == pytest.approx(85.53, abs=0.01)

"""The trainer's work and its edges: what a run writes, resumes, refuses, and when it ends."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ptycho.config.config import PyTorchExecutionConfig
from ptycho.errors import ConfigError, MissingFileError
from ptycho.workflows import components

tf = pytest.importorskip("tensorflow")


def test_a_run_writes_what_torch_writes_and_goes_on_after_a_break(make_scan, small_config, tmp_path):
    """One unbroken run beside torch's, and the same run broken after two epochs and resumed."""
    from ptycho.tf.fit.checkpoints import model_arrays
    from ptycho_torch.workflows import components as torch_components

    raw = make_scan()
    execution = PyTorchExecutionConfig(accelerator="cpu", accum_steps=2)
    settings = {"nepochs": 4, "scheduler": "WarmupCosine", "gradient_clip_val": 1.0, "probe_trainable": True}
    seen = []
    whole = components.train_cdi_model(
        raw, None, small_config(raw, output_dir=tmp_path / "whole", **settings), execution,
        progress=lambda *told: seen.append(told),
    )  # fmt: skip
    history = whole["history"]
    assert [(done, total) for done, total, _ in seen] == [(n, 4) for n in range(1, 5)]
    assert seen[-1][2] == {name: history[name][-1] for name in ("train_loss", "val_loss")}

    theirs = torch_components.train_cdi_model_torch(
        raw, None, small_config(raw, output_dir=tmp_path / "torch", backend="pytorch", **settings), execution
    )["history"]
    assert set(history) == set(theirs)
    np.testing.assert_allclose(history["learning_rate"], theirs["learning_rate"], rtol=1e-9)
    for name in ("train_loss", "val_loss", "loss/poisson_deviance", "val/loss/poisson_nll"):
        np.testing.assert_allclose(history[name], theirs[name], rtol=2e-3)
    ours_log, torch_log = (
        list(csv.DictReader((tmp_path / side / "logs" / "metrics.csv").open())) for side in ("whole", "torch")
    )
    assert list(ours_log[0]) == list(torch_log[0])
    for ours_row, torch_row in zip(ours_log, torch_log, strict=True):
        assert {n for n, v in ours_row.items() if v} == {n for n, v in torch_row.items() if v}
        assert ours_row["step"] == torch_row["step"] and ours_row["epoch"] == torch_row["epoch"]

    class Break(Exception):
        """Stands for a run that was killed."""

    def stop(done, total, losses):
        if done == 2:
            raise Break

    broken = small_config(raw, output_dir=tmp_path / "broken", **settings)
    with pytest.raises(Break):
        components.train_cdi_model(raw, None, broken, execution, progress=stop)
    last = tmp_path / "broken" / "checkpoints" / "last.safetensors"
    resumed = components.train_cdi_model(raw, None, broken, execution, resume=last)
    assert not (tmp_path / "broken" / "logs" / "metrics.1.csv").exists()
    for name, values in history.items():
        np.testing.assert_allclose(resumed["history"][name], values, rtol=1e-6, err_msg=name)
    one, other = (model_arrays(r["models"]["diffraction_to_obj"]) for r in (whole, resumed))
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, rtol=1e-6, atol=1e-7, err_msg=name)

    wider = dataclasses.replace(broken, model=dataclasses.replace(broken.model, n_filters_scale=2))
    with pytest.raises(ConfigError, match="last.safetensors: does not belong to this run"):
        components.train_cdi_model(raw, None, wider, execution, resume=last)
    foreign = tmp_path / "torch" / "checkpoints" / "last.ckpt"
    with pytest.raises(ConfigError, match=r"last.ckpt: cannot be read .* a .ckpt resumes with --backend pyt"):
        components.train_cdi_model(raw, None, broken, execution, resume=foreign)
    with pytest.raises(MissingFileError, match="nowhere.safetensors: no such checkpoint"):
        components.train_cdi_model(raw, None, broken, execution, resume=tmp_path / "nowhere.safetensors")


def test_the_same_seed_gives_the_same_bytes_and_every_function_is_traced_once(
    make_scan, small_config, silent, tmp_path, monkeypatch
):
    from ptycho.tf.model import PtychoPINN_Keras

    traced = []
    for step in ("train_step", "test_step"):
        plain = getattr(PtychoPINN_Keras, step)

        def counted(self, batch, plain=plain, step=step):
            traced.append(step)
            return plain(self, batch)

        monkeypatch.setattr(PtychoPINN_Keras, step, counted)
    # 28 groups train in batches of 8, 8, 8 and 4, half of them regions
    raw = make_scan(n_positions=31)
    bundles = []
    for name in ("one", "other"):
        config = small_config(raw, output_dir=tmp_path / name, region_ratio=0.5)
        _, _, results = components.run_cdi_example(raw, None, config, execution_config=silent)
        # Python runs a step only while it is traced
        assert traced == ["train_step", "test_step"]
        traced.clear()
        module = results["models"]["diffraction_to_obj"]
        module.config.output_dir = Path("same")
        bundles.append(components.save_trained(module, tmp_path / name))
    assert bundles[0].read_bytes() == bundles[1].read_bytes()


def test_time_limit_panels_and_half_precision(make_scan, small_config, tmp_path):
    raw = make_scan(n_positions=25)
    execution = PyTorchExecutionConfig(
        logger_backend="none",
        enable_checkpointing=False,
        precision="bf16-mixed",
        recon_log_every_n_epochs=1,
        recon_log_stitch=True,
    )
    config = small_config(raw, nepochs=50, max_time_s=1e-6, output_dir=tmp_path, gridsize=2, object_big=False)
    results = components.train_cdi_model(raw, None, config, execution)
    assert len(results["history"]["train_loss"]) == 1
    assert np.isfinite(results["history"]["val_loss"]).all()
    drawn = {path.name for path in (tmp_path / "figures").iterdir()}
    assert drawn == {"patterns_0001.png", "image_0001.png", "sampler_coverage.png"}
    module = results["models"]["diffraction_to_obj"]
    assert module.network.weights[0].dtype == "float32"


def test_debug_runs_eagerly_and_trains_as_well(make_scan, small_config, silent):
    raw = make_scan(n_positions=9)
    config = small_config(raw, nepochs=1, debug=True)
    results = components.train_cdi_model(raw, None, config, silent)
    assert results["models"]["diffraction_to_obj"].run_eagerly
    assert len(results["history"]["train_loss"]) == 1


def ended_after(callback, history, values):
    """Number of epochs until the callback asks to stop."""
    model = SimpleNamespace(stop_training=False)
    callback.set_model(model)
    for epoch, value in enumerate(values):
        history.row = {"val_loss": value}
        callback.on_epoch_end(epoch)
        if model.stop_training:
            return epoch + 1
    return None


@pytest.mark.parametrize(
    "mode, values, epochs",
    [
        ("min", [3.0, 2.0, 2.0, 2.5, 2.1], 4),
        ("min", [5.0, 4.0, 3.0, 2.0], None),
        ("max", [1.0, 2.0, 2.0, 1.0], 4),
        ("min", [3.0, float("nan")], 2),
    ],
)
def test_early_stopping_waits_its_patience(mode, values, epochs):
    from ptycho.tf.fit.stopping import EarlyStopping

    history = SimpleNamespace(row={})
    assert ended_after(EarlyStopping(history, "val_loss", mode, 2), history, values) == epochs


def test_the_best_checkpoints_are_kept(tmp_path, monkeypatch):
    from ptycho.tf.fit import checkpoints

    monkeypatch.setattr(checkpoints, "write_checkpoint", lambda path, model, known: path.touch())
    values = [3.0, 1.0, 2.0, 4.0, 0.5]
    for keep, names in ((1, {4}), (2, {1, 4}), (-1, {0, 1, 2, 3, 4}), (0, set())):
        history = SimpleNamespace(row={}, name="history", knowledge=dict)
        folder = tmp_path / str(keep)
        folder.mkdir()
        made = checkpoints.Checkpoints(history, folder, [history], monitor="val_loss", mode="min", keep=keep)
        for epoch, value in enumerate(values):
            history.row = {"val_loss": value}
            made.on_epoch_end(epoch)
        wanted = {f"best-epoch={n}.safetensors" for n in names} | {"last.safetensors"}
        assert {path.name for path in folder.iterdir()} == wanted
        assert made.best == (folder / "best-epoch=4.safetensors" if names else None)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"devices": 2}, "devices = 2: the TensorFlow backend trains on one device - set 1, or use"),
        ({"checkpoint_every_s": 60.0}, "checkpoint_every_s = 60: the TensorFlow backend writes checkpoints"),
        ({"strategy": "ddp"}, "strategy = 'ddp': the TensorFlow backend knows 'auto' only - use --back"),
        ({"precision": "16-mixed"}, "precision = '16-mixed': the TensorFlow backend offers 32-true and"),
        ({"accelerator": "mps"}, "accelerator = 'mps': the TensorFlow backend knows no Apple GPU"),
        ({"checkpoint_monitor_metric": "vall_loss"}, "checkpoint_monitor_metric = 'vall_loss': no such"),
    ],
)
def test_what_only_the_other_backend_does_is_refused_by_name(
    make_scan, small_config, execute, changes, message
):
    raw = make_scan()
    with pytest.raises(ConfigError, match=message):
        components.train_cdi_model(raw, None, small_config(raw), execute(**changes))


def test_settings_without_effect_and_an_absent_gpu_get_a_word(caplog, execute):
    from ptycho.tf.fit import run as training

    lines = training.settings_without_effect(execute(pin_memory=True, num_workers=1, persistent_workers=True))
    assert [line.split(" = ")[0] for line in lines] == ["pin_memory", "persistent_workers"]
    with caplog.at_level("WARNING", logger="ptycho.tf.fit.run"):
        training.resolve_device(PyTorchExecutionConfig(accelerator="cuda"))
    if not tf.config.list_physical_devices("GPU"):
        assert "no CUDA device here, training on the CPU" in caplog.text


def test_nothing_global_is_changed(make_scan, small_config, silent):
    import keras

    tf.random.set_seed(5)
    wanted = tf.random.uniform([3]).numpy()
    tf.random.set_seed(5)
    policy, state = keras.config.dtype_policy().name, np.random.get_state()[1].copy()  # noqa: NPY002
    raw = make_scan(n_positions=9)
    components.train_cdi_model(raw, None, small_config(raw, nepochs=1), silent)
    np.testing.assert_array_equal(tf.random.uniform([3]).numpy(), wanted)
    assert keras.config.dtype_policy().name == policy
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002

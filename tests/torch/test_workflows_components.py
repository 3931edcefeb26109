"""The PyTorch path as programs call it: loaders, training, reconstruction, bundle."""

from __future__ import annotations

import json
from pathlib import Path

import lightning.pytorch as L
import numpy as np
import pytest
import torch

from ptycho import backends
from ptycho.config.config import PyTorchExecutionConfig
from ptycho.errors import ConfigError, DataError
from ptycho.run.starting_probe import starting_probe
from ptycho.scan.container import PtychoDataContainer
from ptycho_torch import config_params
from ptycho_torch import model as model_module
from ptycho_torch.workflows import components


@pytest.fixture
def containers(make_scan, small_config):
    raw, other = make_scan(), make_scan(seed=1)
    config = small_config(raw)
    return components._ensure_container(raw, config), components._ensure_container(other, config), config


class TestTrainWithLightningRed:
    """What a run must do, each once red: build from four configurations, fit with both loaders, hand back
    models.
    """

    def test_the_module_is_built_from_all_four_configurations(self, containers, silent, monkeypatch):
        train, _, config = containers
        seen = {}
        original = model_module.PtychoPINN_Lightning

        class Spy(original):
            def __init__(self, model_config, data_config, training_config, inference_config):
                seen.update(
                    model=model_config, data=data_config, training=training_config, inference=inference_config
                )
                super().__init__(model_config, data_config, training_config, inference_config)

        monkeypatch.setattr(model_module, "PtychoPINN_Lightning", Spy)
        components._train_with_lightning(train, None, config, silent)
        assert isinstance(seen["model"], config_params.ModelConfig)
        assert isinstance(seen["data"], config_params.DataConfig)
        assert isinstance(seen["training"], config_params.TrainingConfig)
        assert isinstance(seen["inference"], config_params.InferenceConfig)
        assert seen["data"].N == train.N and seen["training"].epochs == config.nepochs

    def test_fit_is_called_with_loaders_from_both_containers(self, containers, silent, monkeypatch):
        train, test, config = containers
        seen = {}
        original = L.Trainer.fit

        def fit(self, module, train_loader, val_loader, **kwargs):
            seen.update(train=train_loader, validation=val_loader)
            return original(self, module, train_loader, val_loader, **kwargs)

        monkeypatch.setattr(L.Trainer, "fit", fit)
        components._train_with_lightning(train, test, config, silent)
        assert seen["train"].dataset.scans.containers == (train,)
        assert seen["validation"].dataset.scans.containers == (test,)

    def test_results_hold_the_models(self, containers, silent):
        train, test, config = containers
        results = components._train_with_lightning(train, test, config, silent)
        assert isinstance(results["models"]["diffraction_to_obj"], L.LightningModule)
        assert results["train_container"] is train and results["test_container"] is test
        assert results["intensity_scale"] == pytest.approx(2 * np.sqrt(train.nphotons) / train.N)
        assert len(results["history"]["train_loss"]) == len(results["history"]["val_loss"]) == config.nepochs
        assert results["backend"] == "pytorch"


class TestTrainLightningParityDeterminism:
    """Same seed, same machine, same bytes; whatever happens around the run."""

    def weights(self, results):
        module = results["models"]["diffraction_to_obj"]
        return {name: value.clone() for name, value in module.state_dict().items()}

    def test_equal_seeds_give_equal_weights(self, make_scan, small_config, silent):
        raw = make_scan()
        one = self.weights(components.train_cdi_model_torch(raw, None, small_config(raw), silent))
        torch.manual_seed(99)
        np.random.seed(99)  # noqa: NPY002
        other = self.weights(components.train_cdi_model_torch(raw, None, small_config(raw), silent))
        changed = self.weights(components.train_cdi_model_torch(raw, None, small_config(raw, seed=1), silent))
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert not all(torch.equal(one[name], changed[name]) for name in one)

    def test_nothing_global_changes(self, make_scan, small_config, silent):
        raw = make_scan()
        before = (
            torch.get_default_dtype(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_num_threads(),
        )
        state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        components.train_cdi_model_torch(raw, None, small_config(raw), silent)
        after = (
            torch.get_default_dtype(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_num_threads(),
        )
        assert before == after
        assert torch.equal(state, torch.random.get_rng_state())
        assert np.array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002

    def test_an_interrupted_run_resumes_to_the_same_bytes(self, make_scan, small_config, tmp_path):
        raw = make_scan()
        execution = PyTorchExecutionConfig(logger_backend="none", accelerator="cpu")
        settings = {"nepochs": 4, "scheduler": "WarmupCosine", "lr_warmup_epochs": 1, "probe_trainable": True}
        whole = small_config(raw, output_dir=tmp_path / "whole", **settings)
        unbroken = components.train_cdi_model_torch(raw, None, whole, execution)

        class Stop(Exception):
            pass

        def stop(done, total, losses):
            if done == 2:
                raise Stop

        broken = small_config(raw, output_dir=tmp_path / "broken", **settings)
        with pytest.raises(Stop):
            components.train_cdi_model_torch(raw, None, broken, execution, progress=stop)
        last = tmp_path / "broken" / "checkpoints" / "last.ckpt"
        resumed = components.train_cdi_model_torch(raw, None, broken, execution, resume=last)
        for name, value in torch.load(tmp_path / "whole" / "checkpoints" / "last.ckpt", weights_only=True)[
            "state_dict"
        ].items():
            again = torch.load(last, weights_only=True)["state_dict"][name]
            assert torch.equal(value, again), name
        assert resumed["history"] == unbroken["history"]


class TestLoaders:
    def test_every_group_trains_or_validates_and_validation_is_never_empty(self, make_scan, small_config):
        for n_positions in (4, 30, 50):
            raw = make_scan(n_positions=n_positions)
            config = small_config(raw)
            container = components._ensure_container(raw, config)
            train, validation = components._build_lightning_dataloaders(container, None, config)
            trained = np.concatenate([groups for groups, _ in train.sampler])
            held_out = np.flatnonzero(validation.dataset.held_out)
            assert sorted([*trained, *held_out]) == list(range(n_positions))
            assert sum(int(batch["counted"].sum()) for batch in validation) == len(held_out) >= 1

    def test_one_position_still_trains(self, make_scan, small_config, silent):
        raw = make_scan(n_positions=1)
        results = components.train_cdi_model_torch(raw, None, small_config(raw), silent)
        assert np.isfinite(results["history"]["val_loss"]).all()

    def test_a_test_scan_keeps_the_training_gauge(self, make_scan, small_config, silent):
        raw, other = make_scan(), make_scan(seed=2, photons=3e4)
        results = components.train_cdi_model_torch(raw, other, small_config(raw), silent)
        assert results["test_container"].x_scale == results["train_container"].x_scale
        assert results["test_container"].nphotons == results["train_container"].nphotons

    def test_region_steps_follow_the_ratio(self, make_scan, small_config):
        raw = make_scan(n_positions=64)
        for ratio, expected in ((0.0, 0), (0.5, 4), (1.0, 8)):
            config = small_config(raw, region_ratio=ratio, val_fraction=0.01)
            container = components._ensure_container(raw, config)
            train, _ = components._build_lightning_dataloaders(container, None, config)
            assert sum(region for _, region in train.sampler) == expected


class TestWhatTrains:
    def fitted(self, raw, config, silent):
        results = components.train_cdi_model_torch(raw, None, config, silent)
        return results["models"]["diffraction_to_obj"]

    @pytest.mark.parametrize("scale", [True, False])
    @pytest.mark.parametrize("probe", [True, False])
    def test_scale_and_probe_move_when_trainable_and_stay_when_not(
        self, make_scan, small_config, silent, scale, probe
    ):
        raw = make_scan()
        config = small_config(raw, intensity_scale_trainable=scale, probe_trainable=probe)
        start = starting_probe(
            components._ensure_container(raw, config), config, backends.refined_modes
        ).modes
        module = self.fitted(raw, config, silent)
        moved = np.abs(module.complex_probe.detach().numpy() - start).max()
        assert (float(module.log_scale.detach()) != 0) == scale
        assert (moved > 1e-4) == probe

    @pytest.mark.parametrize(
        "mode, weights", [("poisson", {}), ("mae", {}), ("poisson", {"mae_weight": 0.5})]
    )
    def test_every_loss_goes_down(self, make_scan, small_config, silent, mode, weights):
        raw = make_scan(n_positions=64)
        config = small_config(raw, torch_loss_mode=mode, nepochs=12, **weights)
        history = components.train_cdi_model_torch(raw, None, config, silent)["history"]
        assert history["train_loss"][-1] < 0.8 * history["train_loss"][0]
        # what is minimised is logged by its terms; the misfit of amplitudes is watched whatever is minimised
        minimised = [name for name in history if name.startswith("loss/")]
        assert minimised and all(history[name][-1] < history[name][0] for name in minimised)
        assert history["diagnostics/r_frac"][-1] < history["diagnostics/r_frac"][0]

    @pytest.mark.parametrize("gridsize", [1, 2, 3])
    @pytest.mark.parametrize("object_big", [True, False])
    def test_groups_of_every_size_train(self, make_scan, small_config, silent, gridsize, object_big):
        raw = make_scan()
        config = small_config(
            raw, gridsize=gridsize, object_big=object_big, neighbor_count=8, region_ratio=0.5
        )
        history = components.train_cdi_model_torch(raw, None, config, silent)["history"]
        assert np.isfinite(history["train_loss"]).all()

    def test_supervised_training_learns_the_labels(self, make_scan, small_config, silent):
        raw = make_scan(n_positions=64)
        config = small_config(raw, model_type="supervised", nepochs=15)
        results = components.train_cdi_model_torch(raw, None, config, silent)
        history = results["history"]
        assert history["loss/supervised"][-1] < 0.5 * history["loss/supervised"][0]
        assert "loss/poisson_nll" not in history

    def test_supervised_training_without_an_object_is_refused(self, make_scan, small_config, silent):
        raw = make_scan(objectGuess=None)
        with pytest.raises(DataError, match="training data: labels are needed .* no objectGuess"):
            components.train_cdi_model_torch(raw, None, small_config(raw, model_type="supervised"), silent)

    def test_bad_pixels_do_not_count(self, make_scan, small_config, silent):
        bad = np.zeros((32, 32), bool)
        bad[3:6, 10:14] = True
        clean = make_scan(bad_pixels=bad)
        spoiled_counts = clean.diff3d.copy()
        spoiled_counts[:, bad] = 60000
        spoiled = make_scan(bad_pixels=bad, diff3d=spoiled_counts)
        one, other = (
            components.train_cdi_model_torch(raw, None, small_config(raw), silent)["history"]["train_loss"]
            for raw in (clean, spoiled)
        )
        assert one == pytest.approx(other, rel=1e-6)

    def test_probe_modes_are_used_and_asked_for_in_vain_refused(self, make_scan, small_config, silent):
        raw = make_scan()
        modes = np.stack([raw.probeGuess, 0.3 * np.roll(raw.probeGuess, 3, 0)])
        two = make_scan(probeGuess=modes)
        module = self.fitted(two, small_config(two), silent)
        assert module.complex_probe.shape == (2, 32, 32)
        config = small_config(raw, probe_modes=3, probe_from="guess")
        with pytest.raises(DataError, match="probe_modes = 3, but the file has 1: use --probe_from refine"):
            components.train_cdi_model_torch(raw, None, config, silent)

    def test_the_probe_is_refined_when_asked(self, make_scan, small_config, silent):
        raw = make_scan(n_positions=49)
        radius = np.hypot(*np.meshgrid(np.arange(32) - 16, np.arange(32) - 16))
        wrong = (np.exp(-0.5 * (radius / 5) ** 2)).astype(np.complex64)
        scan = make_scan(n_positions=49, probeGuess=wrong)
        config = small_config(scan, probe_from="refine")
        found = starting_probe(
            components._ensure_container(scan, config), config, backends.refined_modes
        ).modes[0]
        true = raw.probeGuess

        def likeness(a):
            return abs(np.vdot(a, true)) / np.linalg.norm(a) / np.linalg.norm(true)

        assert likeness(found) > likeness(wrong) + 0.02

    @pytest.mark.parametrize("factor", [128.0, 123.0])
    def test_probe_power_changes_nothing_that_physics_fixes(self, make_scan, small_config, silent, factor):
        raw = make_scan()
        brighter = make_scan(probeGuess=raw.probeGuess * np.float32(factor))
        images = []
        for scan in (raw, brighter):
            results = components.train_cdi_model_torch(scan, None, small_config(scan), silent)
            images.append(components.infer_scan(results["models"]["autoencoder"], scan)[2]["object"])
        if factor == 128.0:  # a power of two: not even the rounding differs
            np.testing.assert_array_equal(images[0], images[1])
        np.testing.assert_allclose(images[0], images[1], atol=2e-3)

    def test_several_models_in_one_process_do_not_disturb_each_other(self, make_scan, small_config, silent):
        small, large = make_scan(), make_scan(N=64, n_positions=16)
        alone = self.fitted(small, small_config(small), silent)
        self.fitted(large, small_config(large, gridsize=2), silent)
        after = self.fitted(small, small_config(small), silent)
        assert all(torch.equal(value, after.state_dict()[name]) for name, value in alone.state_dict().items())


class TestRunCdiExampleTorch:
    def test_stitching_path(self, make_scan, small_config, silent, tmp_path):
        raw, other = make_scan(n_positions=40), make_scan(n_positions=36, seed=3)
        config = small_config(raw, output_dir=tmp_path)
        amplitude, phase, results = components.run_cdi_example_torch(
            raw, other, config, do_stitching=True, execution_config=silent
        )
        assert amplitude.shape == phase.shape == results["recon_amp"].shape
        assert amplitude.ndim == 2 and np.isfinite(amplitude).all()
        assert results["obj_tensor_full"].shape == (36, 32, 32)
        assert results["global_offsets"].shape == (36, 1, 2, 1)
        assert (tmp_path / "wts.h5.zip").is_file()
        files = components.save_outputs(amplitude, phase, results, tmp_path / "out")
        assert {file.name for file in files} >= {"reconstruction.npz", "reconstruction.png", "history.json"}
        assert json.loads((tmp_path / "out" / "history.json").read_text())["train_loss"]

    def test_without_stitching_there_is_no_image(self, make_scan, small_config, silent):
        raw = make_scan()
        amplitude, phase, results = components.run_cdi_example_torch(
            raw, None, small_config(raw), execution_config=silent
        )
        assert amplitude is None and phase is None and "history" in results

    @pytest.mark.parametrize("flips", [(True, False, False), (False, True, False), (False, False, True)])
    def test_flips_and_transpose_move_positions_only(self, make_scan, small_config, silent, flips):
        raw = make_scan(n_positions=30)
        results = components.train_cdi_model_torch(raw, None, small_config(raw, nepochs=1), silent)
        flip_x, flip_y, transpose = flips
        plain, _, _ = components._reassemble_cdi_image_torch(
            raw, results["config"], train_results=results, M=16
        )
        turned, _, _ = components._reassemble_cdi_image_torch(
            raw, results["config"], flip_x, flip_y, transpose, 16, train_results=results
        )
        assert turned.shape == (plain.shape[::-1] if transpose else plain.shape)


def test_what_is_wrong_is_said_before_anything_trains(make_scan, small_config, silent):
    raw = make_scan()
    with pytest.raises(ConfigError, match=r"ModelConfig.N = 64, but the patterns are 32 x 32 px: set --N 32"):
        components.train_cdi_model_torch(raw, None, small_config(raw, N=64), silent)
    with pytest.raises(ConfigError, match="no trained model: pass train_results"):
        components._reassemble_cdi_image_torch(raw, small_config(raw))
    with pytest.raises(ConfigError, match="backend = 'tensorflow': this is the PyTorch path"):
        components.train_cdi_model_torch(raw, None, small_config(raw, backend="tensorflow"), silent)


def test_a_container_passes_through(make_scan, small_config):
    raw = make_scan()
    container = components._ensure_container(raw, small_config(raw))
    assert isinstance(container, PtychoDataContainer)
    assert components._ensure_container(container, small_config(raw)) is container


def test_outputs_without_an_image_keep_the_history(tmp_path):
    files = components.save_outputs(None, None, {"history": {"train_loss": [2.0, 1.0]}}, str(tmp_path))
    assert [Path(f).name for f in files] == ["history.json", "history.png"]

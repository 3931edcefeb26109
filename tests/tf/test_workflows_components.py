"""The TensorFlow path as programs call it: training, image, bundles of either backend, the command."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from ptycho.cli.main import main
from ptycho.clients import model_manager, params
from ptycho.errors import ConfigError, DataError, MissingDependencyError
from ptycho.models.bundle import load_bundle
from ptycho.run.starting_probe import starting_probe
from ptycho.workflows import backend_selector, components
from ptycho_torch.workflows import components as torch_components

pytest.importorskip("tensorflow")


def likeness(found, true):
    """|correlation| of two complex images on the box both know, without mean."""
    a, b = found - found.mean(), true - true.mean()
    return abs(np.vdot(a, b)) / np.linalg.norm(a) / np.linalg.norm(b)


_RUN: list[tuple] = []


@pytest.fixture
def trained(make_scan, small_config, execute, tmp_path_factory):
    """One run of 64 positions in TensorFlow, its bundle and its image: made once, read by many."""
    if not _RUN:
        raw, folder = make_scan(n_positions=64, photons=1e5), tmp_path_factory.mktemp("run")
        # as a client configures it: without a word about the backend
        config = small_config(raw, nepochs=20, probe_trainable=True, output_dir=folder, backend="pytorch")
        amplitude, phase, results = components.run_cdi_example(
            raw, None, config, do_stitching=True, execution_config=execute(learning_rate=3e-3)
        )
        _RUN.append((raw, config, folder, amplitude, phase, results))
    return _RUN[0]


class TestTraining:
    def test_the_loss_falls_and_the_image_is_recognisable(self, trained):
        raw, _, _, amplitude, phase, results = trained
        history = results["history"]
        assert history["train_loss"][-1] < 0.5 * history["train_loss"][0]
        assert history["val_loss"][-1] < history["val_loss"][0]
        assert amplitude.shape == phase.shape == results["object"].shape
        left, top = (int(v) for v in results["origin_xy"])
        height, width = phase.shape
        true = raw.objectGuess[top : top + height, left : left + width]
        inner = (slice(8, -8), slice(8, -8))
        assert likeness(results["object"][inner], true[inner]) > 0.8
        assert results["obj_tensor_full"].shape == (64, 32, 32)
        assert results["global_offsets"].shape == (64, 1, 2, 1)

    def test_scale_and_probe_moved_because_they_may(self, trained):
        _, config, _, _, _, results = trained
        module = results["models"]["diffraction_to_obj"]
        start = starting_probe(results["train_container"], config, lambda *_: None).modes
        assert float(module.log_scale.numpy()) != 0
        assert np.abs(module.complex_probe.numpy() - start).max() > 1e-4

    def test_what_a_client_reads_afterwards(self, trained, tmp_path):
        _, config, folder, _, _, results = trained
        assert results["backend"] == "tensorflow" and config.backend == "pytorch"
        bundle = load_bundle(folder)
        assert bundle.backend == "tensorflow" and bundle.config["backend"] == "tensorflow"
        assert results["bundle"] == folder / "wts.h5.zip"
        written = components.save_outputs(results["recon_amp"], results["recon_phase"], results, tmp_path)
        assert {path.name for path in written} >= {"reconstruction.npz", "history.json", "metrics.json"}
        assert json.loads((tmp_path / "metrics.json").read_text())["backend"] == "tensorflow"

    def test_scale_and_probe_stay_when_they_must_with_three_modes_and_groups(
        self, make_scan, small_config, silent, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        one = make_scan().probeGuess
        modes = np.stack([one, 0.4 * np.roll(one, 3, 0), 0.2 * np.roll(one, 3, 1)])
        raw, other = make_scan(probeGuess=modes), make_scan(probeGuess=modes, seed=2)
        config = small_config(raw, gridsize=2, intensity_scale_trainable=False, region_ratio=0.5)
        results = components.train_cdi_model(raw, other, config, silent)
        module = results["models"]["diffraction_to_obj"]
        assert results["test_container"].x_scale == results["train_container"].x_scale
        start = starting_probe(results["train_container"], config, lambda *_: None).modes
        assert module.complex_probe.shape == (3, 32, 32)
        np.testing.assert_array_equal(module.complex_probe.numpy(), start)
        assert float(module.log_scale.numpy()) == 0
        assert list(tmp_path.iterdir()) == []  # output_dir of Path() writes nothing
        # ptychodus saves the model trained last without naming it
        saved = model_manager.save(tmp_path / "last")
        assert load_bundle(saved).backend == "tensorflow"
        assert params.get("intensity_scale") == pytest.approx(results["intensity_scale"])

    def test_supervised_training_learns_the_labels(self, make_scan, small_config, execute):
        raw = make_scan(n_positions=49)
        config = small_config(raw, model_type="supervised", nepochs=15)
        results = components.train_cdi_model(raw, None, config, execute(learning_rate=3e-3))
        history = results["history"]
        assert history["loss/supervised"][-1] < 0.6 * history["loss/supervised"][0]
        assert "loss/poisson_nll" not in history


class TestBundles:
    def test_either_backend_opens_it_with_the_same_answer(self, trained):
        _, _, folder, _, _, results = trained
        container = results["train_container"]
        answers = {}
        for backend in ("tensorflow", "pytorch", None):
            model, stored = backend_selector.load_inference_bundle_with_backend(folder, backend)
            assert stored["backend"] == (backend or "tensorflow")
            x = container.X * stored["intensity_scale"]
            answers[backend] = model.predict([x, container.local_offsets])
            assert answers[backend].shape == (64, 32, 32, 1) and answers[backend].dtype == np.complex64
        largest = np.abs(answers["pytorch"]).max()
        np.testing.assert_allclose(answers["tensorflow"], answers["pytorch"], atol=1e-5 * largest)
        np.testing.assert_array_equal(answers[None], answers["tensorflow"])
        mine = results["models"]["autoencoder"].predict([x, container.local_offsets])
        np.testing.assert_array_equal(mine, answers["tensorflow"])

    def test_the_images_of_both_backends_agree(self, trained):
        raw, _, folder, _, _, _ = trained
        images = {}
        for backend in ("tensorflow", "pytorch"):
            _, _, found = backend_selector.infer_scan_with_backend(folder, raw, backend=backend)
            assert found["backend"] == backend and found["r_factor"] < 0.5
            images[backend] = found["object"]
        largest = np.abs(images["pytorch"]).max()
        np.testing.assert_allclose(images["tensorflow"], images["pytorch"], atol=1e-5 * largest)

    def test_a_bundle_of_torch_opens_in_tensorflow(self, make_scan, small_config, silent, tmp_path):
        raw = make_scan()
        config = small_config(raw, output_dir=tmp_path, gridsize=2, object_big=False, backend="pytorch")
        config.nepochs = 1
        results = torch_components.run_cdi_example_torch(raw, None, config, execution_config=silent)[2]
        assert components.load_inference_bundle(tmp_path)[0].backend == "pytorch"
        model, stored = components.load_inference_bundle(tmp_path, backend="tensorflow")
        container = results["train_container"]
        inputs = [container.X * stored["intensity_scale"], container.local_offsets]
        found, wanted = model.predict(inputs), results["models"]["autoencoder"].predict(inputs)
        assert found.shape == (30, 32, 32, 1)
        np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())
        image, _, told = backend_selector.infer_scan_with_backend(model, raw)
        theirs, _, _ = backend_selector.infer_scan_with_backend(tmp_path, raw, backend="pytorch")
        assert told["backend"] == "tensorflow"
        np.testing.assert_allclose(image, theirs, atol=1e-5 * theirs.max())
        with pytest.raises(ConfigError, match="backend = 'pytorch': this model is one of 'tensorflow'; save"):
            backend_selector.infer_scan_with_backend(model, raw, backend="pytorch")

    def test_a_scan_of_another_size_is_refused(self, trained, make_scan):
        with pytest.raises(DataError, match="patterns are 64 x 64 px, the model was trained on 32"):
            components.infer_scan(trained[2], make_scan(N=64, n_positions=4))


class TestWithoutTensorFlow:
    @pytest.fixture
    def missing(self, monkeypatch):
        found = importlib.util.find_spec

        def without(name, *more):
            return None if name in ("tensorflow", "keras") else found(name, *more)

        monkeypatch.setattr(importlib.util, "find_spec", without)

    def test_training_says_how_to_install_it(self, missing, make_scan, small_config, silent):
        raw = make_scan()
        for train in (components.train_cdi_model, backend_selector.train_cdi_model_with_backend):
            with pytest.raises(MissingDependencyError, match=r"needs TensorFlow: pip install .ptychop"):
                train(raw, None, small_config(raw))

    def test_its_bundle_opens_in_torch_with_a_word_and_only_unasked(self, missing, trained, caplog):
        folder = trained[2]
        with caplog.at_level("WARNING", logger="ptycho"):
            model, stored = components.load_inference_bundle(folder)
        assert model.backend == "pytorch" and "intensity_scale" in stored
        assert "trained in TensorFlow, which is not installed: opened in PyTorch" in caplog.text
        with pytest.raises(MissingDependencyError, match="needs TensorFlow"):
            components.load_inference_bundle(folder, backend="tensorflow")


def test_the_command_trains_and_infers_in_tensorflow(make_scan, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_scan().to_file(tmp_path / "scan.npz")
    train = ["train", "scan.npz", "-o", "run", "--backend", "tensorflow", "--nepochs", "2", "--logger", "csv"]
    train += ["--n_filters_scale", "1", "--probe_from", "guess", "--accelerator", "cpu"]
    assert main(train) == 0
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} >= {"last.safetensors"}
    assert "tensorflow" in (tmp_path / "run" / "config.yaml").read_text()
    infer = ["infer", "--model", "run", "--data", "scan.npz", "-o", "out", "--backend", "tensorflow"]
    assert main(infer) == 0
    assert main([*infer[:-3], "other", "--backend", "pytorch"]) == 0
    one, other = (np.load(tmp_path / side / "reconstruction.npz")["object"] for side in ("out", "other"))
    np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())
    capsys.readouterr()
    assert main([*train, "--devices", "2"]) == 2
    assert "devices = 2: the TensorFlow backend trains on one device" in capsys.readouterr().err


def test_what_is_wrong_is_said_before_anything_trains(make_scan, small_config, silent):
    raw = make_scan()
    with pytest.raises(ConfigError, match=r"ModelConfig.N = 64, but the patterns are 32 x 32 px: set --N 32"):
        components.train_cdi_model(raw, None, small_config(raw, N=64), silent)
    with pytest.raises(ConfigError, match="no trained model: pass train_results"):
        components.reassemble_cdi_image(raw, small_config(raw))
    with pytest.raises(ConfigError, match="backend = 'jax': must be 'pytorch' or 'tensorflow'"):
        backend_selector.train_cdi_model_with_backend(
            raw, None, dataclasses.replace(small_config(raw), backend="jax")
        )
    bare = make_scan(objectGuess=None)
    with pytest.raises(DataError, match="training data: labels are needed"):
        components.train_cdi_model(bare, None, small_config(bare, model_type="supervised"), silent)


def test_a_container_passes_through(make_scan, small_config):
    raw = make_scan()
    container = components.create_ptycho_data_container(raw, small_config(raw))
    assert components.create_ptycho_data_container(container, small_config(raw)) is container


def test_the_module_imports_without_a_backend():
    import subprocess
    import sys

    code = (
        "import sys, ptycho.workflows.components, ptycho.workflows.backend_selector, ptycho.model;"
        "assert not {'tensorflow', 'keras', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr

"""What ptychodus' Lightning plugin does, call by call: train, find the checkpoint, load it, reconstruct."""

from __future__ import annotations

import logging
import pickle
import re
import shutil

import numpy as np
import pytest
import torch
from lightning_client import HALF, centred, export, labels_of, load, manager, reconstruct, train

from ptycho.errors import ConfigError, DataError, InputError, MissingFileError
from ptycho.scan.raw_data import RawData
from ptycho.scan.scan_set import probe_overlap
from ptycho.workflows.trained import state_of
from ptycho_torch import config_params
from ptycho_torch.api import scans
from ptycho_torch.api.base_api import (
    DataConfig,
    DatagenConfig,
    ModelConfig,
    PtychoDataLoader,
    PtychoModel,
)
from ptycho_torch.api.canvas import client_canvas, spacing_px
from ptycho_torch.lightning_utils import find_best_checkpoint
from ptycho_torch.model import PtychoPINN_Lightning


@pytest.fixture
def folder(tmp_path, make_scan):
    """(folder with one exported scan, the scan)."""
    raw = centred(make_scan())
    export(raw, tmp_path / "a.npz")
    return tmp_path, raw


class TestTheCallSequence:
    @pytest.mark.parametrize("grid", [1, 2])
    def test_train_then_reconstruct(self, folder, grid):
        data, raw = folder
        checkpoint, losses, loader = train(data, data, manager(grid=grid))
        assert re.fullmatch(r"run_\d{8}_\d{6}", loader.output_dir.name) and loader.output_dir.parent == data
        assert checkpoint.is_relative_to(loader.output_dir)
        assert losses.epochs == 2 and len(losses.train) == len(losses.validation) == 2
        assert all(np.isfinite(value) for _, value in losses.train + losses.validation)
        image = reconstruct(checkpoint, raw)
        assert image.dtype == np.complex64 and image.shape == raw.objectGuess.shape
        inside = image[raw.N // 2 : -raw.N // 2, raw.N // 2 : -raw.N // 2]
        assert (np.abs(inside) > 0).all()

    def test_output_into_the_input_folder_and_again(self, folder):
        data, _ = folder
        before = {path.name for path in data.iterdir()}
        for _ in range(2):
            _, _, loader = train(data, data, manager(epochs=1))
            assert loader.train.n_positions == 30
        made = {path.name for path in data.iterdir()} - before
        assert len(made) == 2 and all(name.startswith("run_") for name in made)

    def test_supervised(self, folder):
        data, raw = folder
        checkpoint, losses, _ = train(data, data, manager(mode="Supervised"))
        assert load(checkpoint)[1].model_config.mode == "Supervised"
        assert reconstruct(checkpoint, raw).shape == raw.objectGuess.shape

    def test_one_file_is_the_whole_model(self, folder, tmp_path_factory):
        data, raw = folder
        checkpoint, _, loader = train(data, data, manager())
        alone = tmp_path_factory.mktemp("elsewhere") / "model.ckpt"
        shutil.copyfile(checkpoint, alone)
        wanted = reconstruct(checkpoint, raw)
        shutil.rmtree(loader.output_dir)
        np.testing.assert_array_equal(reconstruct(alone, raw), wanted)
        module = load(alone)[0].module
        assert module.intensity_scale > 0 and float(module.complex_probe.abs().sum()) > 0

    def test_1_3_2_loads_and_saves_by_folder(self, folder, tmp_path):
        data, raw = folder
        checkpoint, _, loader = train(data, data, manager(epochs=1))
        found = PtychoModel._load(
            config_manager=manager(), strategy="lightning", run_path=loader.output_dir,
            model_class=PtychoPINN_Lightning,
        )  # fmt: skip
        saved = found.save(path=tmp_path / "kept" / "m.ckpt", source_run_path=loader.output_dir)
        np.testing.assert_array_equal(reconstruct(saved, raw), reconstruct(checkpoint, raw))

    def test_without_a_model_or_with_another_file_it_says_so(self, tmp_path, folder):
        other = tmp_path / "other.ckpt"
        torch.save({"state_dict": {}}, other)
        with pytest.raises(ConfigError, match="is no checkpoint of this package"):
            PtychoModel._extract_configs_from_checkpoint(other)
        with pytest.raises(MissingFileError, match=r"x\.ckpt: no such checkpoint"):
            PtychoModel._extract_configs_from_checkpoint("x.ckpt")
        assert find_best_checkpoint(tmp_path / "a.npz") is None
        with pytest.raises(ConfigError, match="no model"):
            _ = PtychoModel().module

    def test_a_checkpoint_of_another_network_is_refused(self, folder):
        data, _ = folder
        checkpoint, _, _ = train(data, data, manager(epochs=1))
        model, configs = load(checkpoint)
        configs.data_config = DataConfig(N=64)
        with pytest.raises(ConfigError, match="N = 32, its configuration says 64"):
            configs.validate_arch_compatibility(model)


class Delta(torch.nn.Module):
    """Answers with one bright pixel, the patch's (N//2, N//2)."""

    def forward(self, x, probe):
        amplitude = torch.zeros_like(x)
        amplitude[..., x.shape[-2] // 2, x.shape[-1] // 2] = 1
        return amplitude, torch.zeros_like(x)


class TestPlaces:
    @pytest.mark.parametrize("grid", [1, 2])
    def test_a_delta_lands_on_the_clients_pixel(self, folder, grid):
        data, raw = folder
        checkpoint, _, _ = train(data, data, manager(epochs=1, grid=grid))
        model, _ = load(checkpoint)
        model.module.network = Delta()
        image = np.abs(reconstruct(checkpoint, raw, model))
        rows, columns = np.nonzero(image > 1e-3)
        assert set(zip(columns, rows, strict=True)) == {(int(x), int(y)) for x, y in raw.positions_px}

    def test_a_labelled_patch_is_cut_where_the_client_means(self, folder):
        data, raw = folder
        read = scans.scans_from_folder(data).train
        np.testing.assert_allclose(read.positions_px, raw.positions_px)

    def test_canvas_is_the_object_centred_on_the_scan(self, make_scan):
        for width, height in ((70, 91), (71, 90)):
            x = np.array([20.25, 31.0, width - 1 - 20.25]) + HALF
            y = np.array([25.5, 30.0, height - 1 - 25.5]) + HALF
            shape, _ = client_canvas(np.stack([x, y], 1), 32)
            assert shape == (height, width)

    def test_the_scan_that_was_trained_on_gets_its_own_object(self, folder):
        data, _ = folder
        raw = RawData.from_file(data / "a.npz")
        places = raw.positions_px + HALF
        trained = [{**scans.extent(raw), "shape": [97, 103]}]
        trained[0]["low_px"] = [value + HALF for value in trained[0]["low_px"]]
        trained[0]["high_px"] = [value + HALF for value in trained[0]["high_px"]]
        assert client_canvas(places, 32, trained)[0] == (97, 103)
        # another scan of an object that is not quite centred is taken for one of that size
        moved = places[:-3] + [0.3, -0.4]
        assert client_canvas(moved, 32, [{**trained[0], "shape": [70, 66]}])[0] != (97, 103)
        assert client_canvas(places, 32, trained, object_shape=(120, 130))[0] == (120, 130)

    def test_positions_about_zero_get_a_canvas_that_holds_them(self):
        places = np.array([[-40.0, -10], [40, 10], [0, 0]])
        assert client_canvas(places, 32)[0] == (52, 112)

    def test_spacing_of_a_raster(self):
        raster = np.stack(np.meshgrid(np.arange(8) * 5.0, np.arange(6) * 5.0), -1).reshape(-1, 2)
        assert spacing_px(raster) == 5.0 and spacing_px(raster[:1]) == 0.0


class TestData:
    def test_counts_of_any_dtype_are_counts(self, make_scan):
        raw = make_scan()
        places = np.column_stack((raw.ycoords, raw.xcoords))
        for dtype in (np.uint16, np.int64, np.float32):
            read = scans.scan_from_arrays(raw.diff3d.astype(dtype), raw.probeGuess, places)
            assert read.diffraction_unit == "counts"
            np.testing.assert_allclose(read.amplitude(), np.sqrt(raw.diff3d.astype(float)), rtol=1e-6)

    def test_as_many_patterns_as_pixels_is_no_question(self, make_scan, tmp_path):
        raw = make_scan(n_positions=32, pattern_order="MNN")
        places = np.column_stack((raw.ycoords, raw.xcoords))
        read = scans.scan_from_arrays(raw.diff3d, raw.probeGuess, places)
        np.testing.assert_array_equal(read.diff3d, raw.diff3d)
        export(raw, tmp_path / "m.npz")
        np.testing.assert_array_equal(scans.scans_from_folder(tmp_path).train.diff3d, raw.diff3d)

    def test_modes_stay_modes_and_bad_pixels_do_not_count(self, make_scan, tmp_path):
        raw = centred(make_scan())
        modes = np.stack([raw.probeGuess, 0.3 * np.roll(raw.probeGuess, 3, 0)])
        bad = np.zeros((32, 32), bool)
        bad[3, 5] = bad[16, 16] = True
        export(raw, tmp_path / "a.npz", probeGuess=modes, bad_pixels=bad)
        checkpoint, _, loader = train(tmp_path, tmp_path, manager(epochs=1))
        module = load(checkpoint)[0].module
        assert loader.train.probe_modes.shape == (2, 32, 32) == tuple(module.complex_probe.shape)
        np.testing.assert_array_equal(module.bad_pixels.numpy(), bad)
        spoiled = raw.diff3d.copy()
        spoiled[:, bad] = 60000
        image = reconstruct(checkpoint, raw)
        np.testing.assert_array_equal(
            reconstruct(checkpoint, RawData(**{**raw.as_arrays(), "diff3d": spoiled})), image
        )

    def test_size_of_the_patterns_wins_and_is_said(self, folder, caplog):
        data, _ = folder
        configs = manager(N=128)
        with caplog.at_level(logging.WARNING):
            PtychoDataLoader(data, configs, output_dir=None)
        assert configs.data_config.N == 32
        assert "model size is set to 128, but the patterns are 32 x 32 px: 32 is used" in caplog.text

    def test_other_patterns_at_inference_are_refused_with_both_numbers(self, folder, make_scan):
        data, _ = folder
        checkpoint, _, _ = train(data, data, manager(epochs=1))
        with pytest.raises(DataError, match="the patterns are 40 x 40 px, the model was trained on 32"):
            reconstruct(checkpoint, make_scan(N=40))

    def test_several_scans_train_together(self, folder, make_scan, tmp_path):
        data, raw = folder
        other = make_scan(seed=3, n_positions=25, curvature=-0.05)
        export(other, data / "b.npz")
        np.savez(data / "product.npz", object=np.zeros(3))
        read = scans.scans_from_folder(data)
        assert [scan.n_positions for scan in read.scans] == [30, 25] and len(read.extents) == 2
        for scan, given in zip(read.scans, (raw, other), strict=True):
            np.testing.assert_allclose(labels_of(scan), labels_of(given), atol=1e-6)
        checkpoint, _, _ = train(data, data, manager(grid=2, mode="Supervised", epochs=1))
        known = state_of(load(checkpoint)[0].model).scans
        pairs = zip(known, (raw, other), strict=True)
        overlaps = [probe_overlap(one.guess, given.probe_modes) for one, given in pairs]
        assert min(overlaps) > 0.99 > probe_overlap(raw.probe_modes, other.probe_modes)
        for given in (raw, other):
            assert reconstruct(checkpoint, given).shape == given.objectGuess.shape

    def test_scans_of_other_sizes_are_refused_by_name(self, folder, make_scan):
        data, _ = folder
        export(make_scan(N=40), data / "b.npz")
        with pytest.raises(DataError, match=r"a\.npz has patterns of 32 x 32 px, b\.npz of 40 x 40"):
            scans.scans_from_folder(data)

    def test_test_data_is_held_out(self, folder, make_scan):
        data, _ = folder
        export(make_scan(seed=3, n_positions=25), data / "test_data.npz")
        read = scans.scans_from_folder(data)
        assert read.train.n_positions == 30 and read.held_out.n_positions == 25

    def test_an_empty_folder_is_refused(self, tmp_path):
        np.savez(tmp_path / "product.npz", object=np.zeros(3))
        with pytest.raises(InputError, match="holds no training data"):
            PtychoDataLoader(tmp_path, manager())

    def test_phase_of_labels_and_ramp_of_the_probe(self, make_scan):
        raw = make_scan()
        turned = RawData(**{**raw.as_arrays(), "objectGuess": raw.objectGuess * np.exp(3j)})
        low, high = raw.positions_px.min(0).astype(int), raw.positions_px.max(0).astype(int) + 1
        flat = scans.without_mean_phase(turned).objectGuess[low[1] : high[1], low[0] : high[0]]
        assert abs(np.angle(flat.sum())) < 1e-6
        step = np.arange(32) - 16
        ramp = np.exp(2j * np.pi * (2.5 * step[None, :] - 1.25 * step[:, None]) / 32)
        tilted = RawData(**{**raw.as_arrays(), "probeGuess": raw.probeGuess * ramp})
        found = scans.without_probe_ramp(tilted).probe_modes[0]
        plain = scans.without_probe_ramp(raw).probe_modes[0]
        np.testing.assert_allclose(found, plain, atol=2e-3 * np.abs(plain).max())


class TestSettings:
    def test_one_warning_says_what_is_ignored(self, folder, caplog):
        data, _ = folder
        configs = manager()
        configs.data_config.normalize = "Group"
        configs.model_config.eca_encoder = True
        with caplog.at_level(logging.INFO):
            PtychoDataLoader(data, configs)
        warned = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(warned) == 1
        assert "DataConfig.normalize = 'Group': no effect: one scale per training set" in warned[0]
        assert "ModelConfig.eca_encoder = True" in warned[0] and "C_model" not in warned[0]

    def test_the_clients_defaults_warn_of_nothing(self, folder, caplog):
        data, raw = folder
        with caplog.at_level(logging.INFO):
            checkpoint, _, _ = train(data, data, manager(grid=2, epochs=1))
            reconstruct(checkpoint, raw)
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
        if not torch.cuda.is_available():
            assert caplog.text.count("device = 'cuda': no GPU here") == 2

    def test_without_likelihood_amplitude_counts(self):
        configs = manager(nll=False)
        configs.settle(32)
        model = PtychoModel._new_model(PtychoPINN_Lightning, configs)
        assert model.module.config.mae_weight == 1.0 and model.module.config.nll_weight == 0.0

    def test_fine_tuning_stages_follow_in_the_same_run(self, folder):
        data, raw = folder
        staged = {
            "enable_staged_finetuning": True, "finetune_stage1_epochs": 1, "finetune_stage2_epochs": 1,
            "finetune_skip_stage3": True, "finetune_val_split": 0.2,
        }  # fmt: skip
        configs = manager(epochs=1, scheduler="Cosine", **staged)
        checkpoint, losses, _ = train(data, data, configs)
        assert losses.epochs == len(losses.train) == 3
        assert load(checkpoint)[0].module.config.val_fraction == 0.2
        with pytest.raises(ConfigError, match="finetune_val_split = 0.7: must be below 0.5"):
            PtychoDataLoader(data, manager(**{**staged, "finetune_val_split": 0.7}))

    def test_ramp_and_phase_are_taken_out_where_the_settings_ask(self, folder):
        data, raw = folder
        configs = manager(mode="Supervised")
        configs.data_config.probe_ramp_removal = True
        read = PtychoDataLoader(data, configs).train
        np.testing.assert_allclose(
            read.objectGuess, scans.without_mean_phase(scans.scan_from_file(data / "a.npz")).objectGuess
        )
        np.testing.assert_allclose(read.probe_modes, scans.without_probe_ramp(raw).probe_modes, atol=1e-4)
        configs = manager()
        np.testing.assert_array_equal(PtychoDataLoader(data, configs).train.objectGuess, raw.objectGuess)

    def test_configurations_travel_to_another_process(self):
        configs = manager()
        assert pickle.loads(pickle.dumps(configs)) == configs
        assert ModelConfig is config_params.ModelConfig and DatagenConfig is config_params.DatagenConfig

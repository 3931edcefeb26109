"""The calls of ptychodus 1.2, which ran in its own process and found modules that it had not imported."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import numpy as np
import pytest

import ptycho
import ptycho.loader
import ptycho.model
import ptycho.probe
import ptycho.tf_helper
from ptycho import params
from ptycho.config.config import (
    InferenceConfig,
    ModelConfig,
    PyTorchExecutionConfig,
    update_legacy_dict,
    validate_model_config,
)
from ptycho.errors import BundleError, ConfigError, DataError
from ptycho.raw_data import RawData
from ptycho.workflows.components import load_inference_bundle


def old_scan(scan) -> RawData:
    """The same scan as a client's, which lays its groups out."""
    return RawData(**scan.as_arrays())


def test_what_it_uses_without_importing_is_there() -> None:
    """It imports loader and model_manager, and takes `ptycho.probe` and `ptycho.tf_helper` for granted."""
    code = """
        from ptycho.config.config import InferenceConfig, ModelConfig, TrainingConfig, update_legacy_dict
        from ptycho.raw_data import RawData
        from ptycho.workflows.components import load_inference_bundle
        import ptycho.loader
        import ptycho.model_manager
        import ptycho.params
        import sys
        print(callable(ptycho.probe.set_probe_guess), callable(ptycho.tf_helper.reassemble_position),
              *{"torch", "tensorflow"} & set(sys.modules))
    """
    said = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert said.stdout.split() == ["True", "True"]


def test_the_scale_of_the_model_is_asked_of_the_model_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(params.cfg, "intensity_scale", 12.5)
    assert ptycho.model.params()["intensity_scale"] == 12.5
    ptycho.model.params()["intensity_scale"] = 0.0
    assert params.get("intensity_scale") == 12.5


def test_its_reconstruction_call_by_call(make_scan, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe without modes, gridsize from the dictionary: patches of the truth come back as the truth."""
    monkeypatch.setattr(params, "cfg", dict(params.cfg))
    scan = make_scan()
    update_legacy_dict(params.cfg, InferenceConfig(ModelConfig(N=scan.N, gridsize=1)))
    raw = RawData.from_coords_without_pc(
        scan.xcoords,
        scan.ycoords,
        scan.diff3d,
        scan.probe_modes[0],
        np.zeros(scan.n_positions, int),
        scan.objectGuess,
    )
    ptycho.probe.set_probe_guess(None, raw.probeGuess)
    data = raw.generate_grouped_data(scan.N, K=7, nsamples=scan.n_positions)
    container = ptycho.loader.load(lambda: data, raw.probeGuess, which=None, create_split=False)
    assert container.X.shape == (scan.n_positions, scan.N, scan.N, 1)
    assert container.local_offsets.shape == (scan.n_positions, 1, 2, 1)
    image = np.squeeze(ptycho.tf_helper.reassemble_position(container.Y, container.global_offsets, M=20))
    assert image.shape == scan.objectGuess.shape
    seen = image != 0
    # positions and patches are on whole pixels, so that nothing is interpolated
    np.testing.assert_allclose(image[seen], scan.objectGuess[seen], rtol=1e-5)
    assert seen.mean() > 0.2


class TestGroups:
    @pytest.mark.parametrize("gridsize", [1, 2])
    def test_more_groups_than_positions_is_every_position_once(self, make_scan, gridsize, caplog) -> None:
        """The plugin's page says: the number of patterns, or more."""
        scan = old_scan(make_scan())
        data = scan.generate_grouped_data(scan.N, K=7, nsamples=512, gridsize=gridsize)
        assert data["diffraction"].shape == (30, scan.N, scan.N, gridsize**2)
        np.testing.assert_array_equal(np.sort(data["nn_indices"][:, 0]), np.arange(30))
        said = [record.getMessage() for record in caplog.records if "512" in record.getMessage()]
        assert len(said) == 1 and said[0].startswith(
            "512 groups asked for of 30 positions: every position is"
        )

    def test_oversampling_ends_at_the_last_distinct_group(self, make_scan, caplog) -> None:
        scan = old_scan(make_scan())
        options = {"K": 4, "gridsize": 2, "enable_oversampling": True}
        assert len(scan.generate_grouped_data(scan.N, nsamples=100, **options)["nn_indices"]) == 100
        assert "asked for" not in caplog.text
        assert len(scan.generate_grouped_data(scan.N, nsamples=500, **options)["nn_indices"]) == 120
        assert "500 groups asked for of 30 positions: all 120 distinct groups are taken" in caplog.text

    def test_a_run_is_capped_too(self, make_scan, caplog) -> None:
        from ptycho.config.config import TrainingConfig
        from ptycho.workflows.components import create_ptycho_data_container

        config = TrainingConfig(ModelConfig(N=32), n_groups=512)
        assert len(create_ptycho_data_container(make_scan(), config)) == 30
        assert caplog.text.count("512 groups asked for of 30 positions") == 1

    def test_indices_are_int32(self, make_scan) -> None:
        scan = old_scan(make_scan())
        data = scan.generate_grouped_data(scan.N, K=7, nsamples=20, gridsize=2)
        assert data["nn_indices"].dtype == np.int32
        container = ptycho.loader.load(lambda: data, scan.probeGuess)
        assert container.nn_indices.dtype == np.int32
        np.testing.assert_array_equal(container.source_rows[container.nn_indices], data["nn_indices"])

    def test_groups_in_sequence_do_not_depend_on_the_seed(self, make_scan) -> None:
        scan = old_scan(make_scan())
        asked = {"K": 7, "nsamples": 20, "gridsize": 2}
        drawn = [
            scan.generate_grouped_data(scan.N, seed=seed, sequential_sampling=True, **asked)["nn_indices"]
            for seed in (None, 1, 2)
        ]
        np.testing.assert_array_equal(drawn[0], drawn[1])
        np.testing.assert_array_equal(drawn[0], drawn[2])
        np.testing.assert_array_equal(drawn[0][:, 0], np.arange(20))
        other = [scan.generate_grouped_data(scan.N, seed=seed, **asked)["nn_indices"] for seed in (1, 2)]
        assert not np.array_equal(*other)


class TestContainerByHand:
    @pytest.mark.parametrize("gridsize", [1, 2])
    def test_what_goes_in_comes_out(self, make_scan, gridsize) -> None:
        scan = old_scan(make_scan())
        data = scan.generate_grouped_data(scan.N, K=7, nsamples=20, gridsize=gridsize)
        loaded = ptycho.loader.load(lambda: data, scan.probeGuess)
        names = ("X", "Y_I", "Y_phi", "coords_nominal", "coords_true", "global_offsets", "local_offsets")
        seen = {name: getattr(loaded, name) for name in names}
        more = {
            "norm_Y_I": 1.0,
            "YY_full": None,
            "nn_indices": data["nn_indices"],
            "probeGuess": scan.probeGuess,
        }
        made = ptycho.loader.PtychoDataContainer(**seen, **more)
        for name in (*names, "nn_indices", "probe"):
            np.testing.assert_allclose(getattr(made, name), getattr(loaded, name), rtol=1e-5, atol=1e-5)
        assert len(made.select(np.arange(3))) == 3 and isinstance(made, type(loaded))

    def test_x_and_y_are_enough(self, caplog) -> None:
        rng = np.random.default_rng(0)
        x, y = rng.uniform(size=(2, 4, 32, 32, 1)).astype(np.float32)
        made = ptycho.loader.PtychoDataContainer(x, y)
        np.testing.assert_array_equal(made.X, x)
        np.testing.assert_allclose(made.Y_I, y, rtol=1e-6)
        assert made.probe.shape == (1, 32, 32) and made.global_offsets.shape == (4, 1, 2, 1)
        assert "flat probe" in caplog.text
        ptycho.probe.set_probe_guess(None, np.full((32, 32), 2.0))
        assert ptycho.loader.PtychoDataContainer(X=x, Y_I=y).probe[0, 0, 0] == 2

    @pytest.mark.parametrize(
        "change, message",
        [
            ({"X": np.ones((4, 32, 32))}, r"X has shape \(4, 32, 32\); expected \(B,N,N,C\)"),
            ({"Y_I": np.ones((4, 32, 32))}, r"Y_I has shape \(4, 32, 32\); expected \(4, 32, 32, 1\)"),
            ({"global_offsets": np.ones((4, 2))}, r"global_offsets has shape \(4, 2\)"),
            ({"probeGuess": np.ones((16, 16))}, r"probeGuess has shape \(16, 16\)"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, change, message) -> None:
        arrays = {
            "X": np.ones((4, 32, 32, 1)),
            "Y_I": np.ones((4, 32, 32, 1)),
            "probeGuess": np.ones((32, 32)),
        }
        with pytest.raises(DataError, match=message):
            ptycho.loader.PtychoDataContainer(**{**arrays, **change})


def test_a_parameter_that_is_not_there_has_a_default() -> None:
    assert params.get("never_set", 3) == 3 and params.get("never_set", None) is None
    assert params.get("N", 3) == params.cfg["N"]
    with pytest.raises(KeyError, match="no parameter 'never_set'"):
        params.get("never_set")


def test_values_that_older_programs_write() -> None:
    model = ModelConfig(amp_activation="silu")
    validate_model_config(model)
    assert model.amp_activation == "swish"
    assert PyTorchExecutionConfig(logger_backend=None).logger_backend == "none"
    with pytest.raises(ConfigError, match="amp_activation = 'selu': must be one of 'sigmoid', 'swish'"):
        validate_model_config(ModelConfig(amp_activation="selu"))


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_without_a_model_is_a_missing_file(tmp_path, there) -> None:
    """Older programs catch FileNotFoundError where no model was saved."""
    folder = tmp_path if there else tmp_path / "nowhere"
    with pytest.raises(FileNotFoundError) as caught:
        load_inference_bundle(folder)
    assert isinstance(caught.value, BundleError) and str(folder) in str(caught.value)

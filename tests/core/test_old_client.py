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
from ptycho.config.config import InferenceConfig, ModelConfig, update_legacy_dict
from ptycho.raw_data import RawData


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

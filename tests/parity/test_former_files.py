"""Files of an earlier version still open: bundles and checkpoints of commit e942f79, with the same patches.

`tests/fixtures/e942f79` holds a scan, and of each backend a bundle, the checkpoint after two epochs, what the
model answered, and the losses of three epochs in one go.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptycho.config.config import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.raw_data import RawData
from ptycho.workflows.backend_selector import load_inference_bundle_with_backend, train_cdi_model_with_backend

FORMER = Path(__file__).resolve().parents[1] / "fixtures" / "e942f79"
LAST = {"pytorch": "last.ckpt", "tensorflow": "last.safetensors"}
BACKENDS = ("pytorch", "tensorflow")


@pytest.fixture(autouse=True)
def both(tf):
    """Every test here needs both backends."""


def seen(backend: str) -> dict[str, np.ndarray]:
    with np.load(FORMER / backend / "seen.npz", allow_pickle=False) as stored:
        return dict(stored)


def assert_same_patches(model, known: dict[str, np.ndarray], tolerance: float) -> None:
    scaled = known["X"] * known["intensity_scale"]
    assert model.intensity_scale == pytest.approx(float(known["intensity_scale"]), rel=1e-6)
    for offsets, wanted in ((None, known["patches"]), (known["local_offsets"], known["merged"])):
        found = model.predict([scaled, offsets])
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() < tolerance * np.abs(wanted).max()


@pytest.mark.parametrize("opened_by", BACKENDS)
@pytest.mark.parametrize("written_by", BACKENDS)
def test_a_bundle_gives_the_patches_it_gave(written_by, opened_by):
    model, config = load_inference_bundle_with_backend(FORMER / written_by, backend=opened_by)
    assert (config["N"], config["gridsize"], config["backend"]) == (32, 2, opened_by)
    assert_same_patches(model, seen(written_by), 1e-5 if written_by == opened_by else 1e-4)


def test_a_lightning_checkpoint_opens_with_no_argument():
    from ptycho_torch.api.base_api import PtychoModel
    from ptycho_torch.model import PtychoPINN_Lightning
    from ptycho_torch.workflows.trained import TrainedModel

    path = FORMER / "pytorch" / LAST["pytorch"]
    module = PtychoPINN_Lightning.load_from_checkpoint(path)
    assert_same_patches(TrainedModel(module), seen("pytorch"), 1e-5)
    data, model, training, inference = PtychoModel._extract_configs_from_checkpoint(path)
    assert (data.N, data.grid_size, data.C, training.epochs) == (32, (2, 2), 4, 2)
    again = PtychoPINN_Lightning.load_from_checkpoint(
        path, model_config=model, data_config=data, training_config=training, inference_config=inference
    )
    assert_same_patches(TrainedModel(again), seen("pytorch"), 1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_checkpoint_goes_on_as_if_nothing_had_happened(backend, tmp_path):
    with np.load(FORMER / "scan.npz", allow_pickle=False) as stored:
        raw = RawData.from_coords_without_pc(**stored)
    config = TrainingConfig(
        model=ModelConfig(N=32, gridsize=2, n_filters_scale=1), nepochs=3, batch_size=8, neighbor_count=4,
        n_groups=16, probe_trainable=True, probe_from="guess", output_dir=tmp_path, backend=backend,
    )  # fmt: skip
    execution = PyTorchExecutionConfig(logger_backend="none", accelerator="cpu", enable_progress_bar=False)
    resume = FORMER / backend / LAST[backend]
    made = train_cdi_model_with_backend(raw, None, config, execution_config=execution, resume=resume)
    known = seen(backend)
    for name in ("train_loss", "val_loss"):
        assert made["history"][name][:2] == pytest.approx(known[name][:2], rel=1e-12)
        assert made["history"][name] == pytest.approx(known[name], rel=1e-4)

"""As many patterns as pixels a side: 64 patterns of 64 x 64, and no word of which axis counts them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from client_driver import TF_PLUGIN, Client, export_training_data, model_name, reconstruct
from client_scans import Case, check
from client_settings import for_api, quick

from ptycho.raw_data import RawData
from ptycho.simulation import Simulated

SQUARE = Case(64, 1, True, positions=64)
EPOCHS = {"ptychopinn_pinn": 40, "ptychopinn-torch_unsupervised": 50}


@pytest.mark.parametrize("algorithm", EPOCHS)
def test_trains_and_reconstructs(
    client: Client,
    scan_folder: Callable[..., Path],
    simulated: Callable[[Case], Simulated],
    tmp_path: Path,
    algorithm: str,
) -> None:
    given, data, trained = scan_folder(SQUARE), tmp_path / "data", tmp_path / "trained"
    client.settings(algorithm, **for_api(quick(algorithm, SQUARE, epochs=EPOCHS[algorithm])))
    product = client.load(given)
    export_training_data(client, product, data, algorithm)
    raw = RawData.from_file(data / "train_data.npz")
    assert raw.diff3d.shape == (64, 64, 64)
    good = ~simulated(SQUARE).raw.bad_pixels
    np.testing.assert_array_equal(raw.diff3d[:, good], simulated(SQUARE).raw.diff3d[:, good])
    product.train_reconstructor_local(data, trained, algorithm=algorithm, block=True)
    model = trained / model_name(algorithm)
    client.models.save_model_to_file(model, algorithm=algorithm)
    image = reconstruct(client, given, algorithm, model, tmp_path / "made")
    check(image, simulated(SQUARE))
    if algorithm in TF_PLUGIN:
        # the page says: NumSamples, the number of patterns or more
        client.settings(algorithm, inference__n_samples=512)
        client.expects("512 groups asked for of 64 positions: every position is taken once")
        np.testing.assert_array_equal(reconstruct(client, given, algorithm, model, tmp_path / "more"), image)

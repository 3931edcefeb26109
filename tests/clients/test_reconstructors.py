"""Each of the four reconstructors: train, save, load, reconstruct; the image is the truth's, in place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from client_driver import (
    TF_PLUGIN,
    TORCH_PLUGIN,
    Client,
    batch,
    batch_image,
    export_training_data,
    model_name,
    printed_complaints,
    reconstruct,
    running_client,
    write_settings,
)
from client_scans import Case, check
from client_settings import for_api, for_ini, quick

from ptycho.io.npz import open_npz
from ptycho.simulation import Simulated

MIXED = Case(64, 2, False)
# Each reconstructor learns two scans that share no property: side, number of modes, shape of the object.
IN_PROCESS = {
    "ptychopinn_pinn": Case(128, 2, True),
    "ptychopinn_supervised": Case(64, 2, False),
    "ptychopinn-torch_unsupervised": Case(128, 1, False),
    "ptychopinn-torch_supervised": Case(64, 1, False),
}
BATCH = {
    "ptychopinn_pinn": Case(64, 1, False),
    "ptychopinn_supervised": Case(128, 1, True),
    "ptychopinn-torch_unsupervised": Case(64, 2, True),
    "ptychopinn-torch_supervised": Case(128, 2, True),
}

Write = Callable[..., Path]
Simulate = Callable[[Case], Simulated]


def case_id(value: object) -> str:
    return str(value)


def supervised(algorithm: str) -> bool:
    return algorithm.endswith("_supervised")


def test_the_four_are_offered(client: Client) -> None:
    assert set(TF_PLUGIN + TORCH_PLUGIN) <= set(client.core.workflow_api.available_reconstructors())


@pytest.mark.parametrize("algorithm", TF_PLUGIN + TORCH_PLUGIN)
def test_exported_training_data_are_a_scan_here(
    client: Client, scan_folder: Write, simulated: Simulate, tmp_path: Path, algorithm: str
) -> None:
    from ptycho.raw_data import RawData

    export_training_data(client, client.load(scan_folder(MIXED, truth=True)), tmp_path / "data", algorithm)
    raw = RawData.from_file(tmp_path / "data" / "train_data.npz")
    scan = simulated(MIXED)
    assert raw.diffraction_unit == "counts" and raw.diff3d.dtype == np.uint16
    assert raw.probe_modes.shape == (2, 64, 64)
    np.testing.assert_array_equal(raw.bad_pixels, scan.raw.bad_pixels)
    # the client names the same places half a pixel lower
    np.testing.assert_allclose(raw.positions_px, scan.raw.positions_px - 0.5, atol=1e-6)
    with open_npz(tmp_path / "data" / "train_data.npz") as archive:
        np.testing.assert_array_equal(archive["objectGuess"], scan.object_true)


@pytest.mark.parametrize("algorithm, case", IN_PROCESS.items(), ids=case_id)
def test_in_process(
    scan_folder: Write, simulated: Simulate, tmp_path: Path, algorithm: str, case: Case
) -> None:
    """Export, train, save the model; in a fresh ptychodus load it and reconstruct a product that is flat."""
    model = tmp_path / model_name(algorithm)
    settings = for_api(quick(algorithm, case))
    labels = scan_folder(case, truth=True, name="labels") if supervised(algorithm) else scan_folder(case)
    with running_client() as first:
        first.settings(algorithm, **settings)
        product = first.load(labels)
        export_training_data(first, product, tmp_path / "data", algorithm)
        product.train_reconstructor_local(
            tmp_path / "data", tmp_path / "trained", algorithm=algorithm, block=True
        )
        first.models.save_model_to_file(model, algorithm=algorithm)
        assert first.complaints() == []
    shutil.rmtree(tmp_path / "trained")
    with running_client() as second:
        second.settings(algorithm, **settings)
        image = reconstruct(second, scan_folder(case), algorithm, model, tmp_path / "out")
        assert second.complaints() == []
    check(image, simulated(case))


@pytest.mark.parametrize("algorithm, case", BATCH.items(), ids=case_id)
def test_batch_mode(
    scan_folder: Write, simulated: Simulate, tmp_path: Path, algorithm: str, case: Case
) -> None:
    """`ptychodus -b train` and `-b reconstruct`; training writes into the folder that it reads."""
    labels = scan_folder(case, truth=supervised(algorithm), name="labels")
    given = scan_folder(case)
    with running_client() as exporter:
        export_training_data(exporter, exporter.load(labels), labels, algorithm)
    settings = for_ini(quick(algorithm, case))
    for folder in (labels, given):
        write_settings(folder / "settings.ini", algorithm, **settings)

    trained = batch("train", labels, labels)
    assert trained.returncode == 0, trained.stdout
    assert printed_complaints(trained.stdout) == []
    made = sorted(labels.rglob("*.ckpt" if algorithm in TORCH_PLUGIN else "wts.h5.zip"))
    assert made, sorted(labels.rglob("*"))
    shutil.copy(made[0], given / model_name(algorithm))

    done = batch("reconstruct", given, tmp_path / "out")
    assert done.returncode == 0, done.stdout
    assert printed_complaints(done.stdout) == []
    check(batch_image(tmp_path / "out", given), simulated(case))

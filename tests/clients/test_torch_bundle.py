"""A model of this package's PyTorch path serves the TensorFlow plugin, TensorFlow installed or not."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from client_driver import (
    Client,
    batch,
    batch_image,
    export_training_data,
    image_of,
    printed_complaints,
    reconstruct,
    write_settings,
)
from client_scans import Case, check, write_scan
from client_settings import for_api, for_ini, quick

from ptycho.config.config import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.raw_data import RawData
from ptycho.simulation import Simulated

CASE = Case(64, 1, True)
Write = Callable[..., Path]
Simulate = Callable[[Case], Simulated]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, simulated: Simulate) -> Path:
    """`wts.h5.zip` of a short training on the scan of ptychodus' own files."""
    from ptycho_torch.workflows.components import run_cdi_example_torch

    folder = tmp_path_factory.mktemp("torch_bundle")
    write_scan(folder, simulated(CASE), truth=False)
    config = TrainingConfig(
        ModelConfig(N=64, n_filters_scale=1),
        nepochs=20,
        batch_size=8,
        scheduler="WarmupCosine",
        gradient_clip_val=1.0,
        output_dir=folder / "run",
    )
    quiet = PyTorchExecutionConfig(
        logger_backend="none", enable_checkpointing=False, accelerator="cpu", learning_rate=2e-3
    )
    run_cdi_example_torch(RawData.from_file(folder / "diffraction.h5"), None, config, execution_config=quiet)
    return folder / "run" / "wts.h5.zip"


@pytest.fixture
def without_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Python started from here finds no TensorFlow and no Keras."""
    folder = tmp_path / "no_tensorflow"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('tensorflow', 'keras'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import importlib.util as u\n"
        "whole = u.find_spec\n"
        "gone = ('tensorflow', 'keras')\n"
        "u.find_spec = lambda n, p=None: None if n.partition('.')[0] in gone else whole(n, p)\n"
    )
    already = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{already}" if already else str(folder))


@pytest.mark.parametrize("algorithm", ["ptychopinn_pinn", "ptychopinn_supervised"])
def test_without_tensorflow(
    client: Client,
    bundle: Path,
    scan_folder: Write,
    simulated: Simulate,
    tmp_path: Path,
    without_tensorflow: None,
    algorithm: str,
) -> None:
    client.settings(algorithm, **for_api(quick(algorithm, CASE)))
    check(reconstruct(client, scan_folder(CASE), algorithm, bundle, tmp_path / "out"), simulated(CASE))


@pytest.mark.parametrize("form", ["copied", "outer"])
def test_the_model_file_of_batch_mode(
    bundle: Path, scan_folder: Write, simulated: Simulate, tmp_path: Path, form: str
) -> None:
    """model.zip is a copy of wts.h5.zip, unpacked by ptychodus, or an archive that holds wts.h5.zip."""
    given = scan_folder(CASE)
    write_settings(given / "settings.ini", "ptychopinn_pinn", **for_ini(quick("ptychopinn_pinn", CASE)))
    if form == "copied":
        (given / "model.zip").write_bytes(bundle.read_bytes())
    else:
        with zipfile.ZipFile(given / "model.zip", "w") as archive:
            archive.write(bundle, "wts.h5.zip")
    done = batch("reconstruct", given, tmp_path / "out")
    assert done.returncode == 0, done.stdout
    assert printed_complaints(done.stdout) == []
    check(batch_image(tmp_path / "out", given), simulated(CASE))


def test_default_settings_say_how_many_samples_there_are(
    bundle: Path, scan_folder: Write, simulated: Simulate, tmp_path: Path
) -> None:
    """NumSamples is 1 by default: one window of the image, in its place, and a line that says so."""
    given = scan_folder(CASE)
    write_settings(given / "settings.ini", "ptychopinn_pinn")
    (given / "model.zip").write_bytes(bundle.read_bytes())
    done = batch("reconstruct", given, tmp_path / "out")
    assert done.returncode == 0, done.stdout
    assert f"only 1 of {CASE.positions} positions" in done.stdout and "NumSamples" in done.stdout
    image = batch_image(tmp_path / "out", given)
    assert image.shape == simulated(CASE).object_true.shape and 0 < (image != 0).sum() <= 21 * 21


def test_a_scan_of_another_size_is_told(bundle: Path, scan_folder: Write, tmp_path: Path) -> None:
    case = Case(128, 1, False)
    given = scan_folder(case)
    write_settings(given / "settings.ini", "ptychopinn_pinn", **for_ini(quick("ptychopinn_pinn", case)))
    (given / "model.zip").write_bytes(bundle.read_bytes())
    done = batch("reconstruct", given, tmp_path / "out")
    assert done.returncode != 0
    assert "128" in done.stdout and "64" in done.stdout and "DataError" in done.stdout


def test_training_without_tensorflow_says_what_to_install(
    scan_folder: Write, client: Client, tmp_path: Path, without_tensorflow: None
) -> None:
    given = scan_folder(CASE)
    product = client.load(given)
    export_training_data(client, product, tmp_path / "data", "ptychopinn_pinn")
    client.expects("Background task exception during TrainBackgroundTask")
    with pytest.raises(Exception, match=r"pip install 'ptychopinn\[tf\]'"):
        product.train_reconstructor_local(
            tmp_path / "data", tmp_path / "out", algorithm="ptychopinn_pinn", block=True
        )


def test_ptycho_infer_reads_and_writes_the_client_files(
    bundle: Path, scan_folder: Write, simulated: Simulate, tmp_path: Path
) -> None:
    given = scan_folder(CASE)
    words = ["infer", "--model", bundle.parent, "--data", given / "diffraction.h5", "-o", tmp_path / "image"]
    words += ["--product", tmp_path / "out.h5", "--accelerator", "cpu"]
    subprocess.run([sys.executable, "-m", "ptycho.cli", *map(str, words)], check=True)
    # no half pixel is lost on this way: the file says which convention its positions follow
    check(image_of(tmp_path / "out.h5", given / "product.h5"), simulated(CASE), within_px=0.3)

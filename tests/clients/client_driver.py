"""Driving the real ptychodus without a window: its Python API in this process, its batch mode in another."""

from __future__ import annotations

import configparser
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ptychodus.api.io import load_product
from ptychodus.model.core import ModelCore

from ptycho.io.ptychodus_product import read_product

TF_PLUGIN = ("ptychopinn_pinn", "ptychopinn_supervised")
TORCH_PLUGIN = ("ptychopinn-torch_unsupervised", "ptychopinn-torch_supervised")
# Its own warnings, of paths that are placeholders or of a machine without a GPU, are none of ours.
_THEIRS = re.compile(r"\[WARNING\] ptychodus[.\w]*: ")


def model_name(algorithm: str) -> str:
    """The file in which ptychodus keeps a model of this reconstructor."""
    return "model.ckpt" if algorithm in TORCH_PLUGIN else "model.zip"


class Client:
    """A ModelCore and what it logs."""

    def __init__(self, core: ModelCore, records: list[logging.LogRecord]) -> None:
        self.core, self.records = core, records
        self._expected: str | None = None

    def expects(self, beginning: str) -> None:
        """A complaint that belongs to the test. Its thread may log it after the caller has its exception."""
        self._expected = beginning

    def load(self, folder: Path) -> Any:
        """The product handle of diffraction.h5 and product.h5."""
        diffraction = self.core.workflow_api.load_assembled_diffraction_data(folder / "diffraction.h5")
        return self.core.workflow_api.load_product(folder / "product.h5", diffraction=diffraction)

    @property
    def models(self) -> Any:
        """Loading and saving of models."""
        return self.core.processing_core.processing_api

    def settings(self, algorithm: str, **values: Any) -> None:
        """Set a plugin's settings by the names of its own objects, e.g. `training__epochs=3`."""
        core = self.core
        library = (
            core.ptychopinn_torch_reconstructor_library
            if algorithm in TORCH_PLUGIN
            else core.ptychopinn_reconstructor_library
        )
        for name, value in values.items():
            group, _, key = name.partition("__")
            getattr(getattr(library, f"{group}_settings"), key).set_value(value)

    def complaints(self) -> list[str]:
        """Warnings, errors and tracebacks that ptychodus did not say about itself."""
        return [
            f"{record.levelname} {record.name}: {record.getMessage()}"
            for record in self.records
            if (record.levelno >= logging.WARNING or "Traceback" in record.getMessage())
            and not _THEIRS.match(f"[{record.levelname}] {record.name}: ")
            and not (self._expected and record.getMessage().startswith(self._expected))
        ]


class _Keeper(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def running_client() -> Iterator[Client]:
    """A ptychodus in this process, stopped afterwards."""
    root, keeper = logging.getLogger(), _Keeper()
    level = root.level
    with ModelCore(None, log_level=logging.INFO) as core:
        root.addHandler(keeper)
        root.setLevel(logging.INFO)
        try:
            yield Client(core, keeper.records)
        finally:
            root.removeHandler(keeper)
            root.setLevel(level)


def export_training_data(client: Client, product: Any, folder: Path, algorithm: str) -> None:
    """Training data as a user lays it out: the TensorFlow plugin wants a train and a test file."""
    folder.mkdir(parents=True, exist_ok=True)
    product.export_training_data(folder / "train_data.npz", algorithm=algorithm)
    if algorithm in TF_PLUGIN:
        shutil.copy(folder / "train_data.npz", folder / "test_data.npz")


def reconstruct(client: Client, folder: Path, algorithm: str, model: Path, output: Path) -> np.ndarray:
    """Load a model, reconstruct, save the product; the image (H, W), the same in both readers of it."""
    client.models.load_model_from_file(model, algorithm=algorithm)
    made = client.load(folder).reconstruct_local(algorithm=algorithm, block=True)
    output.mkdir(parents=True, exist_ok=True)
    made.save_product(output / "product.h5", file_type="HDF5")
    return image_of(output / "product.h5", folder / "product.h5")


def image_of(path: Path, given: Path) -> np.ndarray:
    """The object of a product that keeps the place of the given one."""
    theirs, before = load_product(path), load_product(given)
    assert theirs.object_.get_geometry() == before.object_.get_geometry()
    image = np.asarray(theirs.object_.get_layer(0))
    np.testing.assert_array_equal(read_product(path).object[0], image)
    return image


def batch_image(output: Path, given: Path) -> np.ndarray:
    """The image of a batch reconstruction, whose product carries its progress in its name."""
    made = sorted(output.glob("product*.h5"))
    assert made, sorted(output.iterdir())
    return image_of(made[-1], given / "product.h5")


def write_settings(path: Path, algorithm: str, **groups: dict[str, Any]) -> None:
    """settings.ini of batch mode: the algorithm, and keys of the plugin's groups."""
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser["Processing"] = {"Algorithm": algorithm}
    for group, values in groups.items():
        parser[group] = {key: str(value) for key, value in values.items()}
    with open(path, "w") as stream:
        parser.write(stream)


def batch(action: str, given: Path, output: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`ptychodus -b ACTION -i GIVEN -o OUTPUT`, with everything that it printed in `stdout`."""
    command = [sys.executable, "-m", "ptychodus", "-b", action, "-i", str(given), "-o", str(output)]
    return subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        cwd=output.parent,
        env={**os.environ, **environment},
        check=False,
    )


def printed_complaints(text: str) -> list[str]:
    """Lines of a batch run that are warnings, errors or the head of a traceback."""
    suspicious = re.compile(r"\[(WARNING|ERROR|CRITICAL)\]|Traceback|Warning:")
    return [line for line in text.splitlines() if suspicious.search(line) and not _THEIRS.search(line)]

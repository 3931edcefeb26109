"""Pattern files that vanish between the start of a training and the reading of their rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import pytest

from ptycho.config.config import ModelConfig, PyTorchExecutionConfig, TrainingConfig
from ptycho.errors import DataError, MissingFileError
from ptycho.scan.raw_data import RawData
from ptycho.simulation import Scenario, simulate
from ptycho.workflows.train import train

SHARDS = 3


def cxi_of_shards(folder: Path) -> Path:
    """A scan whose frames lie in three files, put together by a virtual dataset, as Eiger detectors write."""
    raw = simulate(Scenario(N=32, n_positions=36, step_px=3.0, photons=1e4)).raw
    path, each = folder / "scan.cxi", raw.n_positions // SHARDS
    layout = h5py.VirtualLayout(raw.diff3d.shape, raw.diff3d.dtype)
    for number in range(SHARDS):
        part = slice(number * each, (number + 1) * each)
        with h5py.File(folder / f"data_{number}.h5", "w") as shard:
            shard["data"] = raw.diff3d[part]
        layout[part] = h5py.VirtualSource(f"data_{number}.h5", "data", shape=raw.diff3d[part].shape)
    with h5py.File(path, "w") as master:
        master["cxi_version"] = 160
        detector = master.create_group("entry_1/instrument_1/detector_1")
        detector.create_virtual_dataset("data", layout)
        detector["x_pixel_size"] = detector["y_pixel_size"] = 1e-4
        detector["distance"] = 1.0
        master["entry_1/instrument_1/source_1/energy"] = 1.6e-15
        master["entry_1/data_1/data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
        metres = 1e-9 * raw.positions_px
        moves = detector.create_dataset("translation", (raw.n_positions, 3), float)
        moves[:, :2] = metres
    return path


def train_from_disk(scans: Any, folder: Path) -> None:
    """One epoch on scans whose patterns stay on disk."""
    config = TrainingConfig(
        model=ModelConfig(N=32, n_filters_scale=1), nepochs=1, batch_size=8, probe_from="guess",
        output_dir=folder / "run",
    )  # fmt: skip
    execution = PyTorchExecutionConfig(accelerator="cpu", logger_backend="none", patterns="disk")
    train(scans, None, config, execution)


def test_a_shard_that_vanishes_is_named_and_never_read_as_zeros(tmp_path: Path) -> None:
    path = cxi_of_shards(tmp_path)
    raw = RawData.from_file(path, patterns="disk", make_probe=True)
    assert raw.diff3d[12:24].any()
    (tmp_path / "data_1.h5").unlink()
    with pytest.raises(DataError, match="put together from data_1.h5, which is not there") as told:
        train_from_disk(raw, tmp_path)
    assert str(path) in str(told.value) and "\n" not in str(told.value)
    assert not (tmp_path / "run" / "wts.h5.zip").exists()


def test_one_of_several_scans_that_vanishes_is_named(tmp_path: Path) -> None:
    paths = []
    for number in range(SHARDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        paths.append(cxi_of_shards(folder))
    scans = [RawData.from_file(path, patterns="disk", make_probe=True) for path in paths]
    paths[1].unlink()
    with pytest.raises(MissingFileError, match="does not exist") as told:
        train_from_disk(scans, tmp_path)
    assert str(paths[1]) in str(told.value) and "\n" not in str(told.value)

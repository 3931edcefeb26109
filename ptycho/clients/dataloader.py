"""The client's data: a folder of exported scans to train on, or arrays to reconstruct."""

from __future__ import annotations

import logging
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

from ptycho.clients.config_manager import ConfigManager
from ptycho.clients.scans import (
    extent,
    scan_from_arrays,
    scans_from_folder,
    without_mean_phase,
    without_probe_ramp,
)
from ptycho.errors import InputError
from ptycho.scan.raw_data import RawData

log = logging.getLogger(__name__)


class DataloaderFormats(Enum):
    """How patterns reach the network; both names mean the same here: from memory, each held once."""

    LIGHTNING_ONLY_MODULE = "lightning_only_module"
    TENSORDICT = "tensordict"


class PtychoDataLoader:
    """The scans of a folder, read at once, and the folder of their run.

    `data_dir`: its *.npz are read, nothing in it is written. `output_dir` becomes a new folder
    `run_<timestamp>` under the given one, None writes nothing. The configurations of `config_manager` are
    settled against the data: its N is the patterns'. Raises InputError or DataError naming the file. Memory:
    the patterns once.
    """

    def __init__(
        self,
        data_dir: str | Path,
        config_manager: ConfigManager,
        data_format: DataloaderFormats | str = DataloaderFormats.LIGHTNING_ONLY_MODULE,
        output_dir: str | Path | None = None,
        timestamp: datetime | None = None,
    ) -> None:
        DataloaderFormats(data_format)
        self.config_manager = config_manager
        scans = scans_from_folder(Path(data_dir), self._prepared)
        self.scans, self.held_out, self.extents = scans.scans, scans.held_out, scans.extents
        self.object_shape: tuple[int, int] | None = None
        self.output_dir = Path()
        config_manager.settle(scans.train.N)
        config_manager.announce()
        if output_dir is not None:
            self.output_dir = _new_run(Path(output_dir), timestamp or datetime.now())

    @classmethod
    def from_np(
        cls,
        diff_patterns: Any,
        probe: Any,
        positions: Any,
        config_manager: ConfigManager,
        *,
        bad_pixels: Any | None = None,
        object_shape: tuple[int, int] | None = None,
    ) -> PtychoDataLoader:
        """A scan in memory: counts (n, N, N), probe (P, N, N), positions (n, 2) [y, x] px, in ptychodus'
        convention. `object_shape` (H, W): the canvas that the result is laid on."""
        made = cls.__new__(cls)
        made.config_manager = config_manager
        scan = scan_from_arrays(diff_patterns, probe, positions, bad_pixels)
        made.scans, made.held_out, made.extents = (scan,), None, [extent(scan)]
        made.object_shape, made.output_dir = object_shape, Path()
        return made

    @property
    def train(self) -> RawData:
        """The only scan, or the first of the folder."""
        return self.scans[0]

    def _prepared(self, scan: RawData) -> RawData:
        """One training scan with what the settings ask to be taken out of probe and labels."""
        configs = self.config_manager
        if configs.data_config.probe_ramp_removal:
            scan = without_probe_ramp(scan)
        if configs.model_config.mode == "Supervised" and configs.data_config.phase_subtraction:
            scan = without_mean_phase(scan)
        return scan


def _new_run(folder: Path, at: datetime) -> Path:
    """A new folder `run_<timestamp>`, numbered where that second has one already."""
    name = f"run_{at:%Y%m%d_%H%M%S}"
    for number in range(1000):
        path = folder / (f"{name}_{number}" if number else name)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise InputError(f"cannot write to {folder}: {error.strerror or error}") from error
        return path
    raise InputError(f"{folder}: a thousand runs in one second; give another folder")

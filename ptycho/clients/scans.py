"""What a client hands over, as a scan: positions in this package's frame, counts as counts, axes in order."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptycho.errors import DataError, InputError
from ptycho.io.npz import LEGACY_PATTERNS_KEY, REQUIRED_KEYS, open_npz, read_npz
from ptycho.io.ptychodus_frame import centre_offset_px
from ptycho.scan.probe import as_modes
from ptycho.scan.raw_data import RawData

log = logging.getLogger(__name__)

#: the name under which ptychodus' users keep the scan that training must not see
HELD_OUT_NAME = "test_data.npz"


@dataclass(frozen=True)
class Scans:
    """The scans of one folder; `held_out` or None; `extents`, one for each scan, as `extent` gives it."""

    scans: tuple[RawData, ...]
    held_out: RawData | None
    extents: list[dict[str, Any]]

    @property
    def train(self) -> RawData:
        """The first of them."""
        return self.scans[0]


def scan_from_arrays(
    diff_patterns: Any, probe: Any, positions_yx: Any, bad_pixels: Any | None = None
) -> RawData:
    """A scan from a client's arrays: patterns (n, N, N) counts, probe (P, N, N), positions (n, 2) [y, x] px.

    Positions are ptychodus' (since 1.6): object pixel under the middle (N - 1) / 2 of the patch. Raises
    DataError as `RawData` does; the order of the axes is known, so n = N is no question.
    """
    places = np.asarray(positions_yx, np.float64)
    if places.ndim != 2 or places.shape[1] != 2:
        raise DataError(f"positions have shape {places.shape}; expected (n, 2), [y, x] in object pixels")
    patterns = np.asarray(diff_patterns)
    shift = centre_offset_px(patterns.shape[-1]) if patterns.ndim == 3 else 0.0
    return RawData.from_coords_without_pc(
        places[:, 1] + shift,
        places[:, 0] + shift,
        patterns,
        probe,
        bad_pixels=bad_pixels,
        diffraction_unit="counts",
        pattern_order="MNN",
    )


def scans_from_folder(folder: Path, prepare: Callable[[RawData], RawData] = lambda scan: scan) -> Scans:
    """Every scan among the *.npz directly in a folder, each `prepare`d; other archives are passed over.

    One model learns from all of them, each with its own probe and scale; `test_data.npz` beside others is
    held out. Raises InputError where there is none, DataError where they do not fit together.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; give the folder that holds the training data (*.npz)")
    paths = [path for path in sorted(folder.glob("*.npz")) if _is_scan(path)]
    if not paths:
        raise InputError(
            f"{folder} holds no training data: no *.npz with {', '.join(REQUIRED_KEYS)} "
            "- export the training data into it first"
        )
    held_out = [path for path in paths if path.name == HELD_OUT_NAME] if len(paths) > 1 else []
    training = [path for path in paths if path not in held_out]
    scans = [prepare(scan_from_file(path)) for path in training]
    log.info("training on %s", ", ".join(path.name for path in training))
    if held_out:
        log.info("%s is held out for validation", HELD_OUT_NAME)
    for path, scan in zip(training, scans, strict=True):
        if scan.N != scans[0].N:
            raise DataError(
                f"{training[0].name} has patterns of {scans[0].N} x {scans[0].N} px, {path.name} of "
                f"{scan.N} x {scan.N}: one model takes one size; put them in folders of their own"
            )
    return Scans(
        tuple(scans),
        prepare(scan_from_file(held_out[0])) if held_out else None,
        [extent(scan) for scan in scans],
    )


def scan_from_file(path: Path) -> RawData:
    """One exported NPZ. Files of ptychodus 1.7 (they carry `bad_pixels` and no unit) name positions by the
    middle of the patch; all others by pixel N // 2. Raises DataError naming the file."""
    arrays: dict[str, Any] = {"xcoords_start": None, "ycoords_start": None, **read_npz(path)}
    if "bad_pixels" in arrays and "diffraction_unit" not in arrays:
        shift = centre_offset_px(np.shape(arrays["diff3d"])[-1])
        for key in ("xcoords", "ycoords", "xcoords_start", "ycoords_start"):
            if arrays[key] is not None:
                arrays[key] = np.asarray(arrays[key], np.float64) + shift
    try:
        return RawData(**arrays)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def extent(scan: RawData) -> dict[str, Any]:
    """What tells a scan from others, as plain numbers: positions, their bounds [x, y] px, object shape."""
    positions = scan.positions_px
    return {
        "positions": scan.n_positions,
        "low_px": [float(value) for value in positions.min(0)],
        "high_px": [float(value) for value in positions.max(0)],
        "shape": None if scan.objectGuess is None else [int(side) for side in scan.objectGuess.shape],
    }


def without_mean_phase(scan: RawData) -> RawData:
    """The scan with labels whose mean phase over the scanned box is zero: away from the branch at pi."""
    if scan.objectGuess is None:
        return scan
    height, width = scan.objectGuess.shape
    low = np.clip(np.floor(scan.positions_px.min(0)).astype(int), 0, [width - 1, height - 1])
    high = np.clip(np.ceil(scan.positions_px.max(0)).astype(int) + 1, low + 1, [width, height])
    mean = scan.objectGuess[low[1] : high[1], low[0] : high[0]].sum(dtype=np.complex128)
    if mean == 0:
        return scan
    return RawData(**{**scan.as_arrays(), "objectGuess": scan.objectGuess * np.conj(mean) / abs(mean)})


def without_probe_ramp(scan: RawData) -> RawData:
    """The scan with a starting probe whose far field is centred: a linear phase taken out of all modes."""
    modes = as_modes(scan.probeGuess)
    power = np.sum(np.abs(np.fft.fft2(modes, axes=(-2, -1))) ** 2, axis=0)
    N = scan.N
    turn = np.exp(2j * np.pi * np.arange(N) / N)
    ky, kx = (np.angle(np.sum(power.sum(axis) * turn)) for axis in (1, 0))
    steps = np.arange(N) - N // 2
    ramp = np.exp(-1j * (ky * steps[:, None] + kx * steps[None, :]))
    return RawData(**{**scan.as_arrays(), "probeGuess": (modes * ramp).astype(np.complex64)})


def _is_scan(path: Path) -> bool:
    with open_npz(path) as archive:
        keys = set(archive.files)
    patterns = {"diff3d", LEGACY_PATTERNS_KEY} & keys
    if patterns and all(key in keys for key in REQUIRED_KEYS if key != "diff3d"):
        return True
    log.info("%s is no scan and is passed over", path.name)
    return False

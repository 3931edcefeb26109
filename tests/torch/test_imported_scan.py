"""A scan that was imported in metres gives the image of the same scan as NPZ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from ptycho.io.cxi import write_scan_cxi
from ptycho.io.formats.registry import find
from ptycho.io.importing import ImportOptions, prepare
from ptycho.scan.raw_data import RawData
from ptycho_torch.refine import reconstruct

PIXEL_M, WAVELENGTH_M, DISTANCE_M, N = 30e-9, 1.4e-10, 2.0, 32


@pytest.mark.parametrize("whole", [True, False])
def test_the_image_is_that_of_the_npz(
    whole: bool, make_scan: Callable[..., RawData], scan_arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    jitter = np.random.default_rng(0).uniform(-0.3, 0.3, (2, len(scan_arrays["xcoords"])))
    for axis, name in enumerate(("xcoords", "ycoords")):
        scan_arrays[name] = scan_arrays[name] + (0.0 if whole else jitter[axis])
    scan_arrays.pop("objectGuess")
    raw = RawData.from_coords_without_pc(**scan_arrays, diffraction_unit="counts")
    raw.to_file(tmp_path / "scan.npz")
    with h5py.File(tmp_path / "a.cxi", "w") as archive:
        detector = archive.create_group("entry_1/instrument_1/detector_1")
        detector["data"] = scan_arrays["diff3d"]
        detector["distance"] = DISTANCE_M
        detector["x_pixel_size"] = WAVELENGTH_M * DISTANCE_M / (N * PIXEL_M)
        source = archive.create_group("entry_1/instrument_1/source_1")
        source["energy"] = 1.239841984e-6 / WAVELENGTH_M * 1.602176634e-19  # rounded, as files have it
        source["illumination"] = scan_arrays["probeGuess"]
        moves = np.zeros((raw.n_positions, 3))
        moves[:, :2] = raw.positions_px * PIXEL_M
        detector["translation"] = moves
    write_scan_cxi(tmp_path / "scan.h5", prepare(find(tmp_path / "a.cxi"), ImportOptions()))
    one, other = (
        reconstruct(RawData.from_file(tmp_path / name), epochs=20) for name in ("scan.npz", "scan.h5")
    )
    assert one.object.shape == other.object.shape
    difference = np.linalg.norm(one.object - other.object) / np.linalg.norm(one.object)
    assert difference < 1e-5
    assert abs(one.r - other.r) < 1e-6

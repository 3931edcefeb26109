"""Files that no installable program writes, laid out after their descriptions, through rosettasciio.

DM4: tag groups of Gatan's DigitalMicrograph. EMPAD: raw float32 frames, two rows of footer each, and XML.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho.errors import DataError
from ptycho.io.formats.registry import find, format_of
from ptycho.io.geometry import electron_wavelength_m
from ptycho.io.importing import ImportOptions, prepare

N, ROWS, COLUMNS = 32, 3, 4


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(0).poisson(3.0, (ROWS, COLUMNS, N, N)).astype(np.uint16)


def _tag(name: str, value: Any) -> bytes:
    """One entry of a DM4 tag group, whose numbers about itself are big-endian and whose data are not."""
    if isinstance(value, dict):
        kind, body = 20, _group(value)
    else:
        kind = 21
        if isinstance(value, str):
            info, data = [20, 4, len(value)], value.encode("utf-16-le")
        elif isinstance(value, np.ndarray):
            info, data = [20, 4, value.size], value.astype("<u2").tobytes()
        elif isinstance(value, float):
            info, data = [6], struct.pack("<f", value)
        else:
            info, data = [5], struct.pack("<I", value)
        body = b"%%%%" + struct.pack(f">q{len(info)}q", len(info), *info) + data
    head = struct.pack(">BH", kind, len(name)) + name.encode() + struct.pack(">q", len(body))
    return head + body


def _group(entries: dict[str, Any]) -> bytes:
    unnamed = {key: "" if key.isdigit() else key for key in entries}
    parts = [_tag(unnamed[key], value) for key, value in entries.items()]
    return struct.pack(">BBq", 1, 0, len(parts)) + b"".join(parts)


def dm4(path: Path, frames: np.ndarray) -> Path:
    def axis(scale: float, unit: str) -> dict[str, Any]:
        return {"Origin": 0.0, "Scale": scale, "Units": unit}

    sizes = dict(enumerate(frames.shape[::-1]))
    image = {
        "Calibrations": {
            "Brightness": {"Origin": 0.0, "Scale": 1.0, "Units": ""},
            "Dimension": {"0": axis(0.25, "1/nm"), "1": axis(0.25, "1/nm"),
                          "2": axis(0.5, "nm"), "3": axis(0.4, "nm")},
        },
        "Data": frames.ravel(), "DataType": 10, "PixelDepth": 2,
        "Dimensions": {str(number): int(side) for number, side in sizes.items()},
    }  # fmt: skip
    tags = {"Microscope Info": {"Voltage": 80000.0, "STEM Camera Length": 185.0}}
    body = _group({"ImageList": {"0": {"ImageData": image, "ImageTags": tags, "Name": "a scan"}}})
    path.write_bytes(struct.pack(">iqi", 4, len(body), 1) + body + b"\0" * 8)
    return path


def test_a_scan_of_digital_micrograph(frames: np.ndarray, tmp_path: Path) -> None:
    path = dm4(tmp_path / "scan.bin", frames)  # known by its contents
    assert format_of(path).name == "electron"
    made = prepare(find(path), ImportOptions())
    np.testing.assert_array_equal(made.frames[:], frames.reshape(-1, N, N))
    size = made.geometry.require_object_pixel_size_m(N)
    assert size == pytest.approx(1e-9 / (N * 0.25), rel=1e-6)
    assert made.geometry.wavelength_m == pytest.approx(electron_wavelength_m(80e3))
    rows, columns = np.divmod(np.arange(ROWS * COLUMNS), COLUMNS)
    want = np.stack([columns * 0.5e-9, rows * 0.4e-9], axis=1) / size
    np.testing.assert_allclose(made.positions_px - made.positions_px[0], want, atol=1e-4)


def empad(folder: Path, frames: np.ndarray) -> Path:
    rows, columns = frames.shape[:2]
    name = f"scan_x{columns}_y{rows}.raw"
    padded = np.zeros((rows, columns, 130, 128), "<f4")
    padded[:, :, :128] = frames
    padded.tofile(folder / name)
    text = f"<root><raw_file filename='{name}'/><pix_x>{columns}</pix_x><pix_y>{rows}</pix_y></root>"
    (folder / "scan.xml").write_text(f"<?xml version='1.0'?>{text}")
    return folder / "scan.xml"


def test_a_scan_of_an_empad(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).random((3, 3, 128, 128)).astype(np.float32)
    path = empad(tmp_path, frames)
    assert format_of(path).name == "electron"
    found = find(path)
    assert found.frames is not None and found.grid == (3, 3)
    np.testing.assert_array_equal(found.frames[:], frames.reshape(-1, 128, 128))


@pytest.mark.parametrize("share", [0.001, 0.05, 0.5, 0.95])
@pytest.mark.parametrize("kind", ["dm4", "mib", "xml", "hspy"])
def test_damage_is_one_line(kind: str, share: float, frames: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "dm4":
        dm4(path, frames)
    elif kind == "xml":
        path = empad(tmp_path, np.zeros((3, 3, 128, 128), np.float32))
    elif kind == "hspy":
        import hyperspy.api as hs

        hs.signals.Signal2D(frames).save(str(path))
    else:
        head = f"MQ1,000001,00384,01,{N:04d},{N:04d},U16,   1x1,01,2026-01-01T00:00:00Z,1000000ns,12,"
        path.write_bytes((head.encode().ljust(384, b"\0") + frames[0, 0].tobytes()) * 12)
    damaged = path.with_suffix(".raw") if kind == "xml" else path
    damaged = next(tmp_path.glob("*.raw")) if kind == "xml" else damaged
    data = damaged.read_bytes()
    damaged.write_bytes(data[: int(share * len(data))])
    if kind == "mib" and share > 0.01:  # whole frames of an interrupted scan are a scan
        assert find(path, name="electron").n_positions is None
        return
    with pytest.raises(DataError) as caught:
        read_whole(path)
    assert str(tmp_path) in str(caught.value), caught.value


def read_whole(path: Path) -> np.ndarray:
    found = find(path, name="electron")
    assert found.frames is not None
    return found.frames[:]

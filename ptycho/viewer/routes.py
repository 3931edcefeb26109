"""The routes of `ptycho view`: the page, the arrays that it draws, and the mask that it saves.

Arrays are little-endian float32 in rows, NaN where nothing is known; colours are bytes. The page draws them.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from ptycho.io.masks import check_mask_target, write_mask
from ptycho.io.targets import check_not_read
from ptycho.report.hues import complex_colours
from ptycho.viewer.r_image import MANY
from ptycho.viewer.server import Absent, Answer, Routes
from ptycho.viewer.shown import Shown

_BYTES = "application/octet-stream"
_MAPS = {"gray": "gray", "phase": "viridis", "counts": "magma", "signed": "RdBu_r"}


def routes_of(shown: Shown, mask_path: Path) -> Routes:
    """Everything the page may ask for. The mask is written to `mask_path`, or to the next free name."""
    scan = shown.scan
    reading = threading.Lock()  # an HDF5 file is read by one thread at a time

    def arrays(make: Callable[[], NDArray[Any] | None]) -> Callable[[], Answer]:
        def give() -> Answer:
            with reading:
                values = make()
            if values is None:
                raise Absent("there is none")
            return Answer(_BYTES, np.ascontiguousarray(values, "<f4").tobytes())

        return give

    def numbered(make: Callable[[int], NDArray[Any] | None]) -> Callable[[int], Answer]:
        def give(row: int) -> Answer:
            if scan is None or row >= scan.n_positions:
                raise Absent(f"there is no pattern {row}")
            return arrays(lambda: make(row))()

        return give

    def save(body: bytes) -> Answer:
        assert scan is not None
        drawn = np.frombuffer(body, np.uint8).reshape(scan.N, scan.N) != 0
        known = drawn if scan.bad_pixels is None else drawn | scan.bad_pixels
        target = free_name(mask_path)
        check_not_read(target, shown.inputs)
        write_mask(check_mask_target(target), known)
        return _json({"path": str(target), "pixels": int(known.sum())})

    r_map = shown.r_map() if len(shown.positions_px) >= MANY else None
    told = _json(about(shown, None if r_map is None else r_map.shape))
    get: dict[str, Callable[[], Answer]] = {
        "": lambda: _file("page.html", "text/html"),
        "page.js": lambda: _file("page.js", "text/javascript"),
        "page.css": lambda: _file("page.css", "text/css"),
        "about": lambda: told,
    }
    if scan is not None:
        get["mean"] = arrays(shown.mean_counts)
    image = shown.image
    if image is not None:
        amplitude, _ = image.limits
        get["amplitude"] = arrays(lambda: np.abs(image.field))
        get["phase"] = arrays(lambda: np.angle(image.field))
        colours = complex_colours(image.field, amplitude)
        if r_map is not None:
            get["r_map"] = arrays(lambda: r_map)
        get["complex"] = lambda: Answer(_BYTES, (colours * 255).round().astype(np.uint8).tobytes())
    return Routes(
        get,
        {"pattern": numbered(shown.counts), "predicted": numbered(shown.predicted)},
        {} if scan is None else {"mask": (scan.N**2, save)},
    )


def about(shown: Shown, r_map_shape: tuple[int, ...] | None = None) -> dict[str, Any]:
    """Sizes, places and colours, as the page needs them; r_map_shape: where R is drawn as a picture."""
    scan, image = shown.scan, shown.image
    size = shown.pixel_size_m
    told: dict[str, Any] = {
        "name": shown.name,
        "notes": shown.notes,
        "pixel_um": None if size is None else size * 1e6,
        "positions": np.round(shown.positions_px, 3).tolist(),
        "maps": {name: _map(known) for name, known in _MAPS.items()},
        "scan": None,
        "image": None,
    }
    if scan is not None:
        told["scan"] = {"N": scan.N, "count": scan.n_positions, "unit": scan.diffraction_unit,
                        "mean_of": len(shown.mean_rows), "marked": shown.marked.tolist(),
                        "left_out": shown.left_out, "frames": shown.frame_lines()}  # fmt: skip
    if image is not None:
        r = shown.r_per_pattern
        height, width = image.field.shape
        known = r is not None and len(r) == len(told["positions"])
        told["image"] = {
            "width": width, "height": height, "corner": image.corner_xy, "limits": image.limits,
            "r": [_known(value) for value in r] if known and r is not None else None,
            "r_map": r_map_shape,
        }  # fmt: skip
    return told


def _known(value: float) -> float | None:
    """For JSON, which has no NaN."""
    return round(float(value), 5) if math.isfinite(value) else None


def free_name(path: Path) -> Path:
    """The path, or `name-2`, `name-3`, ... where files of these names exist: nothing is written over."""
    number, target = 1, path
    while target.exists() or target.is_symlink():
        number += 1
        target = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return target


def _map(name: str) -> list[int]:
    colours = matplotlib.colormaps[name](np.linspace(0, 1, 256))[:, :3]
    return [int(v) for v in (colours * 255).round().ravel()]


def _json(values: Any) -> Answer:
    return Answer("application/json", json.dumps(values).encode())


def _file(name: str, kind: str) -> Answer:
    text = resources.files("ptycho.viewer").joinpath(name).read_text(encoding="utf-8")
    return Answer(f"{kind}; charset=utf-8", text.encode())

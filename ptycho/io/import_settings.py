"""What `ptycho import --set` and `open_scan` take beside a file: named settings, read once for both."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ptycho.errors import InputError
from ptycho.io.formats.arrays import array_in
from ptycho.io.formats.found import Found
from ptycho.io.formats.plain_hdf5 import PLACES
from ptycho.io.formats.registry import find
from ptycho.io.geometry import SETTINGS as GEOMETRY
from ptycho.io.geometry import Geometry
from ptycho.io.importing import ImportOptions

#: setting: (what its value is made by, meaning and unit)
PREPARATION: dict[str, tuple[Any, str]] = {
    "N": (int, "side of a pattern, px, even"),
    "bin": (int, "detector pixels added up along each axis"),
    "centre_row_px": (float, "row of the beam on the detector"),
    "centre_column_px": (float, "column of the beam on the detector"),
    "scan_step_m": (float, "step of a grid scan without positions, m"),
    "swap_xy": (bool, "exchange the scan's axes"),
    "flip_x": (bool, "turn the scan's x round"),
    "flip_y": (bool, "turn the scan's y round"),
    "unit": (str, "counts or amplitude"),
    "max_time_gap_s": (float, "largest distance in time of a frame from a position, s"),
}

#: places that may also be an NPY or TIFF file of their own: the part of `Found` that they become
_IMAGES = {"mask": "bad_pixels", "dark": "dark", "flat": "flat", "probe": "probe", "object": "object"}


def known_settings() -> dict[str, str]:
    """Every key and its meaning: geometry, preparation, and places in a file as `path.NAME`."""
    preparation = {name: meaning for name, (_, meaning) in PREPARATION.items()}
    return GEOMETRY | preparation | {f"path.{name}": meaning for name, meaning in PLACES.items()}


def read_settings(settings: Mapping[str, Any]) -> tuple[dict[str, str], ImportOptions]:
    """(places inside the file, options) of named settings; values may be text.

    Raises InputError for an unknown key, with the nearest known one, and for a value that does not fit.

    >>> paths, options = read_settings({"energy_eV": "8800", "path.frames": "/entry/data", "flip_x": True})
    >>> paths, options.flip_x, round(options.geometry.energy_eV)
    ({'frames': '/entry/data'}, True, 8800)
    """
    paths: dict[str, str] = {}
    numbers: dict[str, Any] = {}
    chosen: dict[str, Any] = {}
    for key, value in settings.items():
        if key in PREPARATION:
            chosen[key] = _value(key, value)
        elif key in GEOMETRY:
            numbers[key] = value
        elif key.startswith("path.") and key.removeprefix("path.") in PLACES:
            paths[key.removeprefix("path.")] = str(value)
        else:
            known = list(known_settings())
            near = get_close_matches(key, known, 1, 0.5)
            hint = f"; nearest known: {near[0]}" if near else f"; known: {', '.join(known)}"
            raise InputError(f"{key}={value}: unknown key {key!r}{hint}")
    return paths, ImportOptions(geometry=Geometry.of_settings(numbers), **chosen)


def found_in(
    source: Path,
    positions: Path | None = None,
    paths: Mapping[str, str] | None = None,
    form: str | None = None,
) -> Found:
    """What a source holds, with the positions of a second file; `form` names a format, None: by contents.

    `paths` are places inside the files; mask, dark, flat, probe and object may be NPY or TIFF files of their
    own. What is named for positions is looked for in the second file where there is one.
    """
    places = dict(paths or {})
    files = {key: Path(place) for key, place in places.items() if key in _IMAGES and _is_file(place)}
    places = {key: place for key, place in places.items() if key not in files}
    if positions is None:
        found = find(source, places, form)
    else:
        theirs = {key: place for key, place in places.items() if key.startswith("position")}
        ours = {key: place for key, place in places.items() if key not in theirs}
        found = find(source, ours, form).with_positions_of(find(positions, theirs))
    for key, file in files.items():
        values = array_in(file)
        setattr(found, _IMAGES[key], values != 0 if key == "mask" else values)
    return found


def _is_file(place: str) -> bool:
    return place.lower().endswith((".npy", ".tif", ".tiff"))


def _value(key: str, value: Any) -> Any:
    kind, meaning = PREPARATION[key]
    if kind is bool:
        return _truth(key, value)
    try:
        made = kind(value)
    except (TypeError, ValueError):
        whole = "a whole number" if kind is int else "a number"
        raise InputError(f"{key}={value}: must be {whole} ({meaning})") from None
    if key == "unit" and made not in ("counts", "amplitude"):
        raise InputError(f"unit={value}: must be counts or amplitude")
    return made


def _truth(key: str, value: Any) -> bool:
    word = str(value).lower()
    if word in ("true", "1", "yes"):
        return True
    if word in ("false", "0", "no"):
        return False
    raise InputError(f"{key}={value}: must be true or false ({PREPARATION[key][1]})")

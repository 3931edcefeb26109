"""Bare arrays: NPY, TIFF stacks and folders, zarr; and positions as text (CSV, columns of numbers)."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError, MissingDependencyError
from ptycho.io.formats.foreign import ForeignFormat, Paths
from ptycho.io.formats.found import Found
from ptycho.io.hdf5_read import LENGTHS_M
from ptycho.io.lazy import LazyPatterns
from ptycho.io.reading import damage, one_line

_NPY_MAGIC = b"\x93NUMPY"
_TIFF_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_TIFF_SUFFIXES = (".tif", ".tiff")


def begins(path: Path, *magics: bytes) -> bool:
    """Whether a file begins with one of these bytes; False for what cannot be read."""
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
    except OSError:
        return False
    return any(head.startswith(magic) for magic in magics)


def frames_from_array(array: Any, found: Found, where: str) -> None:
    """Put an array (M, H, W) or a grid (rows, columns, H, W) of frames into `found`, read by rows."""
    shape = tuple(int(n) for n in array.shape)
    if len(shape) == 2 and shape[1] == 2 and np.dtype(array.dtype).kind in "uif":
        found.positions_m = np.asarray(array[:], float)
        return
    if len(shape) not in (3, 4) or np.dtype(array.dtype).kind not in "uif":
        raise DataError(
            f"{where} has shape {shape} and dtype {array.dtype}; expected frames (M, rows, columns), a grid "
            "of them, or positions (M, 2) [x, y] in metres"
        )
    if len(shape) == 3:
        found.frames = LazyPatterns(lambda b, e: np.asarray(array[b:e]), shape, array.dtype)
        return
    found.grid = (shape[0], shape[1])
    columns = shape[1]

    def read(begin: int, end: int) -> NDArray[Any]:
        first, last = begin // columns, -(-end // columns)
        part = np.asarray(array[first:last]).reshape(-1, *shape[2:])
        return part[begin - first * columns : end - first * columns]

    found.frames = LazyPatterns(read, (shape[0] * columns, *shape[2:]), array.dtype)


def _find_npy(path: Path, paths: Paths) -> Found:
    """One NPY array: frames, a grid of frames, or positions (M, 2) [x, y]; mapped, never unpickled."""
    found = Found("NPY", codec="none")
    frames_from_array(_loaded(path), found, str(path))
    return found


def _loaded(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # what numpy's reader of a header stumbled over
        raise DataError(
            f"{path} is damaged or holds Python objects ({one_line(error)}); save it again"
        ) from error


def require_tifffile() -> Any:
    """The package tifffile; MissingDependencyError names the command that installs it."""
    try:
        import tifffile
    except ImportError:
        raise MissingDependencyError("TIFF files need tifffile: pip install 'ptychopinn[formats]'") from None
    return tifffile


def array_in(path: Path) -> NDArray[Any]:
    """The one array of an NPY or TIFF file, read whole; DataError for anything else."""
    if begins(path, _NPY_MAGIC):
        return np.array(_loaded(path))
    if begins(path, *_TIFF_MAGIC):
        with _tiff_damage(path):
            return np.asarray(require_tifffile().imread(path))
    raise DataError(f"{path} is neither an NPY nor a TIFF file; save the array as one of them")


@contextmanager
def _tiff_damage(path: Path) -> Iterator[None]:
    """DataError for what tifffile raises and for what it only logs as an error, going on without it."""
    logger = logging.getLogger("tifffile")
    said = _Kept(logging.ERROR)
    before = logger.propagate
    logger.addHandler(said)
    logger.propagate = False
    try:
        with damage(str(path)):
            yield
    finally:
        logger.removeHandler(said)
        logger.propagate = before
    if said.lines:
        raise DataError(f"{path} is damaged ({said.lines[0]}); write or copy it again")


class _Kept(logging.Handler):
    """Log records as lines, kept."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.lines.append(" ".join(record.getMessage().split()))


def _natural(path: Path) -> list[Any]:
    """File names in the order of the numbers in them."""
    return [int(word) if word.isdigit() else word for word in re.split(r"(\d+)", path.name)]


def _tiffs_of(path: Path) -> list[Path]:
    return sorted((p for p in path.iterdir() if p.suffix.lower() in _TIFF_SUFFIXES), key=_natural)


def _is_tiff_folder(path: Path) -> bool:
    return path.is_dir() and any(p.suffix.lower() in _TIFF_SUFFIXES for p in path.iterdir())


def _find_tiff(path: Path, paths: Paths) -> Found:
    """A TIFF stack, one page a frame, read page by page."""
    tifffile = require_tifffile()
    with _tiff_damage(path), tifffile.TiffFile(path) as stack:
        n_pages, page = len(stack.pages), stack.pages[0]
        shape, dtype, codec = page.shape, page.dtype, page.compression.name.lower()
        series = stack.series[0].shape
    found = Found("TIFF stack", codec=codec)
    if len(shape) == 3 and n_pages == 1:  # a volume written as one page
        frames_from_array(tifffile.imread(path), found, str(path))
        return found

    def read(begin: int, end: int) -> NDArray[Any]:
        with _tiff_damage(path):
            return np.asarray(tifffile.imread(path, key=range(begin, end))).reshape(end - begin, *shape)

    if len(series) == 4:
        found.grid = (int(series[0]), int(series[1]))
    found.frames = LazyPatterns(read, (n_pages, *shape), dtype)
    return found


def _find_tiff_folder(path: Path, paths: Paths) -> Found:
    """A folder of TIFF files, one frame each, in the order of the numbers in their names."""
    tifffile = require_tifffile()
    files = _tiffs_of(path)
    with _tiff_damage(files[0]):
        first = np.asarray(tifffile.imread(files[0]))
    if first.ndim != 2:
        raise DataError(f"{files[0]} has shape {first.shape}; a folder holds one frame a file")

    def read(begin: int, end: int) -> NDArray[Any]:
        made = np.empty((end - begin, *first.shape), first.dtype)
        for row, file in enumerate(files[begin:end]):
            with _tiff_damage(file):
                one = np.asarray(tifffile.imread(file))
            if one.shape != first.shape:
                raise DataError(f"{file} has shape {one.shape}; the others have {first.shape}")
            made[row] = one
        return made

    found = Found("folder of TIFF files")
    found.frames = LazyPatterns(read, (len(files), *first.shape), first.dtype)
    return found


def _is_zarr(path: Path) -> bool:
    return path.is_dir() and any((path / name).exists() for name in ("zarr.json", ".zarray", ".zgroup"))


def _find_zarr(path: Path, paths: Paths) -> Found:
    """A zarr array, or a group whose array is named by --set path.frames or is its only one of frames."""
    try:
        import zarr
    except ImportError:
        raise MissingDependencyError("zarr stores need zarr: pip install 'ptychopinn[formats]'") from None
    opened = zarr.open(str(path), mode="r")
    found = Found("zarr")
    if isinstance(opened, zarr.Array):
        frames_from_array(opened, found, str(path))
        return found
    named = paths.get("frames")
    arrays = dict(opened.arrays())
    chosen = named or next((name for name, one in arrays.items() if one.ndim >= 3), None)
    if chosen is None or chosen not in arrays:
        raise DataError(f"{path}: no array {chosen!r}; it holds {', '.join(arrays) or 'no arrays'}")
    frames_from_array(arrays[chosen], found, f"{path}: {chosen}")
    places = paths.get("positions")
    if places and places in arrays:
        found.positions_m = np.asarray(arrays[places][:], float)
    return found


# ---------------------------------------------------------------------------------------- positions as text

_ONE = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
#: a row of two numbers or more
_NUMBERS = rf"{_ONE}(?:[\s,;]+{_ONE})+"


def _is_text(path: Path) -> bool:
    """Whether a file is text with a row of two numbers or more near its beginning, or is called so."""
    if not path.is_file() or begins(path, b"\x89HDF", _NPY_MAGIC, b"PK", b"#F "):
        return False
    if path.suffix.lower() in (".csv", ".txt", ".dat", ".tsv", ".pos"):
        return True
    with path.open("rb") as stream:
        head = stream.read(4096)
    lines = head.decode("ascii", "replace").splitlines()[:20]
    return b"\0" not in head and any(re.fullmatch(_NUMBERS, line.strip()) for line in lines)


def _find_text(path: Path, paths: Paths) -> Found:
    """Columns of numbers, with or without a line of names: x, y, and perhaps an index or a time.

    Names may carry units: `x_um`, `y (mm)`; without one the values are metres. Without names two columns are
    x and y, three are index, x and y.
    """
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    rows: list[list[float]] = []
    names: list[str] = []
    for line in lines:
        words = [
            word.strip() for word in re.split(r"[,;\t]|\s+", line.strip().lstrip("#").strip()) if word.strip()
        ]
        try:
            rows.append([float(word) for word in words])
        except ValueError:
            if rows:
                raise DataError(f"{path}: {line.strip()[:60]!r} is no row of numbers") from None
            names = [
                word.lower()
                for word in re.split(r"[,;\t]|\s{2,}|\s(?!\()", line.strip().lstrip("# "))
                if word
            ]
    if not rows or len({len(row) for row in rows}) != 1:
        raise DataError(f"{path}: expected the same number of columns in every row")
    table = np.array(rows, float)
    if names and len(names) != table.shape[1]:
        names = []
    if not names:
        if table.shape[1] not in (2, 3):
            raise DataError(
                f"{path}: {table.shape[1]} columns without names; give a first line such as 'x_um y_um'"
            )
        names = ["x", "y"] if table.shape[1] == 2 else ["index", "x", "y"]
    return _columns(path, names, table)


def _columns(path: Path, names: list[str], table: NDArray[np.float64]) -> Found:
    found = Found("text")
    columns: dict[str, NDArray[np.float64]] = {}
    pixels = False
    for position, name in enumerate(names):
        match = re.fullmatch(r"([a-z_]*?)[\s_]*[(\[]?(px|pixel|pixels|[a-zµμå]{1,3}|microns?)?[)\]]?", name)
        base, unit = (match.group(1), match.group(2)) if match else (name, None)
        if name in ("x", "y") or base not in _AXES:
            base, unit = name, None
        kind = _AXES.get(base)
        if kind is None:
            continue
        if unit in ("px", "pixel", "pixels"):
            pixels, factor = True, 1.0
        else:
            factor = LENGTHS_M.get(unit, 1.0) if unit and kind in "xy" else 1.0
        columns[kind] = table[:, position] * factor
    if "x" not in columns or "y" not in columns:
        raise DataError(f"{path}: no columns x and y among {', '.join(names)}; name them in the first line")
    places = np.stack([columns["x"], columns["y"]], axis=1)
    if pixels:
        found.positions_px = places
    else:
        found.positions_m = places
    if "i" in columns:
        found.position_index = columns["i"].astype(np.int64)
    found.position_time_s = columns.get("t")
    return found


_AXES = {
    "x": "x", "y": "y", "pos_x": "x", "pos_y": "y", "position_x": "x", "position_y": "y", "x_position": "x",
    "y_position": "y", "index": "i", "frame": "i", "i": "i", "n": "i", "time": "t", "t": "t",
    "timestamp": "t", "time_s": "t",
}  # fmt: skip

FORMATS = (
    ForeignFormat(
        "npy", "NPY array", (".npy",), "frames or positions", "numpy",
        lambda path: path.is_file() and begins(path, _NPY_MAGIC), _find_npy, places=(),
    ),
    ForeignFormat(
        "tiff", "TIFF stack", _TIFF_SUFFIXES, "frames", "tifffile",
        lambda path: path.is_file() and begins(path, *_TIFF_MAGIC), _find_tiff, places=(),
    ),
    ForeignFormat(
        "tiffs", "folder of TIFF files", (), "frames", "tifffile",
        _is_tiff_folder, _find_tiff_folder, places=(),
    ),
    ForeignFormat(
        "zarr", "zarr store", (".zarr",), "frames, positions", "zarr", _is_zarr, _find_zarr,
        places=("frames", "positions"),
    ),
    ForeignFormat(
        "text", "text, CSV", (".csv", ".txt"), "positions", "numpy", _is_text, _find_text, places=(),
    ),
)  # fmt: skip

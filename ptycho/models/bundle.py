"""One trained model in one file that is safe to open: JSON and safetensors in a plain zip, no code.

Both backends write and read this layout, so each opens the other's bundle. Every member of the archive is
listed in `manifest.json` with its SHA-256; a member that is not listed or does not match is refused.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ptycho.errors import BundleError, DataError, MissingBundleError, PtychoError, RunError
from ptycho.io.atomic import atomic_write
from ptycho.io.inputs import check_input
from ptycho.io.reading import check_memory

BUNDLE_NAME = "wts.h5.zip"
FORMAT = "ptychopinn-bundle"
FORMAT_VERSION = 1

MANIFEST = "manifest.json"
CONFIG = "config.json"
STATE = "normalization.json"
WEIGHTS = "weights.safetensors"
EXTRA = "arrays.safetensors"
REQUIRED = (CONFIG, STATE, WEIGHTS)

_PACKAGES = ("ptychopinn", "numpy", "safetensors", "torch", "lightning", "tensorflow", "keras")
_JSON_LIMIT = 16 << 20
_ARRAY_LIMIT = 4 << 30
# Weights hardly compress. A member that is compressed a hundredfold is an attack on the reader's memory.
_RATIO_LIMIT = 100
_MOST_MEMBERS = 1000
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*(/[A-Za-z0-9_][A-Za-z0-9_.\-]*)*")
_PICKLED = (".dill", ".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".h5", ".keras")


@dataclass(frozen=True)
class Bundle:
    """What a bundle holds: weights by backend-neutral name, the configuration, the scales, the origin."""

    path: Path
    format_version: int
    backend: str
    versions: dict[str, str]
    models: tuple[str, ...]
    config: dict[str, Any]
    state: dict[str, Any]
    weights: dict[str, np.ndarray]
    extra_arrays: dict[str, np.ndarray] = field(default_factory=dict)


def save_bundle(
    path: Path,
    *,
    weights: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    state: Mapping[str, Any],
    backend: str,
    extra_arrays: Mapping[str, np.ndarray] | None = None,
    models: Sequence[str] = ("network",),
) -> Path:
    """Write a bundle atomically and return its path; a killed or failed save leaves the old one whole.

    `path` ending in `.zip` is the file itself, anything else a folder (made if needed) to hold `wts.h5.zip`.
    `weights` and `extra_arrays`: any shape; real, integer, boolean or complex, finite.  `state`: the numbers
    without which the weights mean nothing (x_scale, intensity_scale, probe_factor, nphotons, N, gridsize).
    Equal content gives equal bytes.  Needs twice the weights' size in memory.
    Raises RunError naming the entry that cannot be stored.
    """
    path = Path(path)
    target = path if path.suffix == ".zip" else path / BUNDLE_NAME
    if not weights:
        raise RunError(f"{target}: no weights to store; train the model first")
    contents: dict[str, bytes] = {}
    pairs: dict[str, list[str]] = {}
    contents[CONFIG] = _to_json(_plain(config, "config"))
    contents[STATE] = _to_json(_plain(state, "state"))
    contents[WEIGHTS], pairs[WEIGHTS] = _pack(weights)
    if extra_arrays:
        contents[EXTRA], pairs[EXTRA] = _pack(extra_arrays)
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "backend": backend,
        "versions": package_versions(),
        "models": list(models),
        "complex_pairs": pairs,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as temporary:
        _write_zip(temporary, {MANIFEST: _to_json(manifest), **contents})
    return target


def load_bundle(path: Path) -> Bundle:
    """Open a bundle: the zip, the folder it lies in, or a folder with its unpacked contents.

    Runs nothing that the file holds and reads each member into memory once.  Raises BundleError saying
    whether it is missing, truncated, damaged, foreign, tampered with, oversized or too new.
    """
    path = _locate(Path(path))
    if path.is_dir():
        return _read(path, _FolderReader(path))
    try:
        with zipfile.ZipFile(_check_is_zip(path)) as archive:
            return _read(path, _ZipReader(path, archive))
    except PtychoError:
        raise
    except Exception as error:  # a damaged directory makes zipfile raise anything
        why = " ".join(str(error).split()) or type(error).__name__
        raise BundleError(f"{path} is damaged ({why}); copy it again or train again") from None


def package_versions() -> dict[str, str]:
    """The versions of Python and of the installed packages that shape a model."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _plain(value: Any, where: str) -> Any:
    """The value as JSON holds it; RunError names the entry that JSON cannot hold."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist(), where)
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, float) and not math.isfinite(value):
        raise RunError(f"{where} is {value}; a bundle stores finite numbers only")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    kind = type(value).__name__
    raise RunError(f"{where} is of type {kind}; a bundle stores numbers, text, lists and mappings")


def _to_json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _pack(arrays: Mapping[str, np.ndarray]) -> tuple[bytes, list[str]]:
    """Arrays as safetensors, and the names of the complex ones, which are stored as (..., 2) reals."""
    from safetensors.numpy import save

    real: dict[str, np.ndarray] = {}
    pairs: list[str] = []
    for name in sorted(arrays):
        array = np.array(arrays[name], order="C")
        if array.dtype.kind not in "biufc":
            raise RunError(f"{name} has dtype {array.dtype}; a bundle stores numbers only")
        bad = int(np.count_nonzero(~np.isfinite(array)))
        if bad:
            values = "value that is" if bad == 1 else "values that are"
            raise RunError(f"{name} holds {bad} {values} not finite: training diverged; lower learning_rate")
        if array.dtype.kind == "c":
            pairs.append(name)
            array = np.stack([array.real, array.imag], axis=-1)
        real[name] = array
    return save(real), pairs


def _unpack(data: bytes, pairs: Iterable[str]) -> dict[str, np.ndarray]:
    from safetensors.numpy import load

    arrays = load(data)
    for name in pairs:
        pair = arrays[name]
        wide = np.complex128 if pair.dtype == np.float64 else np.complex64
        arrays[name] = np.ascontiguousarray(pair).view(wide).reshape(pair.shape[:-1])
    return {name: arrays[name] for name in sorted(arrays)}


def _write_zip(path: Path, contents: Mapping[str, bytes]) -> None:
    # Weights do not compress and zlib's output differs between versions, so members are stored as they are.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in contents.items():
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3
            info.external_attr = 0o100644 << 16
            archive.writestr(info, data)


def _locate(path: Path) -> Path:
    """The zip or the folder of unpacked contents that a path means."""
    check_input(path)
    if path.is_dir():
        if (path / BUNDLE_NAME).exists():
            return _locate(path / BUNDLE_NAME)
        if not (path / MANIFEST).is_file():
            raise MissingBundleError(
                f"{path} holds neither {BUNDLE_NAME} nor {MANIFEST}; give the output folder of a training"
            )
    elif not path.exists():
        raise MissingBundleError(f"{path} does not exist; give a {BUNDLE_NAME} or the folder it lies in")
    return path


def _check_is_zip(path: Path) -> Path:
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}); check its permissions") from None
    if not start:
        raise BundleError(f"{path} is empty; copy it again or train again")
    if start[:2] != b"PK":
        raise BundleError(f"{path} is not a zip archive; a model bundle is a training run's {BUNDLE_NAME}")
    if not zipfile.is_zipfile(path):
        raise BundleError(f"{path} is truncated: the zip archive has no end; copy it again")
    return path


class _ZipReader:
    """Members of an archive; name and size are checked before a member is read."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self.archive = archive
        members = archive.infolist()
        if len(members) > _MOST_MEMBERS:
            raise BundleError(f"{path} holds {len(members)} members; a bundle has five: it was tampered with")
        self.names: list[str] = []
        for info in members:
            if info.is_dir():
                continue
            # `filename` has backslashes and NUL bytes already made harmless; `orig_filename` shows them.
            _check_name(path, info.orig_filename)
            if info.filename in self.names:
                raise BundleError(f"{path} holds {info.filename} twice; it was tampered with")
            self.names.append(info.filename)

    def read(self, name: str, limit: int) -> bytes:
        info = self.archive.getinfo(name)
        if info.file_size > max(1 << 20, _RATIO_LIMIT * info.compress_size):
            sizes = f"{info.file_size} bytes out of {info.compress_size}"
            raise BundleError(f"{self.path}: {name} is oversized: {sizes}; do not use this bundle")
        _check_size(self.path, name, info.file_size, limit)
        try:
            return self.archive.read(info)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
            raise BundleError(f"{self.path}: {name} is damaged ({error}); copy the bundle again") from None


class _FolderReader:
    """Members in a folder, which may also hold other files."""

    def __init__(self, path: Path) -> None:
        self.path = path
        known = (MANIFEST, *REQUIRED, EXTRA)
        self.names = [name for name in known if (path / name).is_file()]

    def read(self, name: str, limit: int) -> bytes:
        file = self.path / name
        try:
            _check_size(self.path, name, file.stat().st_size, limit)
            return file.read_bytes()
        except OSError as error:
            raise BundleError(f"{file} cannot be read ({error.strerror}); check its permissions") from None


def _check_name(path: Path, name: str) -> None:
    if not _SAFE_NAME.fullmatch(name) or ".." in name:
        raise BundleError(f"{path}: unsafe member name {name!r}; do not use this bundle")


def _check_size(path: Path, name: str, size: int, limit: int) -> None:
    if size > limit:
        raise BundleError(f"{path}: {name} is oversized: {size} bytes, at most {limit} are read")
    try:
        check_memory(2 * size, f"{path}: {name}")
    except DataError as error:
        raise BundleError(str(error)) from None


def _read(path: Path, reader: _ZipReader | _FolderReader) -> Bundle:
    manifest = _read_manifest(path, reader)
    checksums: dict[str, str] = manifest["sha256"]
    for name in REQUIRED:
        if name not in checksums:
            raise BundleError(f"{path}: {MANIFEST} does not list {name}; the bundle is incomplete")
    for name in reader.names:
        if name != MANIFEST and name not in checksums:
            raise BundleError(f"{path}: member {name!r} is not listed in {MANIFEST}; it was tampered with")
    data = {name: _read_member(path, reader, name, checksums[name]) for name in checksums}
    pairs = manifest.get("complex_pairs", {})
    return Bundle(
        path=path,
        format_version=manifest["format_version"],
        backend=manifest["backend"],
        versions=manifest["versions"],
        models=tuple(manifest["models"]),
        config=_parse_json(path, CONFIG, data[CONFIG]),
        state=_parse_json(path, STATE, data[STATE]),
        weights=_parse_arrays(path, WEIGHTS, data[WEIGHTS], pairs),
        extra_arrays=_parse_arrays(path, EXTRA, data[EXTRA], pairs) if EXTRA in data else {},
    )


def _read_manifest(path: Path, reader: _ZipReader | _FolderReader) -> dict[str, Any]:
    if MANIFEST not in reader.names:
        pickled = [name for name in reader.names if name.endswith(_PICKLED)]
        if pickled:
            raise BundleError(
                f"{path} is a legacy bundle ({pickled[0]}): opening it can run code; train again"
            )
        raise BundleError(f"{path} is a zip archive but not a model bundle: it has no {MANIFEST}")
    manifest = _parse_json(path, MANIFEST, reader.read(MANIFEST, _JSON_LIMIT))
    if manifest.get("format") != FORMAT:
        raise BundleError(f"{path} has format {manifest.get('format')!r}, not {FORMAT!r}; it is foreign")
    version = manifest.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise BundleError(f"{path}: format_version {version!r} in {MANIFEST} is not a positive integer")
    if version > FORMAT_VERSION:
        raise BundleError(
            f"{path} has format {version}, this ptychopinn reads up to {FORMAT_VERSION}; upgrade ptychopinn"
        )
    shapes: dict[str, Callable[[Any], bool]] = {
        "backend": lambda value: isinstance(value, str),
        "versions": lambda value: _all_text(value, dict),
        "models": lambda value: _all_text(value, list),
        "sha256": lambda value: _all_text(value, dict),
    }
    for key, fits in shapes.items():
        if not fits(manifest.get(key)):
            raise BundleError(f"{path}: {key!r} in {MANIFEST} is missing or malformed")
    for name in manifest["sha256"]:
        _check_name(path, name)
    return manifest


def _all_text(value: Any, kind: type[list[Any]] | type[dict[str, Any]]) -> bool:
    if not isinstance(value, kind):
        return False
    items = list(value.values()) if isinstance(value, dict) else value
    return all(isinstance(item, str) for item in items)


def _read_member(path: Path, reader: _ZipReader | _FolderReader, name: str, checksum: str) -> bytes:
    if name not in reader.names:
        raise BundleError(f"{path}: {name} is missing; copy the bundle again")
    data = reader.read(name, _JSON_LIMIT if name.endswith(".json") else _ARRAY_LIMIT)
    if hashlib.sha256(data).hexdigest() != checksum:
        raise BundleError(f"{path}: {name} does not match its checksum: it was damaged or tampered with")
    return data


def _parse_json(path: Path, name: str, data: bytes) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not a number")

    try:
        value = json.loads(data, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: {name} is not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise BundleError(f"{path}: {name} holds a {type(value).__name__}, not a JSON object")
    return value


def _parse_arrays(path: Path, name: str, data: bytes, pairs: Any) -> dict[str, np.ndarray]:
    try:
        return _unpack(data, pairs.get(name, ()))
    except Exception as error:  # its reader raises anything on damaged bytes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BundleError(f"{path}: {name} cannot be read ({reason})") from None

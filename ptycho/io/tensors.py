"""Arrays and texts in one safetensors file with a checksum over all of it; reading one cannot run code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError, MissingFileError
from ptycho.io.atomic import atomic_write
from ptycho.io.checksums import KEY, check_digest, digest_of
from ptycho.io.inputs import check_input
from ptycho.io.reading import check_memory, damage

_TEXT = "text:"
_LENGTH = 8  # bytes that tell the length of the header, which is a multiple of it


def write_tensors(path: Path, arrays: Mapping[str, NDArray[Any]], texts: Mapping[str, str]) -> None:
    """Write whole or not at all: arrays of numbers of any shape, and texts by name.

    Equal contents give equal bytes. Memory: the arrays once more. Raises RunError where it cannot be written.
    """
    from safetensors.numpy import save

    plain = {name: np.array(value, order="C") for name, value in arrays.items()}
    data = save(plain, metadata={**texts, KEY: digest_of(_all(plain, texts))})
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.writelines(_in_order(data))


def read_tensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """(arrays, texts) of a file. Raises MissingFileError, DataError for anything but such a file, undamaged.

    Memory: the arrays.
    """
    from safetensors import safe_open

    if not check_input(path).is_file():
        raise MissingFileError(f"{path}: no such file")
    check_memory(path.stat().st_size, str(path))
    with damage(str(path), "take another, or start again"), safe_open(str(path), framework="np") as file:
        texts = dict(file.metadata() or {})
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    wanted = texts.pop(KEY, None)
    if wanted is not None:
        check_digest(wanted, _all(arrays, texts), path)
    return arrays, texts


def _in_order(data: bytes) -> tuple[bytes, memoryview]:
    """Header and rest of a file, its texts sorted by name: safetensors writes them in any order."""
    end = _LENGTH + int.from_bytes(data[:_LENGTH], "little")
    header = json.loads(data[_LENGTH:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    made = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    made += b" " * (-len(made) % _LENGTH)
    return len(made).to_bytes(_LENGTH, "little") + made, memoryview(data)[end:]


def _all(arrays: Mapping[str, NDArray[Any]], texts: Mapping[str, str]) -> dict[str, Any]:
    clash = [name for name in arrays if name.startswith(_TEXT)]
    if clash:
        raise DataError(f"an array may not be called {clash[0]!r}")
    return {**arrays, **{_TEXT + name: value for name, value in texts.items()}}

"""Functions that training and inference commands share: settings by precedence, scan, output folder."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho.cli.console import Console
from ptycho.cli.parser import Parser
from ptycho.cli.retired import retired_flags
from ptycho.errors import ConfigError, InputError

if TYPE_CHECKING:
    from ptycho.scan.raw_data import RawData

ALIASES: dict[str, tuple[str, ...]] = {"logger_backend": ("--logger",), "output_dir": ("-o",)}


_LONGEST_NAME = 80


def folder_name(index: int, count: int, swept: dict[str, str]) -> str:
    """`03_nepochs=20_seed=1`: the number gives the order, the values name the run; no value can point outside
    the folder.
    """
    number = str(index).zfill(len(str(count - 1)))
    words = "_".join(f"{key.rpartition('.')[2]}={value}" for key, value in swept.items())
    return "_".join(filter(None, [number, re.sub(r"[^\w.=+-]+", "-", words)[:_LONGEST_NAME]]))


def add_config_flag(parser: Parser) -> None:
    """`--config FILE`."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML settings; a typed flag wins")


def settings_of(
    arguments: argparse.Namespace, overrides: dict[str, Any], console: Console
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """The YAML values, the typed values with retired flags translated, and the YAML's name for errors."""
    given = vars(arguments)
    for old in retired_flags(arguments):
        console.warn(old.said)
        if old.field is not None:
            overrides.setdefault(old.field, old.value)
    if "n_images" in overrides:
        console.warn("--n_images is the old name of --n_groups")
    path = given.get("config")
    if path is None:
        return {}, overrides, "command line"
    from ptycho.config.yaml_io import load_yaml_config

    return load_yaml_config(path), overrides, str(path)


def read_scan(
    path: Path,
    N: int | None,
    *,
    why: str = "",
    patterns: str = "auto",
    output_dir: Path | None = None,
    bad_pixels: Path | None = None,
) -> RawData:
    """A scan whose patterns have side N (None: any); the error names the source of N.

    `patterns`: in 'memory', on 'disk', or 'auto', see `ptycho.io.scratch`. Scratch files go beside the
    output. `bad_pixels`: a mask file whose pixels are ignored too.
    """
    from ptycho.cli.freed_memory import give_back_at_once
    from ptycho.io.lazy import LazyPatterns
    from ptycho.io.masks import read_mask
    from ptycho.io.scratch import folder_for
    from ptycho.scan.raw_data import RawData

    mask = None if bad_pixels is None else read_mask(bad_pixels)
    raw = RawData.from_file(
        path, patterns=patterns, scratch_folder=folder_for(output_dir), bad_pixels=mask, make_probe=True
    )
    if isinstance(raw.diff3d, LazyPatterns):
        give_back_at_once()
    if N is not None and raw.N != N:
        sides = f"patterns are {raw.N} x {raw.N} but N is {N}{why}"
        raise ConfigError(f"{path}: {sides}; crop them, or set N to {raw.N}")
    return raw


def prepare_folder(path: Path) -> Path:
    """Make the output folder; InputError where it cannot be one."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"output folder {path}: a file is in the way; choose another folder") from None
    except OSError as error:
        raise InputError(f"output folder {path}: {error.strerror}; choose another folder") from None
    return path


def add_overwrite(parser: Parser) -> None:
    """`--overwrite`."""
    parser.add_argument(
        "--overwrite", action="store_true", default=False,
        help="replace existing files, or write into the folder of another command",
    )  # fmt: skip


def file_target(
    path: Path, suffixes: Sequence[str], arguments: argparse.Namespace, inputs: Iterable[Path | None] = ()
) -> Path:
    """A path that a file of one of these kinds can be written to; InputError before the work starts.

    It must not be one of `inputs`, a folder, a link or a pipe; only --overwrite may replace an existing file.
    """
    from ptycho.io.targets import check_target

    if path.suffix.lower() not in suffixes:
        raise InputError(f"{path}: the output must end in {' or '.join(suffixes)}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a file name ending in {suffixes[0]}")
    return check_target(path, inputs=inputs, overwrite=bool(vars(arguments).get("overwrite")))


def json_target(arguments: argparse.Namespace, inputs: Iterable[Path | None]) -> Path | None:
    """The file of `--json`, checked as every target; None if the flag is absent."""
    path: Path | None = vars(arguments).get("json")
    if path is None:
        return None
    from ptycho.io.targets import check_target

    return check_target(path, inputs=inputs, overwrite=bool(vars(arguments).get("overwrite")))


def quiet_tensorflow() -> None:
    """Hide TensorFlow's messages about its build, by an environment variable of this process."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def write_json(path: Path, values: Any) -> None:
    """Write JSON completely or not at all; values that JSON cannot hold become a number, a list or text."""
    from ptycho.io.atomic import atomic_write

    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(_plain(values), indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and value not in (float("inf"), float("-inf")) and value == value:
        return value
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)

"""Reads the files of a run. A missing or damaged file becomes a note, not an error."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import InputError, MissingFileError, PtychoError
from ptycho.run.provenance import PROVENANCE_NAME, read

if TYPE_CHECKING:
    from ptycho.scan.report import ScanReport

PRODUCT, HISTORY, METRICS, CONFIG = "reconstruction.npz", "history.json", "metrics.json", "config.yaml"
BUNDLE = "wts.h5.zip"
KNOWN = (PRODUCT, HISTORY, METRICS, CONFIG, BUNDLE, PROVENANCE_NAME)
#: roles of input files; the scan of the product comes first
_ROLES = ("scan", "test", "train")
_MAX_TEXT = 200_000
#: entries of a record by name
_LISTS = ("command", "inputs", "findings", "earlier")
_MAPPINGS = ("arguments", "seeds", "settings", "skipped", "versions", "git", "machine")
#: names of series in history.json of earlier versions
_OLD_NAMES: dict[str, str] = {"r_loss": "r_factor"}


@dataclass
class Run:
    """One output folder: its products as paths, its small files as values, and notes on missing files.

    history: name -> one number an epoch (NaN where it was none). metrics: name -> number. scan: the file from
    which the product (or the training) was made, None if it cannot be found. trained_in: the folder of the
    model, if history and configuration are those of the model. bad_pixels (N, N): pixels of the scan to
    ignore beside those that the run ignored. described: recent results of the checks of `scan`, if any.
    """

    name: str
    folder: Path
    product: Path | None = None
    bundle: Path | None = None
    scan: Path | None = None
    history: dict[str, list[float]] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    config_text: str | None = None
    provenance: dict[str, Any] | None = None
    trained_in: Path | None = None
    notes: list[str] = field(default_factory=list)
    bad_pixels: NDArray[np.bool_] | None = None
    described: ScanReport | None = None


def find_runs(paths: Iterable[str | Path], data: Path | None = None) -> list[Run]:
    """The runs of these folders, in order; a folder of runs (a demo) means each run in it.

    Runs with the same name get the name of their folder, or else their path. data: the scan of runs that do
    not name theirs or whose file moved. Raises MissingFileError, and InputError for a file or for a folder
    without files of a run.
    """
    if data is not None and not data.is_file():
        raise MissingFileError(f"{data} does not exist; check the path of the scan file")
    found = [run for path in paths for run in _runs_of(Path(path), data)]
    _tell_apart(found, [f"{_name(run.folder.resolve().parent)}/{run.name}" for run in found])
    _tell_apart(found, [str(run.folder) for run in found])
    return found


def _tell_apart(runs: list[Run], longer: list[str]) -> None:
    """Give a longer name to runs with the same name."""
    often = Counter(run.name for run in runs)
    for run, name in zip(runs, longer, strict=True):
        if often[run.name] > 1:
            run.name = name


def _runs_of(folder: Path, data: Path | None) -> Iterator[Run]:
    if not folder.exists():
        raise MissingFileError(f"{folder} does not exist; give the output folder of a run")
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; give the output folder of a run")
    below = sorted(child for child in folder.iterdir() if (child / PRODUCT).is_file())
    if below and not (folder / PRODUCT).is_file():
        for child in below:
            yield _read_run(child, f"{_name(folder)}/{child.name}", data, parent=folder)
    elif any((folder / name).is_file() for name in KNOWN):
        yield _read_run(folder, _name(folder), data)
    else:
        raise InputError(
            f"{folder} holds nothing of a run: none of {', '.join(KNOWN)}; "
            "give the output folder of ptycho train, infer, reconstruct or demo"
        )


def _read_run(folder: Path, name: str, data: Path | None, parent: Path | None = None) -> Run:
    run = Run(name, folder)

    def present(file: str) -> Path | None:
        return next((home / file for home in homes if (home / file).is_file()), None)

    homes = [folder] if parent is None else [folder, parent]
    run.product, run.bundle = present(PRODUCT), present(BUNDLE)
    run.metrics = _numbers(_json(present(METRICS), run))
    config = present(CONFIG)
    run.config_text = _text(config, run)
    record = present(PROVENANCE_NAME)
    try:
        run.provenance = None if record is None else _sound(read(record.parent), run)
    except PtychoError as error:
        run.notes.append(str(error))
    run.scan = data or _find_scan(run)
    model = _model_folder(run)
    if model is not None and present(HISTORY) is None:
        # For an image made by a model, show the curves and settings of that model's training.
        homes.append(model)
        run.trained_in = model if present(HISTORY) is not None else None
    run.history = _history(_json(present(HISTORY), run))
    if config is None:
        run.config_text = _text(present(CONFIG), run)
    absent = {
        PRODUCT: "no image was reconstructed here",
        HISTORY: "no curves",
        PROVENANCE_NAME: "versions, machine and command are unknown",
    }
    run.notes += [f"{file} is not there: {lost}" for file, lost in absent.items() if present(file) is None]
    others = [str(i.get("path")) for i in _inputs(run) if re.fullmatch(r"train\d+", str(i.get("role")))]
    if others:
        run.notes.append(
            f"trained on {len(others) + 1} scans; the first is shown as measured, not {', '.join(others)}"
        )
    if run.scan is None:
        run.notes.append("the scan was not found, so nothing measured is shown; name it with --data FILE")
    return run


def _sound(record: dict[str, Any] | None, run: Run) -> dict[str, Any] | None:
    """The record without entries of a wrong type; a note names them."""
    if record is None:
        return None
    kinds: dict[str, type] = {name: list for name in _LISTS}
    kinds |= {name: dict for name in _MAPPINGS}
    kept: dict[str, Any] = {
        name: value for name, value in record.items() if isinstance(value, kinds.get(name, object))
    }
    for name in ("seconds", "pid"):
        if isinstance(kept.get(name), (int, float)) and not math.isfinite(_number(kept[name])):
            del kept[name]
    for name in ("inputs", "findings"):
        if name in kept:
            kept[name] = [one for one in kept[name] if _is_entry(one)]
    dropped = [name for name, value in record.items() if value is not None and kept.get(name) != value]
    if dropped:
        run.notes.append(f"{PROVENANCE_NAME}: {', '.join(dropped)[:200]} cannot be understood, left out")
    return kept


def _is_entry(one: Any) -> bool:
    """Whether an input or a finding is texts and finite numbers by name."""
    if not isinstance(one, dict):
        return False
    for name, value in one.items():
        text_only = name in ("role", "path", "sha256")
        number = isinstance(value, (int, float)) and math.isfinite(_number(value))
        if value is not None and not isinstance(value, str) and (text_only or not number):
            return False
    return True


def _model_folder(run: Run) -> Path | None:
    for given in _inputs(run):
        if given.get("role") == "model" and isinstance(given.get("path"), str):
            path = Path(given["path"])
            try:
                return path if path.is_dir() else path.parent
            except (OSError, ValueError):  # a name that no system knows
                return None
    return None


def _inputs(run: Run) -> list[Mapping[str, Any]]:
    inputs = (run.provenance or {}).get("inputs")
    return [given for given in inputs if isinstance(given, Mapping)] if isinstance(inputs, list) else []


def _name(folder: Path) -> str:
    return folder.name or folder.resolve().name or str(folder)


def _text(path: Path | None, run: Run) -> str | None:
    if path is None:
        return None
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_MAX_TEXT)
    except OSError as error:
        run.notes.append(f"{path.name} cannot be read ({error.strerror})")
        return None


def _json(path: Path | None, run: Run) -> Any:
    if path is None:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        run.notes.append(f"{path.name} is damaged and left out ({' '.join(str(error).split())})")
        return None


def _history(values: Any) -> dict[str, list[float]]:
    if not isinstance(values, dict):
        return {}
    series = {
        _OLD_NAMES.get(str(name), str(name)): [_number(value) for value in column]
        for name, column in values.items()
        if isinstance(column, list)
    }
    return {name: column for name, column in series.items() if any(map(math.isfinite, column))}


def _numbers(values: Any) -> dict[str, float]:
    if not isinstance(values, dict):
        return {}
    found = {name: _number(value) for name, value in values.items() if not isinstance(value, (bool, list))}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _number(value: Any) -> float:
    try:
        return float(value) if isinstance(value, (int, float)) else math.nan
    except OverflowError:  # JSON knows whole numbers that no float holds
        return math.nan


def numbers_in(path: Path) -> dict[str, list[float]]:
    """The lists of numbers in a history.json by name; empty if it is missing or damaged."""
    run = Run(path.name, path.parent)
    return _history(_json(path if path.is_file() else None, run))


def _find_scan(run: Run) -> Path | None:
    """The scan that the record names, else the configuration, else the file beside the folder."""
    for candidate in _candidates(run):
        try:
            if candidate.is_file():
                return candidate
        except (OSError, ValueError):  # a name that no system knows
            continue
    return None


def _candidates(run: Run) -> Iterator[Path]:
    roles = _ROLES if run.product is not None else ("train", "scan")
    given = {i.get("role"): i.get("path") for i in _inputs(run)}
    settings = _settings(run.config_text)
    names = ("test_data_file", "train_data_file") if run.product is not None else ("train_data_file",)
    for path in (*map(given.get, roles), *map(settings.get, names)):
        if isinstance(path, str) and path:
            yield Path(path)
            if not Path(path).is_absolute():
                yield run.folder.parent / path
    yield run.folder.with_name(run.folder.name + ".npz")


def _settings(text: str | None) -> dict[Any, Any]:
    import yaml

    try:
        values = yaml.safe_load(text or "")
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError, TypeError):
        return {}
    return values if isinstance(values, dict) else {}

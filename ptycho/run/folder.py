"""The output folder of a command: which command it belongs to, one writer at a time, no products of other
runs.

A new run moves what an earlier one left there into `products.earlier` and `checkpoints.earlier`; one
generation is kept. If the command is refused later, everything is put back.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from ptycho.errors import InputError
from ptycho.io.inputs import odd_kind, short
from ptycho.io.lock import FolderLock
from ptycho.io.targets import check_not_read, check_parent, nearest_folder
from ptycho.run import provenance

CHECKPOINTS, EARLIER_CHECKPOINTS, EARLIER_PRODUCTS = "checkpoints", "checkpoints.earlier", "products.earlier"
BUNDLE, CONFIG = "wts.h5.zip", "config.yaml"
#: what runs leave for others to use; all of it belongs to the run that is on record
PRODUCTS = (
    BUNDLE, "model.onnx", "reconstruction.npz", "unknowns.npz", "coverage.npz", "refine.safetensors",
    "history.json", "metrics.json", "reconstruction.png", "probe.png", "history.png", "r_map.png",
    "sampler_coverage.png", "report.html",
)  # fmt: skip
_FOLDERS = ("figures",)
_WRITTEN_FIRST = (CONFIG, provenance.PROVENANCE_NAME)
#: what a command may have written before it was refused
_BEFORE_WORK = (*_WRITTEN_FIRST, "training.log", "metrics.csv", "hparams.yaml", "start.npz")


def owner_of(folder: Path) -> str | None:
    """The command whose folder it is: 'train', 'infer', ...; None for one that holds nothing of a run."""
    try:
        record = provenance.read(folder)
    except (InputError, OSError):
        record = None
    if record is not None:
        if isinstance(record.get("kind"), str):
            return str(record["kind"])
        words = record.get("command")
        named = [str(word) for word in words] if isinstance(words, list) else []
        known = ("train", "infer", "reconstruct", "demo")
        return next(
            (word.removeprefix("ptycho_") for word in named if word.removeprefix("ptycho_") in known), None
        )
    if (folder / BUNDLE).is_file() or (folder / CHECKPOINTS).is_dir():
        return "train"
    return None


class OutputFolder:
    """The folder of a run that begins: made if needed, locked, emptied of an earlier run's products.

    kind: the command. inputs: what it reads; no product may take the place of one. products: further names
    that this command writes for others to use. resumes: products and
    checkpoints are this run's own and stay. Raises InputError for a file in the way, a folder of another
    command (unless `overwrite`), one that another process writes, or one that takes no file.
    """

    def __init__(
        self,
        path: Path,
        kind: str,
        *,
        inputs: Iterable[Path | None] = (),
        overwrite: bool = False,
        resumes: bool = False,
        products: Sequence[str] = (),
    ) -> None:
        self.path, self._products = path, (*PRODUCTS, *products)
        check_folder(path, kind, inputs=inputs, overwrite=overwrite)
        self._new_folders = _make(path)
        self._moved: list[tuple[Path, Path]] = []
        self._older: list[tuple[Path, Path]] = []
        try:
            self._lock = FolderLock(path)
        except InputError:
            self._remove_made()
            raise
        self._before = {
            name: (path / name).read_bytes() for name in _WRITTEN_FIRST if (path / name).is_file()
        }
        if not resumes:
            self._set_aside()

    def _set_aside(self) -> None:
        found = [self.path / name for name in self._products if (self.path / name).is_file()]
        found += [self.path / name for name in _FOLDERS if (self.path / name).is_dir()]
        checkpoints = self.path / CHECKPOINTS
        if found:
            aside = self._emptied(self.path / EARLIER_PRODUCTS)
            aside.mkdir()
            if CONFIG in self._before:  # so that what was moved is a run that can be used and read
                (aside / CONFIG).write_bytes(self._before[CONFIG])
            for path in found:
                self._move(path, aside / path.name)
        if checkpoints.is_dir() and any(checkpoints.iterdir()):
            self._move(checkpoints, self._emptied(self.path / EARLIER_CHECKPOINTS))

    def _emptied(self, place: Path) -> Path:
        """The place, free: what an earlier generation left there is out of sight until it is certain."""
        if place.exists():
            older = place.with_name(f".{place.name}.old")
            shutil.rmtree(older, ignore_errors=True)
            place.rename(older)
            self._older.append((place, older))
        return place

    def _move(self, path: Path, place: Path) -> None:
        path.rename(place)
        self._moved.append((path, place))

    def close(self) -> None:
        """The run is over: what was set aside stays aside, the lock goes."""
        for _, older in self._older:
            shutil.rmtree(older, ignore_errors=True)
        self._older.clear()
        self._lock.release()

    def refused(self) -> None:
        """The command was refused: put everything back, unless it has made something by now."""
        if any((self.path / name).exists() for name in self._products) or self._has_checkpoints():
            self.close()
            return
        with contextlib.suppress(OSError):
            for name in _BEFORE_WORK:
                for path in (self.path / name, self.path / CHECKPOINTS / name):
                    if (self._new_folders or name in _WRITTEN_FIRST) and path.is_file():
                        path.unlink()
            if (self.path / CHECKPOINTS).is_dir():
                (self.path / CHECKPOINTS).rmdir()
        for name, data in self._before.items():
            (self.path / name).write_bytes(data)
        for path, place in reversed(self._moved):
            with contextlib.suppress(OSError):
                place.rename(path)
        if self._moved:
            shutil.rmtree(self.path / EARLIER_PRODUCTS, ignore_errors=True)
        for place, older in self._older:
            with contextlib.suppress(OSError):
                older.rename(place)
        self._older.clear()
        self._lock.release()
        self._remove_made()

    def _has_checkpoints(self) -> bool:
        folder = self.path / CHECKPOINTS
        return folder.is_dir() and any(path.suffix in (".ckpt", ".safetensors") for path in folder.iterdir())

    def _remove_made(self) -> None:
        """The folders that this run made, as far as they are empty."""
        with contextlib.suppress(OSError):
            for folder in reversed(self._new_folders):
                folder.rmdir()


def check_folder(
    path: Path, kind: str, *, inputs: Iterable[Path | None] = (), overwrite: bool = False
) -> None:
    """InputError where `path` cannot be the output folder of a run of this kind; nothing is written."""
    odd = odd_kind(path)
    if odd is not None or path.is_file():
        raise InputError(
            f"output folder {short(path)}: {odd or 'a file'} is in the way; choose another folder"
        )
    if not path.is_dir():
        check_parent(path / "x")
        return
    for name in PRODUCTS:
        if (path / name).exists():
            check_not_read(path / name, inputs)
    owner = owner_of(path)
    if owner not in (None, kind) and not overwrite:
        raise InputError(
            f"output folder {path} holds what ptycho {owner} made; choose another folder, or add --overwrite"
        )
    check_parent(path / "x")


def _make(path: Path) -> list[Path]:
    """Make a folder; those that were made, the outermost first."""
    nearest = nearest_folder(path.absolute())
    missing = [folder for folder in (path.absolute(), *path.absolute().parents) if folder != nearest]
    made = list(reversed([folder for folder in missing if nearest in folder.parents]))
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output folder {short(path)}: {error.strerror}; choose another folder") from None
    return made

"""Checkpoints of a run: one safetensors file with a JSON header, so that reading one cannot run code.

A file holds all variables, the optimiser's state, and what the callbacks know (history, best value,
patience), which is all that a resume needs to go on as if nothing had happened.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ptycho.errors import ConfigError, InputError, MissingFileError
from ptycho.io.reading import one_line
from ptycho.io.tensors import read_tensors, write_tensors
from ptycho.run.observers import History
from ptycho.tf.fit.stateful import Stateful
from ptycho.tf.layers import load_neutral_weights, neutral_weights

if TYPE_CHECKING:
    from ptycho.tf.model import PtychoPINN_Keras

SUFFIX = ".safetensors"
_FORMAT = "ptychopinn-tensorflow-checkpoint-1"
Arrays = dict[str, NDArray[Any]]


def model_arrays(model: PtychoPINN_Keras) -> Arrays:
    """Every variable of the model that training may move, under neutral names."""
    made = {f"network.{name}": value for name, value in neutral_weights(model.network).items()}
    return {**made, "probe": model.probe.numpy(), "log_scale": model.log_scale.numpy()}


def load_model_arrays(model: PtychoPINN_Keras, arrays: Arrays) -> None:
    """Put what `model_arrays` gave back."""
    prefix = "network."
    weights = {n.removeprefix(prefix): value for n, value in arrays.items() if n.startswith(prefix)}
    load_neutral_weights(model.network, weights)
    model.probe.assign(arrays["probe"])
    model.log_scale.assign(arrays["log_scale"])


def write_checkpoint(path: Path, model: PtychoPINN_Keras, knowledge: dict[str, Any]) -> None:
    """Write a checkpoint atomically; `knowledge` is plain numbers, texts, lists and mappings."""
    arrays = {f"model.{name}": value for name, value in model_arrays(model).items()}
    arrays |= {f"optimizer.{name}": value for name, value in model.steps.state().items()}
    # a header of numbers may hold inf, which JSON spells Infinity and Python reads back
    write_tensors(path, arrays, {"format": _FORMAT, "knowledge": json.dumps(knowledge)})


def read_checkpoint(path: Path) -> tuple[Arrays, Arrays, dict[str, Any]]:
    """(model arrays, optimiser arrays, knowledge) of a checkpoint.

    Raises MissingFileError, or ConfigError where the file is no checkpoint of this backend.
    """
    if not Path(path).is_file():
        raise MissingFileError(f"{path}: no such checkpoint")
    try:
        arrays, header = read_tensors(Path(path))
        if header.get("format") != _FORMAT:
            raise ValueError("another format")
        knowledge = json.loads(header["knowledge"])
        if not isinstance(knowledge, dict) or "epoch" not in knowledge:
            raise ValueError("no epoch in it")
    except (InputError, KeyError, ValueError, OSError, RecursionError) as error:
        raise ConfigError(
            f"{path}: cannot be read as a checkpoint of the TensorFlow backend ({one_line(error)}) - "
            "a .ckpt resumes with --backend pytorch"
        ) from None

    def part(prefix: str) -> Arrays:
        return {n.removeprefix(prefix): value for n, value in arrays.items() if n.startswith(prefix)}

    return part("model."), part("optimizer."), knowledge


def check_belongs(path: Path, model: PtychoPINN_Keras, arrays: Arrays, optimizer: Arrays) -> None:
    """Refuse a checkpoint that cannot go on as this run, before anything starts."""
    own = {name: value.shape for name, value in model_arrays(model).items()}
    state = {name: value.shape for name, value in model.steps.state().items()}
    if {n: v.shape for n, v in arrays.items()} != own or {n: v.shape for n, v in optimizer.items()} != state:
        raise ConfigError(
            f"{path}: does not belong to this run (another network, N, gridsize, number of probe modes or "
            "optimizer) - resume with the config.yaml beside it"
        )


class Checkpoints(Stateful):
    """After every epoch `last.safetensors`, and the `keep` best as `best-epoch=N.safetensors` (-1: all)."""

    name = "checkpoints"

    def __init__(
        self,
        history: History,
        folder: Path,
        others: Sequence[Stateful],
        *,
        monitor: str,
        mode: str,
        keep: int,
    ) -> None:
        super().__init__()
        self._history, self._folder, self._others = history, folder, tuple(others)
        self._monitor, self._keep = monitor, keep
        self._sign = 1.0 if mode == "min" else -1.0
        self.kept: dict[str, float] = {}

    @property
    def best(self) -> Path | None:
        """The best checkpoint kept, or None."""
        name = min(self.kept, key=lambda n: self._sign * self.kept[n], default=None)
        return None if name is None else self._folder / name

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        value = self._history.row[self._monitor]
        worst = max(self.kept, key=lambda n: self._sign * self.kept[n], default=None)
        full = self._keep >= 0 and len(self.kept) >= self._keep
        beats = worst is None or self._sign * value < self._sign * self.kept[worst]
        name, dropped = f"best-epoch={epoch}{SUFFIX}", None
        wanted = self._keep != 0 and (beats if full else True)
        if wanted:
            self.kept[name] = value
            if full and worst is not None:
                dropped = worst
                del self.kept[worst]
        known: dict[str, Any] = {other.name: other.knowledge() for other in (*self._others, self)}
        known["epoch"] = epoch + 1
        for path in ([self._folder / name] if wanted else []) + [self._folder / f"last{SUFFIX}"]:
            write_checkpoint(path, self.model, known)
        if dropped is not None:
            (self._folder / dropped).unlink(missing_ok=True)

    def knowledge(self) -> dict[str, Any]:
        return {"kept": self.kept}

    def restore(self, known: dict[str, Any]) -> None:
        self.kept = {name: value for name, value in known["kept"].items() if (self._folder / name).is_file()}

"""`training.log`: the course of a run as text, for people: when it began, every epoch, how it ended.

The file is opened for each line and closed again, so that nothing is lost when a run is killed, and no
handler of the `logging` library is added or changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from ptycho.config.settings import PyTorchExecutionConfig, TrainingConfig
from ptycho.io.aside import earlier_name
from ptycho.io.atomic import atomic_write
from ptycho.objectives.manifest import resolve
from ptycho.run.state import settings_checksum
from ptycho.tracking.names import public

NAME = "training.log"
_EPOCH = re.compile(r"^\S+ epoch (\d+):")
#: first in a line, in this order
_FIRST = ("train_loss", "val_loss", "learning_rate")


class TrainingLog:
    """The log of one run; the process of rank zero alone may write it.

    `about`: what the run is, by name, for its first line.
    """

    def __init__(self, folder: Path, about: Mapping[str, object]) -> None:
        self.path = folder / NAME
        self._about = dict(about)
        self._open = False

    @classmethod
    def of(cls, config: TrainingConfig, execution: PyTorchExecutionConfig) -> TrainingLog:
        """The log of a run in its output folder; its first line has what tells runs apart."""
        about = {
            "backend": config.backend,
            "settings": settings_checksum(config, execution),
            "objectives": resolve(config).checksum[:16],
            "seed": config.seed,
            "epochs": config.nepochs,
        }
        return cls(config.output_dir, about)

    def begin(self, first_epoch: int) -> None:
        """Zero starts a new file, an earlier one being moved aside; otherwise the file goes on, less what it
        says of this epoch and later."""
        if first_epoch == 0:
            self._set_aside()
        else:
            self._drop(first_epoch)
        self._open = True
        what = "start" if first_epoch == 0 else f"resumed at epoch {first_epoch}"
        self._line(f"{what}: " + ", ".join(f"{name} {value}" for name, value in self._about.items()))

    def epoch(self, row: Mapping[str, float], epoch: int) -> None:
        """The metrics of an epoch that is over; epochs count from zero."""
        values = public(row)
        first = {name: values.pop(name) for name in _FIRST if name in values}
        self._line(f"epoch {epoch}: " + " ".join(f"{n} {v:.6g}" for n, v in {**first, **values}.items()))

    def end(self, state: str, epochs: int) -> None:
        """How it ended, after so many epochs in all; a second call does nothing."""
        if self._open:
            self._line(f"end: {state} after {epochs} epochs")
            self._open = False

    def _line(self, text: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}\n")

    def _set_aside(self) -> None:
        if self.path.is_file():
            self.path.rename(earlier_name(self.path))

    def _drop(self, first_epoch: int) -> None:
        if not self.path.is_file():
            return
        text = self.path.read_text(encoding="utf-8", errors="replace")
        lines = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        kept = [line for line in lines if not (found := _EPOCH.match(line)) or int(found[1]) < first_epoch]
        with atomic_write(self.path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")

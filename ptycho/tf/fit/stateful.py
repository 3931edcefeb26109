"""Callbacks whose knowledge goes into the checkpoints of a run."""

from __future__ import annotations

from typing import Any

import keras


class Stateful(keras.callbacks.Callback):  # type: ignore[misc]
    """A callback whose knowledge goes into the checkpoints."""

    name = ""

    def knowledge(self) -> dict[str, Any]:
        """Plain values."""
        return {}

    def restore(self, known: dict[str, Any]) -> None:
        """Take back what `knowledge` gave."""

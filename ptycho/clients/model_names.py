"""A model under the names of the older surface, where a bundle was opened as a dictionary of models."""

from __future__ import annotations

import logging
from typing import Any, Self

logger = logging.getLogger(__name__)

#: what older programs call the one network of a bundle
NAMES = ("diffraction_to_obj", "autoencoder")


class NamedModel:
    """A model that is found under the older names as well: `model["diffraction_to_obj"]` is the model."""

    def __getitem__(self, name: str) -> Self:
        """The model itself, with a note in the log; KeyError for another name."""
        if name not in NAMES:
            raise KeyError(f"no model {name!r} in a bundle; it is {NAMES[0]!r}, or the model as it is")
        logger.info("a bundle holds one model: [%r] is not needed", name)
        return self

    def __contains__(self, name: object) -> bool:
        return name in NAMES

    def keys(self) -> tuple[str, ...]:
        """The older names."""
        return NAMES


class OpenedBundle(tuple[Any, dict[str, Any]]):
    """(model, configuration), an ordinary pair, in which an older name finds the model too."""

    __slots__ = ()

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(0)[key] if isinstance(key, str) else super().__getitem__(key)

"""The weights that ship, beside this file: a network for scans that nobody trained on, the engine's prior.

How they were trained and what they are worth: `docs/model_card.md`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.config.settings import ModelConfig, TrainingConfig
from ptycho.errors import BundleError, ConfigError, DataError

WEIGHTS = Path(__file__).with_name("shipped.safetensors")
#: the learned prior of the engine (`ptycho_torch/refine/learned.py`), in half precision
PRIOR = Path(__file__).with_name("prior.safetensors")
#: sides of patterns that it was trained on, px
SIDES = (64, 128)
#: with fewer counts in the mean pattern, more patterns are averaged in each of fewer rounds
_FAINT, _ROUNDS, _FAINT_ROUNDS = 1e4, 8, 4
#: of a network that learned on the image that all rounds had made: more of them were worse
_TRAINED_ROUNDS = 4


def shipped_model(N: int, nphotons: float = 1e5) -> ModelConfig:
    """The network that ships, for patterns of N px and so many counts in the mean pattern.

    Raises DataError for a side that it was not trained on.
    """
    if N not in SIDES:
        raise DataError(
            f"the patterns are {N} x {N} px, the network that ships was trained on 64 and 128: bin or crop "
            "them to one of these, train a network (ptycho train), or use ptycho reconstruct"
        )
    rounds = _FAINT_ROUNDS if nphotons < _FAINT else _ROUNDS
    return ModelConfig(N=N, reference="coarse", rounds=rounds)


def with_shipped_model(config: TrainingConfig) -> TrainingConfig:
    """The configuration with the network that training starts from: the one that ships, where it says so.

    What it returns is returned unchanged when given again. ConfigError where `start_from` is shipped and a
    setting of the network is another than the shipped one's.

    Example:
        >>> with_shipped_model(TrainingConfig(model=ModelConfig(N=64), start_from="shipped")).model.reference
        'coarse'
    """
    if config.start_from == "scratch":
        return config
    model, usual = shipped_model(config.model.N), ModelConfig()
    for field in dataclasses.fields(ModelConfig):
        given, ships = getattr(config.model, field.name), getattr(model, field.name)
        if given not in (ships, getattr(usual, field.name)) and field.name not in ("N", "rounds"):
            raise ConfigError(
                f"{field.name} = {given!r}: the network that ships has {ships!r}; drop it, or use --from "
                "scratch"
            )
    rounds = _TRAINED_ROUNDS if config.model.rounds == usual.rounds else config.model.rounds
    return dataclasses.replace(config, model=dataclasses.replace(model, rounds=rounds))


def shipped_weights(file: Path = WEIGHTS) -> dict[str, NDArray[Any]]:
    """The weights in `file` by neutral name, float32. Raises BundleError where it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        found = load(file.read_bytes())
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{file}: cannot be read ({error}); install ptychopinn again") from None
    return {name: np.asarray(value, np.float32) for name, value in found.items()}

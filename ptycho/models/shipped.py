"""The weights that ship, beside this file: a network for scans that nobody trained on, the engine's prior.

How they were trained and what they are worth: `docs/model_card.md`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.config.settings import ModelConfig
from ptycho.errors import BundleError, DataError

WEIGHTS = Path(__file__).with_name("shipped.safetensors")
#: the learned prior of the engine (`ptycho_torch/refine/learned.py`), in half precision
PRIOR = Path(__file__).with_name("prior.safetensors")
#: sides of patterns that it was trained on, px
SIDES = (64, 128)
#: with fewer counts in the mean pattern, more patterns are averaged in each of fewer rounds
_FAINT, _ROUNDS, _FAINT_ROUNDS = 1e4, 8, 4


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


def shipped_weights(file: Path = WEIGHTS) -> dict[str, NDArray[Any]]:
    """The weights in `file` by neutral name, float32. Raises BundleError where it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        found = load(file.read_bytes())
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{file}: cannot be read ({error}); install ptychopinn again") from None
    return {name: np.asarray(value, np.float32) for name, value in found.items()}

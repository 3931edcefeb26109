"""The weights of triage that ship, or those of a training of one's own: one safetensors file, read as numbers.

How the shipped ones were trained and what they are worth: `docs/model_card_triage.md`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import BundleError
from ptycho.io.inputs import check_input, short

WEIGHTS = Path(__file__).with_name("triage.safetensors")
#: name of the thresholds among the weights
THRESHOLDS = "thresholds"


def triage_weights(path: Path | None = None) -> dict[str, NDArray[Any]]:
    """Weights by name, float32, `thresholds` (faults,) among them; None: those that ship.

    Raises BundleError where the file is damaged, or is none of `ptycho sweep model=triage`.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    source = WEIGHTS if path is None else check_input(path)
    remedy = "install ptychopinn again" if path is None else "give triage.safetensors of ptycho sweep model=triage"
    try:
        found = load(source.read_bytes())
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise BundleError(f"{short(source)}: cannot be read ({reason}); {remedy}") from None
    if THRESHOLDS not in found:
        raise BundleError(f"{short(source)}: holds no thresholds, so it is no model of triage; {remedy}")
    return {name: np.asarray(value, np.float32) for name, value in found.items()}

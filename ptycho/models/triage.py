"""The built-in weights of triage, or those of a user's training, from a safetensors file.

How the built-in ones were trained, and their quality: `docs/model_card_triage.md`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import BundleError, DataError, MissingFileError
from ptycho.io.inputs import short
from ptycho.io.tensors import read_tensors

WEIGHTS = Path(__file__).with_name("triage.safetensors")
#: name of the thresholds among the weights
THRESHOLDS = "thresholds"
#: name of the tails of usual scans (`ptycho.triage.decision`); files of older versions have none
USUAL = "usual_tails"
#: what belongs to the decision, not to the network
DECISION = (THRESHOLDS, USUAL)


def triage_weights(path: Path | None = None) -> dict[str, NDArray[Any]]:
    """Weights by name, float32, `thresholds` (faults,) among them; None: the built-in ones.

    Raises BundleError where the file is damaged, or is none of `ptycho sweep model=triage`.
    """
    source = WEIGHTS if path is None else path
    remedy = (
        "install ptychopinn again" if path is None else "give triage.safetensors of ptycho sweep model=triage"
    )
    try:
        found, _ = read_tensors(source)
    except (MissingFileError, DataError) as error:
        raise BundleError(f"{error} ({remedy})") from None
    if THRESHOLDS not in found:
        raise BundleError(f"{short(source)}: holds no thresholds, so it is no model of triage; {remedy}")
    return {name: np.asarray(value, np.float32) for name, value in found.items()}

"""One compared quantity a row, and the tolerances that it must meet."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

#: largest difference relative to the largest magnitude, by precision and kind of quantity
TOLERANCES: dict[str, dict[str, float]] = {
    "float32": {
        "exact": 0.0,
        "operator": 1e-5,
        "forward": 1e-5,
        "loss": 1e-6,
        "gradient": 1e-4,
        "image": 1e-5,
        "trained_loss": 1e-3,
        "trained_weight": 1e-2,
    },
    "float64": {
        "exact": 0.0,
        "operator": 1e-9,
        "forward": 1e-9,
        "loss": 1e-9,
        "gradient": 1e-9,
        "image": 1e-5,  # bundles and canvases are single precision
        "trained_loss": 1e-6,
        "trained_weight": 1e-6,
    },
}


@dataclass(frozen=True)
class Row:
    """One quantity: `error` is the largest difference of the backends relative to the largest magnitude."""

    section: str
    quantity: str
    precision: str
    error: float
    tolerance: float
    #: the same of the PyTorch value against the NumPy oracle, where there is one
    oracle_error: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the backends, and PyTorch and the oracle, are as close as they must be."""
        both = self.error if self.oracle_error is None else max(self.error, self.oracle_error)
        return both <= self.tolerance

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "passed": self.passed}


def relative(first: Any, second: Any, scale: float | None = None) -> float:
    """max |first - second| / scale, by default max |second|; 0 where both are equal, infinity where shapes or
    NaN differ."""
    a, b = np.asarray(first), np.asarray(second)
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return math.inf
    if a.size == 0:
        return 0.0
    wide = np.complex128 if np.iscomplexobj(a) or np.iscomplexobj(b) else np.float64
    difference = float(np.abs(a.astype(wide) - b.astype(wide)).max())
    return difference / (scale or float(np.abs(b).max())) if difference else 0.0


def row(
    section: str,
    quantity: str,
    precision: str,
    kind: str,
    torch_value: Any,
    tf_value: Any,
    oracle: Any = None,
    *,
    scale: float | None = None,
) -> Row:
    """Compare one quantity; `kind` names its tolerance, `scale` the magnitude if it is not its own."""
    return Row(
        section,
        quantity,
        precision,
        relative(tf_value, torch_value, scale),
        TOLERANCES[precision][kind],
        None if oracle is None else relative(torch_value, oracle),
    )

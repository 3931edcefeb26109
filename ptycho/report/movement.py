"""The scale of arrows for small movements."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def stretch(start_xy: NDArray[np.float64], moved_xy: NDArray[np.float64]) -> float:
    """The round factor that makes the longest of these movements (M, 2) about one step of the scan long."""
    area = float(np.prod(np.ptp(start_xy, axis=0) + 1e-9))
    step = np.sqrt(area / len(start_xy))
    longest = float(np.percentile(np.hypot(*moved_xy.T), 95))
    if longest <= 0 or step <= 0:
        return 1.0
    raw = max(step / longest, 1.0)
    power = 10.0 ** np.floor(np.log10(raw))
    return float(min(max(head * power for head in (1, 2, 5) if head * power <= raw * (1 + 1e-9)), 1000.0))

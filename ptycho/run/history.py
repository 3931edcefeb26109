"""The history of a run: one list a metric, whose entry n is epoch n's; NaN where it has no such number."""

from __future__ import annotations

import math
from collections.abc import Mapping


def append_row(epochs: dict[str, list[float]], row: Mapping[str, float]) -> None:
    """Add an epoch to the lists, in place.

    A metric that was away for some epochs (a term of another stage) gets NaN for them, so that its entries
    stay at their epochs; the list of one that does not come back ends early.
    """
    before = max(map(len, epochs.values()), default=0)
    for name, value in row.items():
        values = epochs.setdefault(name, [])
        values.extend([math.nan] * (before - len(values)))
        values.append(value)

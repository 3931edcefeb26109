"""The history of a run: one list for each metric. Entry n belongs to epoch n; NaN where there is no value."""

from __future__ import annotations

import math
from collections.abc import Mapping


def append_row(epochs: dict[str, list[float]], row: Mapping[str, float]) -> None:
    """Add an epoch to the lists, in place.

    A metric that is missing for some epochs (a term of another stage) gets NaN for them, so that later
    entries stay at their epochs. A metric that does not come back has a shorter list.
    """
    before = max(map(len, epochs.values()), default=0)
    for name, value in row.items():
        values = epochs.setdefault(name, [])
        values.extend([math.nan] * (before - len(values)))
        values.append(value)

"""Names of metrics, and which of them a tracker may see: the same for both backends.

`loss/TERM` and `val/loss/TERM` are means over the patterns of an epoch. `diagnostics/NAME` and
`val/diagnostics/NAME` are watched and not minimised. `learning_rate/PART` is the rate of a part that has its
own. `train_loss`, `val_loss` and `learning_rate` (the highest rate) have no prefix. A name with a part that
begins with `_` is internal and is not logged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

PLAIN = ("train_loss", "val_loss", "learning_rate")
_NAMED = re.compile(r"((val/)?(loss|diagnostics)|learning_rate)(/[a-z][a-z0-9_]*)+")


def is_public(name: str) -> bool:
    """Whether a metric may leave the code that logs it."""
    return not any(part.startswith("_") for part in name.split("/"))


def in_contract(name: str) -> bool:
    """Whether a name is one that both backends log; a client's own callback may log others."""
    return name in PLAIN or (is_public(name) and _NAMED.fullmatch(name) is not None)


def public(values: Mapping[str, Any]) -> dict[str, float]:
    """The metrics for trackers as Python floats, in order; helpers are left out, and `epoch`, which has a
    place of its own."""
    return {name: float(value) for name, value in values.items() if name != "epoch" and is_public(name)}

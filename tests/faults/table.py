"""Every planted fault, room by room."""

from __future__ import annotations

import table_backends
import table_data
import table_judging
import table_runs
import table_trainers
from fault import Fault, Room

TABLE: dict[Room, tuple[Fault, ...]] = {
    **table_data.TABLE,
    **table_judging.TABLE,
    **table_runs.TABLE,
    **table_backends.TABLE,
    **table_trainers.TABLE,
}

"""The model trained last, for callers that save it without holding it.

Kept for ptychodus, whose plugin trains through `run_cdi_example` and then calls `save(folder)` with nothing
else. Each workflow leaves its own way of saving here; inside the package models are passed as arguments.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ptycho.errors import RunError

Saver = Callable[[Path], Path]

_last: list[Saver] = []


def remember(saver: Saver) -> None:
    """Keep how the model trained last is written: `saver(folder)` writes `wts.h5.zip` and returns its path.

    The saver, and with it the model, stays in memory until the next training run replaces it.
    """
    _last[:] = [saver]


def save(out_prefix: str | os.PathLike[str]) -> Path:
    """Write the model trained last in this process as `wts.h5.zip` into a folder; the path of the bundle.

    Raises RunError when nothing was trained here.
    """
    if not _last:
        raise RunError(
            f"cannot save a model to {out_prefix}: none was trained in this process; train one first"
        )
    return _last[0](Path(out_prefix))

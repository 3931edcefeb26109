"""How close an image is to its true object during a run, in two numbers for the progress bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import InputError
from ptycho.evaluation.judge import evaluate
from ptycho.image.canvas import Stitched

PSNR, SSIM = "val/diagnostics/phase_psnr_db_mean", "val/diagnostics/phase_ssim_mean"
#: metrics that are shown beside the bar of a run, and the words for them
SHOWN = {"train_loss": "train_loss", "val_loss": "val_loss", PSNR: "psnr", SSIM: "ssim"}


def shown(row: Mapping[str, float]) -> dict[str, float]:
    """The part of an epoch's metrics that is shown beside the progress bar."""
    return {word: row[name] for name, word in SHOWN.items() if name in row}


def mean_quality(qualities: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of `image_quality` over several images, without those that have no value."""
    names = {name for one in qualities for name in one}
    return {name: float(np.mean([one[name] for one in qualities if name in one])) for name in sorted(names)}


def image_quality(image: Stitched, truth: NDArray[Any] | None) -> dict[str, float]:
    """PSNR (dB) and SSIM of the phase by metric name, gauge removed; empty where the truth is not known.

    Also empty for an image that cannot be judged, because that must not stop a run. Time as `evaluate`.
    """
    if truth is None:
        return {}
    try:
        found = evaluate(image.object, truth, origin_xy=image.frame.origin_xy, coverage=image.coverage)
    except InputError:
        return {}
    return {PSNR: found.phase_psnr, SSIM: found.phase_ssim}

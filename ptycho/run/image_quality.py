"""How near an image is to its true object while a run goes on, in two numbers that fit beside a bar."""

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
    """What of an epoch's row stands beside the bar."""
    return {word: row[name] for name, word in SHOWN.items() if name in row}


def mean_quality(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of what `image_quality` says of several images, over those that it says something of."""
    names = {name for one in found for name in one}
    return {name: float(np.mean([one[name] for one in found if name in one])) for name in sorted(names)}


def image_quality(image: Stitched, truth: NDArray[Any] | None) -> dict[str, float]:
    """PSNR (dB) and SSIM of the phase by metric name, gauge removed; nothing where the truth is not known.

    Nothing as well for an image that cannot be judged, which must not stop a run. Time as `evaluate`.
    """
    if truth is None:
        return {}
    try:
        found = evaluate(image.object, truth, origin_xy=image.frame.origin_xy, coverage=image.coverage)
    except InputError:
        return {}
    return {PSNR: found.phase_psnr, SSIM: found.phase_ssim}

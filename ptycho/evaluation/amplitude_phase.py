"""The measures as pairs (amplitude, phase), the way the field's older programs ask for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ptycho.evaluation import metrics
from ptycho.evaluation.judge import evaluate


def eval_reconstruction(
    stitched_obj: ArrayLike, ground_truth: ArrayLike, **options: Any
) -> dict[str, tuple[float, float]]:
    """Pairs (amplitude, phase) of mae, mse, psnr, ssim, ms_ssim, and frc50 of the complex field twice.

    Kept for programs written for the field's older interface; axes of length one are dropped, options are
    those of `evaluate`, which new code should call.
    """
    result = evaluate(np.squeeze(np.asarray(stitched_obj)), np.squeeze(np.asarray(ground_truth)), **options)
    r, t = result.aligned.recon, result.aligned.reference
    phases = metrics.unwrapped_phases(r, t)
    errors = (np.abs(r) - np.abs(t), phases[0] - phases[1])
    return {
        "mae": (float(np.abs(errors[0]).mean()), float(np.abs(errors[1]).mean())),
        "mse": (float((errors[0] ** 2).mean()), float((errors[1] ** 2).mean())),
        "psnr": (result.amplitude_psnr, result.phase_psnr),
        "ssim": (result.amplitude_ssim, result.phase_ssim),
        "ms_ssim": (result.amplitude_ms_ssim, result.phase_ms_ssim),
        "frc50": (result.frc50, result.frc50),
    }

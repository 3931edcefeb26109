"""The measures as pairs (amplitude, phase), the way the field's older programs ask for them."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ptycho.evaluation import metrics
from ptycho.evaluation.frc import crossing
from ptycho.evaluation.judge import evaluate

logger = logging.getLogger(__name__)

#: an older option -> (values of it that mean what is done here, what is done)
_OLDER: dict[str, tuple[tuple[Any, ...], str]] = {
    "phase_align_method": (("plane",), "scale, phase ramp and shift are always fitted"),
    "frc_sigma": ((0,), "images are correlated as they are, under a Hann window"),
    "ms_ssim_sigma": ((0,), "images are compared as they are"),
    "lowpass_n": ((1,), "images are compared at every frequency"),
    "debug_save_images": ((False,), "no image is written; Evaluation.aligned holds them"),
}


def eval_reconstruction(
    stitched_obj: ArrayLike, ground_truth: ArrayLike, label: str = "", **options: Any
) -> dict[str, tuple[Any, Any]]:
    """Pairs (amplitude, phase) of mae, mse, psnr, ssim, ms_ssim; frc50, frc1over7 and the curve frc of the
    complex field, each twice.

    Kept for programs written for the field's older interface; axes of length one are dropped, options are
    those of `evaluate`, which new code should call. `frc` is the correlation of every ring (R,) up to
    Nyquist; frc50 and frc1over7 are the first frequency below 1/2 and 1/7, as a fraction of Nyquist. The
    older options phase_align_method, frc_sigma, ms_ssim_sigma, lowpass_n and debug_save_images have no
    effect, with a warning where they ask for something else than what is done; `label` has none.

    >>> truth = np.exp(1j * np.random.default_rng(0).random((32, 32)))
    >>> pairs = eval_reconstruction(truth[None, ..., None], truth)
    >>> len(pairs), pairs["frc50"]
    (8, (1.0, 1.0))
    """
    given = {name: options.pop(name) for name in _OLDER if name in options}
    for name, value in given.items():
        usual, done = _OLDER[name]
        if value is not None and value not in usual:
            logger.warning("eval_reconstruction: %s = %r has no effect: %s", name, value, done)
    result = evaluate(np.squeeze(np.asarray(stitched_obj)), np.squeeze(np.asarray(ground_truth)), **options)
    r, t = result.aligned.recon, result.aligned.reference
    phases = metrics.unwrapped_phases(r, t)
    errors = (np.abs(r) - np.abs(t), phases[0] - phases[1])
    curve = result.frc_curve
    seventh = crossing(curve, 1 / 7)
    return {
        "mae": (float(np.abs(errors[0]).mean()), float(np.abs(errors[1]).mean())),
        "mse": (float((errors[0] ** 2).mean()), float((errors[1] ** 2).mean())),
        "psnr": (result.amplitude_psnr, result.phase_psnr),
        "ssim": (result.amplitude_ssim, result.phase_ssim),
        "ms_ssim": (result.amplitude_ms_ssim, result.phase_ms_ssim),
        "frc50": (result.frc50, result.frc50),
        "frc1over7": (seventh, seventh),
        "frc": (curve.correlation, curve.correlation),
    }

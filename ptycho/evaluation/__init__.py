"""Judging: what physics leaves free is removed first, then come the numbers."""

from __future__ import annotations

from ptycho.evaluation.judge import Evaluation, eval_reconstruction, evaluate
from ptycho.evaluation.rfactor import RFactor, predicted_amplitudes, r_factor

__all__ = ["Evaluation", "RFactor", "eval_reconstruction", "evaluate", "predicted_amplitudes", "r_factor"]

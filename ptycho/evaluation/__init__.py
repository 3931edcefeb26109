"""Judging a reconstruction: first what the patterns do not determine is removed, then errors are computed."""

from __future__ import annotations

from ptycho.evaluation.amplitude_phase import eval_reconstruction
from ptycho.evaluation.judge import Evaluation, evaluate
from ptycho.evaluation.rfactor import RFactor, predicted_amplitudes, r_factor

__all__ = ["Evaluation", "RFactor", "eval_reconstruction", "evaluate", "predicted_amplitudes", "r_factor"]

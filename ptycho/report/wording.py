"""Numbers and names of a figure or a page as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ptycho.evaluation.judge import Evaluation


def metrics_line(metrics: Evaluation | Mapping[str, Any] | None) -> str:
    """The measures in one line of text; empty where there are none."""
    if metrics is None:
        return ""
    known = metrics.as_dict() if isinstance(metrics, Evaluation) else metrics
    names = (
        ("nrmse", "cNRMSE"),
        ("frc50", "FRC50"),
        ("amplitude_ssim", "amplitude SSIM"),
        ("phase_ssim", "phase SSIM"),
        ("r_factor", "R"),
    )
    return "   ".join(f"{label} {known[key]:.3f}" for key, label in names if known.get(key) is not None)


def words(name: str) -> str:
    """A metric's name as text: `val_loss` is "validation loss"."""
    return name.replace("_", " ").replace("val ", "validation ").replace("train ", "training ")


def length_text(metres: float) -> str:
    """A length in nm or µm."""
    return f"{metres * 1e9:.0f} nm" if metres < 1e-6 else f"{metres * 1e6:.2f} µm"

"""ePIE, the extended ptychographic iterative engine, on batches.

A. Maiden, J. Rodenburg, Ultramicroscopy 109, 1256 (2009), eqs. 6 and 7:

    O += s * conj(P_j) chi_j / max|P|^2,    P += s * conj(O_j) chi_j / max|O_j|^2

This is rPIE with alpha = 1: for a batch, a pixel that several windows reach is divided by their sum
instead of the peak, once that sum is larger, and chi_j is the modulus projection minus the wave
(noise = "amplitude").
"""

from __future__ import annotations

from typing import ClassVar

from ptycho_torch.refine.rpie import RPIE


class EPIE(RPIE):
    """noise: see noise.py; the paper's is "amplitude"."""

    name: ClassVar[str] = "epie"

    def __init__(self, noise: str = "amplitude") -> None:
        super().__init__(alpha=1.0, noise=noise)

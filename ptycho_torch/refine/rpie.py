"""rPIE, the regularised ptychographic iterative engine, on batches: the default rule.

A. Maiden, D. Johnson, P. Li, "Further improvements to the ptychographical iterative engine",
Optica 4, 736 (2017), eqs. 9 and 11, with sums over the batch normalised by the overlap on the canvas:

    O += s * sum_j conj(P_j) chi_j / D(sum_j |P_j|^2),    P += s * sum_j conj(O_j) chi_j / D(sum_j |O_j|^2)
    D(w) = w + alpha * max(w_max - w, 0)

chi_j is the residual of exit wave j. w_max is the peak of |P|^2 (object) and of the batch's sum (probe).
For one pattern D is the paper's (1 - alpha) w + alpha w_max; where windows overlap D never falls under the
overlap sum.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ptycho_torch.refine.forward import Exit, object_sums, predict, probe_sums, regularised, residual
from ptycho_torch.refine.noise import check_noise
from ptycho_torch.refine.operators import power
from ptycho_torch.refine.rule import Rule
from ptycho_torch.refine.scan import RefineScan
from ptycho_torch.refine.shared import add_up, own
from ptycho_torch.refine.state import RefineState


class RPIE(Rule):
    """alpha: regularisation of the object's denominator, (0, 1]; alpha_probe: the probe's; noise: a name."""

    name: ClassVar[str] = "rpie"

    def __init__(self, alpha: float = 0.3, alpha_probe: float | None = None, noise: str = "bounded") -> None:
        self.alpha = alpha
        self.alpha_probe = alpha if alpha_probe is None else alpha_probe
        self.noise = check_noise(noise)

    def step(
        self, scan: RefineScan, state: RefineState, index: Tensor, strength: float, with_probe: bool
    ) -> Exit:
        """One batch: both updates from the same residual. Four FFTs a pattern and mode."""
        exit = predict(scan, state, own(scan, index))
        change = residual(scan, exit, self.noise)
        overlap = object_sums(scan, state, index, exit, change)
        denominator = regularised(overlap.weight, self.alpha, power(state.probe).sum(0).max())
        of_probe = probe_sums(state, exit, change) if with_probe else ()
        add_up(scan, overlap.pulled, *of_probe)
        if of_probe:
            pulled_probe, weight_probe = of_probe
            denominator_probe = regularised(weight_probe, self.alpha_probe, weight_probe.max())
            state.probe += strength * pulled_probe / denominator_probe
        overlap.part.add_(strength * overlap.pulled / denominator)
        return exit

"""RAAR, relaxed averaged alternating reflections, on all exit waves at once.

D. R. Luke, Inverse Problems 21, 37 (2005). With the modulus projection Pi_M and the overlap projection Pi_O,
    psi <- [ beta Pi_O (2 Pi_M - 1) + (1 - 2 beta) Pi_M + beta ] psi .
beta = 1 is the difference map / Douglas-Rachford of Thibault et al., Ultramicroscopy 109, 338 (2009).
Object and probe of the overlap projection are found by alternating the two closed forms on y = (2 Pi_M -
1) psi:
    O = sum_j conj(P_j) y_j / sum_j |P_j|^2,    P = sum_j conj(O_j) y_j / sum_j |O_j|^2 ,
written as O += sum conj(P) (y - P O) / sum |P|^2, which holds the probe's sub-pixel shift exactly too.
Memory: all exit waves, M P N^2 complex numbers; of K processes each holds those of its own rows, and visits
the patterns of those rows. The stored array is (1 - 2 beta) Pi_M psi + beta psi; the overlap term is added at
the next visit of a pattern, from the object and probe at the end of that sweep.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ptycho_torch.refine.forward import Exit, predict, probe_sums, regularised
from ptycho_torch.refine.noise import factor
from ptycho_torch.refine.operators import fft2, ifft2, power, scatter_add
from ptycho_torch.refine.rule import Rule
from ptycho_torch.refine.scan import RefineScan
from ptycho_torch.refine.shared import add_up, at_first, first_row, own, within
from ptycho_torch.refine.state import RefineState


class RAAR(Rule):
    """beta in (0.5, 1]: relaxation. `strength` is not used: the projections have no step."""

    name: ClassVar[str] = "raar"
    batch_size: ClassVar[int] = 32

    def __init__(self, beta: float = 0.75) -> None:
        self.beta = beta
        self.waves: Tensor | None = None

    def start(self, scan: RefineScan, state: RefineState) -> None:
        """The first waves are those of the starting object and probe."""
        self._scan = scan
        rows = own(scan, torch.arange(scan.size, device=state.probe.device))
        self._begin = first_row(scan)
        shape = (len(rows), *state.probe.shape)
        self.waves = torch.zeros(shape, dtype=state.probe.dtype, device=state.probe.device)
        for index in rows.split(self.batch_size):
            exit = predict(scan, state, index)
            self.waves[index - self._begin] = (1 - self.beta) * exit.probes * exit.patches[:, None]
        self._clear(state)

    def _clear(self, state: RefineState) -> None:
        self._object = torch.zeros_like(state.object)
        self._light = torch.zeros_like(state.object.real)
        self._probe = torch.zeros_like(state.probe)
        self._window = torch.zeros_like(state.probe[0].real)

    def step(
        self, scan: RefineScan, state: RefineState, index: Tensor, strength: float, with_probe: bool
    ) -> Exit:
        """Project one batch and add it to the sums; object and probe are updated at the end of the sweep."""
        assert self.waves is not None
        if scan.team is not None:
            index = within(index, self._begin, len(self.waves))
        kept = index - self._begin
        exit = predict(scan, state, index)
        wave = self.waves[kept] + self.beta * exit.probes * exit.patches[:, None]
        far = fft2(wave, norm="ortho")
        model = power(far).sum(1)
        if state.background is not None:
            model = model + state.background
        moved = factor("amplitude", scan.counts[index], model, scan.floor, scan.good)
        change = ifft2(far * moved[:, None], norm="ortho")
        projected = wave + change
        self.waves[kept] = (1 - 2 * self.beta) * projected + self.beta * wave
        reflected = projected + change
        missing = reflected - exit.probes * exit.patches[:, None]
        scatter_add(self._object, (exit.probes.conj() * missing).sum(1), exit.corners_yx)
        scatter_add(self._light, power(exit.probes).sum(1), exit.corners_yx)
        if with_probe:
            pulled_probe, window = probe_sums(state, exit, missing)
            self._probe += pulled_probe
            self._window += window
        return exit

    def end_epoch(self, scan: RefineScan, state: RefineState, strength: float, with_probe: bool) -> None:
        """Object and probe from the sums; pixels without light keep their value."""
        of_probe = (self._probe, self._window) if with_probe else ()
        add_up(scan, self._object, self._light, *of_probe)
        floor = 1e-3 * self._light.max()
        # both correct the same residual: two full steps would overshoot their product by a factor of two
        share = 0.5 if with_probe else 1.0
        state.object += share * self._object / regularised(self._light, 1.0, floor)
        if with_probe:
            floor = 1e-3 * self._window.max()
            state.probe += share * self._probe / regularised(self._window, 1.0, floor)
        self._clear(state)

    def tensors(self) -> dict[str, Tensor]:
        """The stored waves of all rows in the first process, none in the others; all must call it."""
        assert self.waves is not None
        return {"kept": at_first(self._scan, self.waves)}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take the stored waves back, each process those of its rows."""
        assert self.waves is not None
        rows = tensors["kept"][self._begin : self._begin + len(self.waves)]
        self.waves = rows.to(self.waves.device, copy=self._scan.team is not None)

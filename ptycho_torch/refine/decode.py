"""The error of each position as a distribution over a grid of shifts, and one shift decoded from it.

Trying single positions only tells which of two positions is better. The likelihood of a pattern at every
shift of a grid gives the best position, its uncertainty and the mean position. Errors of the model (an object
blurred by wrong positions) count as noise: a large misfit at the best shift makes the likelihood flat. It
therefore becomes sharper as the object improves.

Two estimates of the shift are differentiable: the mean of the distribution, whose gradient is exact, or the
likeliest shift with the gradient of the mean in place of its own (straight-through:
Y. Bengio, N. Leonard, A. Courville, arXiv:1308.3432 (2013)).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ptycho.errors import ConfigError
from ptycho_torch.refine.operators import fft2, gather, power, shift_fourier, shift_ramps
from ptycho_torch.refine.portions import portions
from ptycho_torch.refine.scan import RefineScan
from ptycho_torch.refine.state import RefineState

KINDS = ("exp", "st")
_WINDOWS = 128  # exit waves in memory at a time
_NATS = 2.0  # minus the log-likelihood of counts is twice the squared difference of roots


@dataclass(frozen=True)
class Grid:
    """Square grid of shifts: -radius_px to radius_px in steps of step_px, x fastest.

    step_px is a whole number of px or one over a whole number, so that windows lie on few fractions.

    >>> Grid(2, 1).shifts().shape
    torch.Size([25, 2])
    """

    radius_px: float
    step_px: float = 1.0

    def __post_init__(self) -> None:
        parts = max(self.step_px, 1 / self.step_px if self.step_px > 0 else 0.0)
        if not self.step_px > 0 or abs(parts - round(parts)) > 1e-9 or self.radius_px < self.step_px:
            raise ConfigError(
                f"a grid of shifts to {self.radius_px:g} px in steps of {self.step_px:g} px: the step must "
                "be whole or one over a whole number, and the radius at least one step"
            )

    @property
    def reach(self) -> int:
        """Steps on each side of zero."""
        return int(self.radius_px / self.step_px + 1e-9)

    @property
    def side(self) -> int:
        """Shifts along each axis."""
        return 2 * self.reach + 1

    def shifts(self, device: torch.device | str = "cpu") -> Tensor:
        """All shifts (side^2, 2) float64 [x, y], px."""
        line = self.step_px * torch.arange(-self.reach, self.reach + 1, dtype=torch.float64, device=device)
        y, x = torch.meshgrid(line, line, indexing="ij")
        return torch.stack([x, y], -1).reshape(-1, 2)


def misfit_maps(scan: RefineScan, state: RefineState, index: Tensor, grid: Grid, around_xy: Tensor) -> Tensor:
    """Squared difference of roots, sum (sqrt I(s) - sqrt n)^2, of each pattern at each shift s: (B, G).

    index (B,); around_xy (B, 2) float64 px, where shift zero is. A shift whose window leaves the canvas has
    an infinite one. Differentiable in object and probe. Time: one FFT a pattern, mode and shift; the probe is
    moved once for each fraction of a px on the grid. Memory: 128 exit waves, beside the maps.
    """
    n = scan.n
    shifts = grid.shifts(around_xy.device)
    origin = torch.tensor(state.canvas.origin_xy, dtype=around_xy.dtype, device=around_xy.device)
    corners = around_xy - n // 2 - origin
    room = torch.tensor(state.canvas.shape[::-1], dtype=corners.dtype, device=corners.device) - n
    whole = (shifts + 1e-6).floor()
    left = ((shifts - whole) * 2.0**20).round() / 2.0**20
    found = torch.empty((len(index), len(shifts)), dtype=torch.float64, device=corners.device)
    roots = scan.of(index).sqrt()
    for fraction in torch.unique(left, dim=0):
        columns = torch.nonzero((left - fraction).abs().amax(1) < 1e-6)[:, 0]
        base = (corners + fraction).round()  # as the engine does: windows at whole pixels, nearest
        probes = shift_fourier(state.probe, shift_ramps(corners + fraction - base, n, state.probe.dtype))
        if state.intensity is not None:
            probes = probes * state.intensity[index, None, None, None]
        for row in range(len(index)):
            places = base[row] + whole[columns]
            inside = ((places >= 0) & (places <= room)).all(1)
            kept = places.clamp_min(0).minimum(room).flip(-1).to(torch.int64)
            for part in portions(torch.arange(len(columns), device=corners.device), _WINDOWS, state.probe):
                waves = probes[row] * gather(state.object, kept[part], n)[:, None]
                far = fft2(waves, norm="ortho")
                model = power(far[:, 0]) if far.shape[1] == 1 else power(far).sum(1)
                if state.background is not None:
                    model = model + state.background
                away = (model.clamp_min(1e-20).sqrt() - roots[row]).square()
                away = away if scan.good is None else away * scan.good
                found[row, columns[part]] = away.sum((-2, -1)).to(torch.float64)
            found[row, columns[~inside]] = float("inf")
    return found


def log_likelihood(maps: Tensor, numbers: float, noise: Tensor | float = 0.0) -> Tensor:
    """Log-likelihood (B, G) of misfits (B, G), 0 at the least, with the temperature of `Belief.of`.

    Shifts off the canvas count as misfit 0.
    """
    least = maps.detach().amin(1).nan_to_num(posinf=0.0)
    sharp = 1 / (1 / _NATS + (least - noise).clamp_min(0) / numbers)
    return -sharp[:, None] * (maps.masked_fill(maps.isinf(), 0.0) - least[:, None])


@dataclass(frozen=True)
class Belief:
    """Where each of B patterns may be: logits (B, G) float64 over the shifts (G, 2) px of a square grid.

    If no shift of a pattern lies on the canvas, all its shifts get the same probability.
    """

    grid: Grid
    shifts: Tensor
    logits: Tensor

    @staticmethod
    def of(
        maps: Tensor,
        grid: Grid,
        numbers: float,
        prior: Tensor | None = None,
        noise: Tensor | float = 0.0,
    ) -> Belief:
        """Belief from misfits (B, G): logits = prior - t maps, 1/t = 1/2 + (least misfit - noise) / numbers.

        t = 2 is the likelihood of counts. The part of the least misfit above `noise` (B,), the misfit of the
        counts, is an error of the model. It is treated as `numbers` independent errors: more of them make the
        distribution sharper. With noise 0 the whole misfit counts as an error of the model. t is a constant
        for the gradient. prior (B, G): log weights.
        """
        dark = maps.isinf()
        logits = log_likelihood(maps, numbers, noise)
        logits = logits if prior is None else logits + prior
        logits = logits.masked_fill(dark, float("-inf")).masked_fill(dark.all(1, keepdim=True), 0.0)
        return Belief(grid, grid.shifts(maps.device), logits)

    @property
    def probabilities(self) -> Tensor:
        """Weights of the shifts (B, G), each row of sum 1."""
        return torch.softmax(self.logits, 1)

    def mean(self) -> Tensor:
        """Expected shift (B, 2) px."""
        return self.probabilities @ self.shifts

    def best(self) -> Tensor:
        """Likeliest shift (B, 2) px: the highest point of the grid, moved to the top of the parabola through
        it and its two neighbours along each axis, by half a step at most."""
        side = self.grid.side
        place = self.logits.argmax(1)
        rows = torch.arange(len(place), device=place.device)
        found = self.shifts[place].clone()
        for axis, stride in ((0, 1), (1, side)):
            at = place // stride % side
            inner = (at > 0) & (at < side - 1)
            steps = torch.where(inner, stride, 0)
            before, here, after = (self.logits[rows, place + k * steps] for k in (-1, 0, 1))
            bend = before - 2 * here + after
            sure = inner & bend.isfinite() & (bend < 0)
            top = torch.where(sure, (before - after) / (2 * torch.where(sure, bend, -1.0)), 0.0)
            found[:, axis] += self.grid.step_px * top.clamp(-0.5, 0.5)
        return found

    def decoded(self, kind: str) -> Tensor:
        """One shift a pattern (B, 2) px: "exp" the mean; "st" the likeliest with the gradient of the mean."""
        if kind not in KINDS:
            raise ConfigError(f"position_decode='{kind}' is unknown; use {' or '.join(map(repr, KINDS))}")
        mean = self.mean()
        return mean if kind == "exp" else mean + (self.best() - mean).detach()

    def width_px(self) -> Tensor:
        """Root mean square distance of the distribution from its mean (B,), px."""
        weights = self.probabilities
        square = weights @ self.shifts.square().sum(1)
        return (square - (weights @ self.shifts).square().sum(1)).clamp_min(0).sqrt()

    def entropy_nats(self) -> Tensor:
        """Entropy of the distribution (B,): 0 for a certain shift, log G for a uniform distribution."""
        return torch.special.entr(self.probabilities).sum(1)


def noise_of(model: Tensor, good: Tensor | None = None) -> Tensor:
    """Expected misfit (B,) of a correct model (B, N, N): the variance of sqrt(counts) is 1/4, less for few
    counts.

    About (1 - exp(-8 I)) / 4 a pixel; between 0.3 and 3 counts the true one is up to 1.8 times that.
    """
    each = 0.25 * (1 - torch.exp(-8 * model))
    each = each if good is None else each * good
    return each.sum((-2, -1)).to(torch.float64)


def prior_of(around_xy: Tensor, home_xy: Tensor, shifts: Tensor, deviation_px: float) -> Tensor:
    """Log weights (B, G): Gaussian of `deviation_px` on each axis around the nominal positions (B, 2)."""
    away = around_xy[:, None] + shifts - home_xy[:, None]
    return -away.square().sum(-1) / (2 * deviation_px**2)

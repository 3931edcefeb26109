"""Object, probe, positions and the scan's strain solved for together, by damped Gauss-Newton steps.

If a position is corrected while the object is fixed, the error that this pattern has left in the object
resists the correction. A strain of the whole scan is resisted by the whole object. With alternating updates
such errors take hundreds of sweeps. Here one linear least-squares problem updates all unknowns together.
Matrix-free Levenberg-Marquardt as in S. Kandel et al., Opt. Express 29, 23019 (2021), with Fisher scoring:
    minimise  sum (n - I - J d)^2 / (I + f) + |O + dO|^2_S + lambda |d|^2   over  d = (dO, dP, dx, S)
by conjugate gradients, each unknown in units of its own curvature. The score n - I has no bias for few
photons. The difference of square roots has a bias, which hides a strain of 1 % at 25 counts a pixel. |.|_S is
a Gaussian prior with the power law of the object, so that object and positions do not fit the noise together.
S (2 x 2) strains positions and object about the centre of the scan. It adds no new degree of freedom, but the
other unknowns can move only a short way in this direction in one step. The derivative by S is the change of
each window under the strain; it is exact if the probe fits into its window. It deliberately ignores the tails
of the probe that a Fourier shift wraps around. A strain written as shifts of object and positions includes
these tails; four steps with it go only half as far.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ptycho_torch.refine.forward import predict
from ptycho_torch.refine.noise import misfit
from ptycho_torch.refine.operators import fft2, gather, ifft2, power, scatter_add
from ptycho_torch.refine.portions import fits, portions
from ptycho_torch.refine.scan import RefineScan
from ptycho_torch.refine.search import clip_to_canvas
from ptycho_torch.refine.shared import add_up, own, total
from ptycho_torch.refine.state import RefineState
from ptycho_torch.refine.strain import slopes, stretch
from ptycho_torch.refine.unknowns import clipped

_FLOOR = 1e-2  # f, in mean counts a pixel: the least counts assumed for the weight of a dark pixel
_LARGEST_STRAIN = 0.01
_CACHED = 2**23  # pattern pixels up to which a step stores its exit waves instead of recomputing them
_CACHED_BYTES = 44  # of a pattern pixel with one mode in `_Batch`
_BATCH = 48


class Move(NamedTuple):
    """A change of all unknowns: object (H, W), probe (P, N, N), positions (M, 2) px, strain (4,)."""

    object: Tensor
    probe: Tensor
    positions: Tensor
    strain: Tensor

    def plus(self, factor: float, other: Move) -> Move:
        """self + factor * other."""
        return Move(*(mine + factor * theirs for mine, theirs in zip(self, other, strict=True)))

    def times(self, other: Move) -> Move:
        """Unknown by unknown."""
        return Move(*(mine * theirs for mine, theirs in zip(self, other, strict=True)))

    def dot(self, other: Move) -> float:
        """Real inner product."""
        return sum(
            float((mine.conj() * theirs).real.sum(dtype=torch.float64))
            for mine, theirs in zip(self, other, strict=True)
        )


@dataclass
class _Batch:
    """One batch of the linear model: indices, corners, ramps, windows, probes, their spectra, and 2 Psi /
    sqrt(I + f). Its inner product with a change of the far wave is the weighted change of I.
    """

    index: Tensor
    corners_yx: Tensor
    ramps: Tensor
    patches: Tensor
    probes: Tensor
    spectra: Tensor
    waves: Tensor
    missing: Tensor


class Linear:
    """The model around one state: J d, its adjoint, and the curvature of each unknown alone."""

    def __init__(
        self,
        scan: RefineScan,
        state: RefineState,
        index: Tensor,
        *,
        probe: bool,
        strain: bool,
        image: bool = True,
    ) -> None:
        self.scan, self.state, self.index = scan, state, own(scan, index)
        self.floor = _FLOOR * scan.mean_counts / scan.n**2
        self.image = image
        real = state.probe.real.dtype
        k = -2j * torch.pi * torch.fft.fftfreq(scan.n, dtype=real, device=index.device)
        self._k = (k[None, :], k[:, None])
        line = torch.arange(scan.n, dtype=real, device=index.device) - scan.n // 2
        self._line = (line[None, :], line[:, None])
        self._slopes = slopes(state.object)
        self._cached_batches: list[_Batch] | None = None
        waves = len(self.index) * state.probe.numel()
        if waves <= _CACHED and fits(_CACHED_BYTES * waves, index.device.type):
            self._cached_batches = list(self._batches())
        self._stiff = self._dispersion() * object_prior(state)
        self.unit = self._units(probe, strain)

    def _batches(self) -> Iterator[_Batch]:
        """The linear model, batch by batch: stored, or recomputed if storage would need much memory."""
        if self._cached_batches is not None:
            yield from self._cached_batches
            return
        spectrum = fft2(self.state.probe)
        for part in portions(self.index, _BATCH, self.state.probe):
            exit = predict(self.scan, self.state, part)
            weight = (exit.intensity + self.floor).rsqrt()
            if self.scan.good is not None:
                weight = weight * self.scan.good
            spectra = spectrum[None] * exit.ramps[:, None]
            if self.state.intensity is not None:
                spectra = spectra * self.state.intensity[part, None, None, None]
            missing = (self.scan.counts[part] - exit.intensity) * weight
            waves = 2 * exit.far * weight[:, None]
            yield _Batch(
                part, exit.corners_yx, exit.ramps, exit.patches, exit.probes, spectra, waves, missing
            )

    def _dispersion(self) -> float:
        """Variance of the counts over that of the model, 1 for photon noise alone: model errors count as
        noise.
        """
        found, expected = 0.0, 1e-30
        for batch in self._batches():
            found += float(batch.missing.square().sum(dtype=torch.float64))
            expected += float(power(batch.waves).sum(dtype=torch.float64)) / 4
        found, expected = total(self.scan, found, expected)
        return found / expected

    def _bent(self, batch: _Batch) -> list[Tensor]:
        """Change of the windows for a unit of strain xx, xy, yx, yy, 4 x (B, N, N)."""
        origin = torch.tensor(self.state.canvas.origin_xy, device=self.index.device)
        middle = self.state.positions_xy[batch.index] - origin - self.scan.n // 2 - batch.corners_yx.flip(-1)
        part = middle.to(self._line[0].dtype)[:, :, None, None]
        across, down = self._line[0] - part[:, 0], self._line[1] - part[:, 1]
        found = []
        for slope in self._slopes:
            window = gather(slope, batch.corners_yx, self.scan.n)
            found += [-window * across, -window * down]
        return found

    def _units(self, probe: bool, strain: bool) -> Move:
        """1 / sqrt(curvature) of each unknown alone, 0 for a fixed one."""
        state, real = self.state, self.state.probe.real.dtype
        light = torch.zeros(state.object.shape, dtype=real, device=self.index.device)
        seen = torch.zeros_like(state.probe[0].real)
        moves = torch.zeros_like(state.positions_xy, dtype=real)
        bends = torch.zeros(4, dtype=real, device=self.index.device)
        for batch in self._batches():
            scatter_add(light, power(batch.probes).sum(1), batch.corners_yx)
            seen += power(batch.patches).sum(0)
            for axis, k in enumerate(self._k):
                wave = ifft2(batch.spectra * k) * batch.patches[:, None]
                moves[batch.index, axis] = self._change(batch, wave).square().sum((-2, -1))
            if strain:
                changes = [self._change(batch, batch.probes * bent[:, None]) for bent in self._bent(batch)]
                bends += torch.stack([change.square().sum() for change in changes])
        add_up(self.scan, light, seen, moves, bends)
        bare = (1e-3 * 2 * light.max(), 1e-3 * 2 * seen.max())
        return Move(
            (2 * light + bare[0] + self._stiff.mean()).rsqrt() * (1.0 if self.image else 0.0),
            (2 * seen + bare[1]).rsqrt() * (1.0 if probe else 0.0),
            _inverse_root(moves),
            _inverse_root(bends),
        )

    def _change(self, batch: _Batch, wave: Tensor) -> Tensor:
        """Weighted change (B, N, N) of the counts for a change (B, P, N, N) of the exit waves."""
        far = fft2(wave, norm="ortho")
        return (batch.waves.real * far.real + batch.waves.imag * far.imag).sum(1)

    def zero(self) -> Move:
        """No move."""
        state = self.state
        return Move(
            torch.zeros_like(state.object),
            torch.zeros_like(state.probe),
            torch.zeros_like(self.unit.positions),
            torch.zeros_like(self.unit.strain),
        )

    def forward(self, batch: _Batch, move: Move, probe_spectrum: Tensor) -> Tensor:
        """J d of one batch, (B, N, N)."""
        shift = move.positions[batch.index, :, None, None, None]
        spectra = probe_spectrum[None] * batch.ramps[:, None]
        if self.state.intensity is not None:
            spectra = spectra * self.state.intensity[batch.index, None, None, None]
        spectra = spectra + batch.spectra * (self._k[0] * shift[:, 0] + self._k[1] * shift[:, 1])
        wave = ifft2(spectra) * batch.patches[:, None]
        if self.image or bool(move.strain.any()):
            window = gather(move.object, batch.corners_yx, self.scan.n)
            if bool(move.strain.any()):
                window = window + sum(
                    s * bent for s, bent in zip(move.strain, self._bent(batch), strict=True)
                )
            wave = wave + batch.probes * window[:, None]
        return self._change(batch, wave)

    def adjoint(self, batch: _Batch, change: Tensor, sums: Move, probe_spectrum: Tensor) -> None:
        """J^T change of one batch, added to `sums`; the probe's part, as a spectrum, to `probe_spectrum`."""
        wave = ifft2(batch.waves * change[:, None], norm="ortho")
        strained = bool(self.unit.strain.any())
        if self.image or strained:
            pulled = (batch.probes.conj() * wave).sum(1)
        if self.image:
            scatter_add(sums.object, pulled, batch.corners_yx)
        spectra = fft2(batch.patches.conj()[:, None] * wave)
        along = (batch.spectra.conj() * spectra).sum(1) / self.scan.n**2
        for axis, k in enumerate(self._k):
            sums.positions[batch.index, axis] = (k.conj() * along).real.sum((-2, -1))
        if strained:
            for entry, bent in enumerate(self._bent(batch)):
                sums.strain[entry] += (bent.conj() * pulled).real.sum()
        spectra = spectra * batch.ramps.conj()[:, None]
        if self.state.intensity is not None:
            spectra = spectra * self.state.intensity[batch.index, None, None, None]
        probe_spectrum += spectra.sum(0)

    def gradient(self) -> Move:
        """Downhill direction of half the weighted squares and the prior, in the unknowns' own units."""
        sums, spectrum = self.zero(), torch.zeros_like(self.state.probe)
        for batch in self._batches():
            self.adjoint(batch, batch.missing, sums, spectrum)
        add_up(self.scan, *sums, spectrum)
        sums.object.sub_(self._pull(self.state.object))
        return self._own_units(sums, spectrum)

    def normal(self, move: Move) -> Move:
        """The normal matrix times a move in the unknowns' own units: 4 FFTs a pattern and mode."""
        plain = move.times(self.unit)
        sums, spectrum = self.zero(), torch.zeros_like(self.state.probe)
        moved = fft2(plain.probe)
        for batch in self._batches():
            self.adjoint(batch, self.forward(batch, plain, moved), sums, spectrum)
        add_up(self.scan, *sums, spectrum)
        sums.object.add_(self._pull(plain.object))
        return self._own_units(sums, spectrum)

    def _own_units(self, sums: Move, probe_spectrum: Tensor) -> Move:
        """A sum over batches in the units of each unknown, without the undetermined common shift of
        positions.
        """
        there = sums._replace(probe=ifft2(probe_spectrum)).times(self.unit)
        unit = self.unit.positions
        common = (there.positions * unit).sum(0) / unit.square().sum(0).clamp_min(1e-30)
        return there._replace(positions=there.positions - unit * common)

    def _pull(self, image: Tensor) -> Tensor:
        return ifft2(self._stiff * fft2(image))

    def solve(self, iterations: int, damping: float) -> Move:
        """The damped least-squares move by conjugate gradients, in px and in the units of each field."""
        rest = self.gradient()
        found, along, size = self.zero(), rest, rest.dot(rest)
        for _ in range(iterations):
            if not size > 0:
                break
            image = self.normal(along).plus(damping, along)
            step = size / along.dot(image)
            found, rest = found.plus(step, along), rest.plus(-step, image)
            before, size = size, rest.dot(rest)
            along = rest.plus(size / before, along)
        return found.times(self.unit)

    def loss(self, state: RefineState) -> float:
        """Poisson likelihood of n + f under I + f, and the prior, up to a constant."""
        prior = 0.5 * float((self._stiff * power(fft2(state.object, norm="ortho"))).sum())
        seen = 0.0
        for part in portions(self.index, _BATCH, state.probe):
            model, counts = predict(self.scan, state, part).intensity, self.scan.counts[part]
            lost = model - (counts + self.floor) * torch.log(model + self.floor)
            lost = lost if self.scan.good is None else lost * self.scan.good
            seen += float(lost.sum(dtype=torch.float64))
        return prior + total(self.scan, seen)[0]


def _inverse_root(curvature: Tensor) -> Tensor:
    return torch.where(curvature > 0, curvature.clamp_min(1e-30).rsqrt(), 0.0)


def object_prior(state: RefineState) -> Tensor:
    """Stiffness 2 / S(k) (H, W) of the object's Fourier coefficients (ortho); S = a k^-b is its power
    spectrum.

    The law is fitted to rings between 1/50 and 0.3 cycles a px, b within 2 to 4, as for most images.
    """
    height, width = state.object.shape
    ky = torch.fft.fftfreq(height, dtype=torch.float64)[:, None]
    kx = torch.fft.fftfreq(width, dtype=torch.float64)[None, :]
    k = (ky.square() + kx.square()).sqrt()
    size = power(fft2(state.object, norm="ortho")).to("cpu", torch.float64)
    edges = np.geomspace(0.02, 0.3, 13)
    rings = [(k >= low) & (k < high) for low, high in zip(edges[:-1], edges[1:], strict=True)]
    at = [math.log(low * high) / 2 for low, high in zip(edges[:-1], edges[1:], strict=True)]
    found = [(x, float(size[ring].mean())) for x, ring in zip(at, rings, strict=True) if bool(ring.any())]
    xs = np.array([x for x, s in found if s > 0])
    ys = np.array([math.log(s) for _, s in found if s > 0])
    if len(xs) < 3 or ys.max() < math.log(1e-12):
        return torch.zeros_like(state.object.real)
    fall = float(np.clip(-np.polyfit(xs, ys, 1)[0], 2.0, 4.0))
    scale = math.exp(float((ys + fall * xs).mean()))
    return (2 * k**fall / scale).to(state.object.real)


def joint_sweep(
    scan: RefineScan,
    state: RefineState,
    number: int,
    count: int,
    *,
    longest_px: float,
    with_probe: bool,
    with_strain: bool,
) -> float:
    """Step `number` (0-based) of `count`, the last two short; returns the misfit before the step.

    Fisher scoring oscillates about the optimum by a fraction of the noise; the short steps average this.
    """
    last = number >= count - 2
    return joint_step(
        scan,
        state,
        iterations=20,
        damping=3e-2 if last else 3e-4,
        gain=0.5 if last else 1.0,
        longest_px=longest_px,
        with_probe=with_probe,
        with_strain=with_strain,
    )


def joint_step(
    scan: RefineScan,
    state: RefineState,
    *,
    iterations: int = 15,
    damping: float = 1e-3,
    gain: float = 1.0,
    longest_px: float = 1.0,
    with_probe: bool = True,
    with_strain: bool = True,
    with_object: bool = True,
) -> float:
    """One Gauss-Newton step of object, probe, positions (and strain), in place; returns the misfit before it.

    An unknown whose `with_` is False is held. Patterns marked as lost are left out. No position moves further
    than `longest_px`; the step is shortened until the likelihood rises. Time: about 4 to 7 FFTs a pattern,
    mode and iteration. Memory: one batch, or 5 exit waves a pattern where they are few (`Linear`).
    """
    index = torch.arange(scan.size, device=scan.counts.device)
    if state.lost is not None:
        index = index[~state.lost]
    linear = Linear(scan, state, index, probe=with_probe, strain=with_strain, image=with_object)
    before = linear.loss(state)
    wrong = sum(
        float(misfit(scan.counts[part], predict(scan, state, part).intensity, scan.good).sum())
        for part in portions(linear.index, _BATCH, state.probe)
    )
    wrong = total(scan, wrong)[0]
    move = linear.solve(iterations, damping)
    for _ in range(4):
        tried = moved(scan, state, move, gain, longest_px)
        if linear.loss(tried) < before:
            state.object, state.probe, state.positions_xy = tried.object, tried.probe, tried.positions_xy
            break
        gain *= 0.4
    return wrong


def moved(scan: RefineScan, state: RefineState, move: Move, gain: float, longest_px: float) -> RefineState:
    """The state after `gain` times a move."""
    steps = clipped(gain * move.positions.to(state.positions_xy.dtype), longest_px)
    tried = replace(
        state,
        object=state.object + gain * move.object,
        probe=state.probe + gain * move.probe,
        positions_xy=state.positions_xy + steps,
    )
    bend = (gain * move.strain.to(steps.dtype).reshape(2, 2)).clamp(-_LARGEST_STRAIN, _LARGEST_STRAIN)
    if bool((bend != 0).any()):
        stretch(tried, torch.eye(2, dtype=bend.dtype, device=bend.device) + bend)
    tried.positions_xy = clip_to_canvas(scan, state, tried.positions_xy)
    return tried

"""The results of a reconstruction, after each sweep and at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from ptycho.io.geometry import Geometry
from ptycho_torch.refine.forward import predict
from ptycho_torch.refine.noise import misfit
from ptycho_torch.refine.portions import portions
from ptycho_torch.refine.rule import Rule
from ptycho_torch.refine.scan import RefineScan
from ptycho_torch.refine.shared import add_up, own
from ptycho_torch.refine.state import RefineState
from ptycho_torch.refine.unknowns import illumination

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class IterationState:
    """After a sweep: the live state (clone it to keep it), sweep, R during it, step factor, seconds."""

    state: RefineState
    epoch: int
    epochs: int
    r: float
    strength: float
    seconds: float
    rule: Rule

    @property
    def seconds_left(self) -> float:
        """Remaining time, from the mean time of a sweep."""
        return self.seconds / max(self.epoch, 1) * (self.epochs - self.epoch)


@dataclass(frozen=True)
class RefineResult:
    """A reconstruction in NumPy arrays.

    object (H, W) complex64, its [0, 0] at object pixel origin_xy [x, y]; probe (P, N, N) complex64 in
    sqrt(counts), strongest mode first; positions_xy (M, 2) float64 px; coverage (H, W) float32 counts
    through an open object, relative to its peak; r_map (M,) and r: sqrt(sum (|F| - sqrt I)^2 / sum I) of
    the final object re-diffracted; history: one row a sweep (epoch, r, strength, seconds); intensity (M,),
    background (N, N) centred, or None; stopped: "sweeps", "tolerance", "callback" or "interrupted"; began:
    the first object ("flat", "coarse", "coarse amplitude" or "as given"); variation: last weight of total
    variation, learned: share of the learned prior, None if they were not tried; unsure (M,) bool: uncertain
    positions after a decoding search, or None; geometry: wavelength, distance and pixel sizes of the scan, as
    far as known.
    """

    object: np.ndarray
    probe: np.ndarray
    origin_xy: tuple[int, int]
    positions_xy: np.ndarray
    coverage: np.ndarray
    r: float
    r_map: np.ndarray
    history: list[dict[str, float]] = field(default_factory=list)
    intensity: np.ndarray | None = None
    background: np.ndarray | None = None
    stopped: str = "sweeps"
    began: str = ""
    variation: float | None = None
    unsure: np.ndarray | None = None
    learned: float | None = None
    geometry: Geometry = Geometry()

    @property
    def r_factor(self) -> float:
        """`r` under the name used in files and other results."""
        return self.r

    @property
    def positions_px(self) -> np.ndarray:
        """`positions_xy` under the name used in files and other results."""
        return self.positions_xy

    @property
    def object_pixel_size_m(self) -> float | None:
        """Side of an object pixel, m; None if the scan lacks the data for it."""
        return self.geometry.object_pixel_size_m(int(self.probe.shape[-1]))

    def plot(self, pixel_size_m: float | None = None) -> Figure:
        """Amplitude, phase and both as one colour, in the well lit area, as a matplotlib Figure.

        pixel_size_m: side of an object pixel, None: the value of the scan.
        """
        from ptycho.report.showing import draw_reconstruction

        size = self.object_pixel_size_m if pixel_size_m is None else pixel_size_m
        title = f"R = {self.r:.4f}"
        return draw_reconstruction(self.object, coverage=self.coverage, title=title, pixel_size_m=size)

    def _repr_html_(self) -> str:
        from ptycho.report.showing import image_html

        sweeps = f"{len(self.history)}, start: {self.began}"
        numbers = {"R": f"{self.r:.4f}", "sweeps": sweeps}
        size = self.object_pixel_size_m
        return image_html(self.object, self.coverage, pixel_size_m=size, numbers=numbers)


def r_factors(scan: RefineScan, state: RefineState, batch: int = 64) -> tuple[float, np.ndarray]:
    """R of the whole scan and of each pattern (M,): sqrt(sum (sqrt(model) - sqrt(counts))^2 / sum counts)."""
    wrong = torch.zeros(scan.size, dtype=torch.float64)
    total = torch.zeros(scan.size, dtype=torch.float64)
    every = torch.arange(scan.size, device=scan.counts.device)
    for index in portions(own(scan, every), batch, state.probe):
        counts = scan.counts[index]
        wrong[index.cpu()] = misfit(counts, predict(scan, state, index).intensity, scan.good).cpu()
        total[index.cpu()] = counts.sum((-2, -1), dtype=torch.float64).cpu()
    add_up(scan, wrong, total)
    whole = float((wrong.sum() / total.sum()).sqrt())
    return whole, (wrong / total.clamp_min(1e-30)).sqrt().numpy()


def make_result(
    scan: RefineScan, state: RefineState, history: list[dict[str, float]], stopped: str, began: str = ""
) -> RefineResult:
    """Measure a state and copy it out of torch. One forward pass over the scan."""
    whole, each = r_factors(scan, state)
    light = illumination(scan, state)
    background = None if state.background is None else torch.fft.fftshift(state.background).cpu().numpy()
    return RefineResult(
        object=state.object.cpu().numpy().copy(),
        probe=state.probe.cpu().numpy().copy(),
        origin_xy=state.canvas.origin_xy,
        positions_xy=state.positions_xy.cpu().numpy().copy(),
        coverage=(light / light.max()).cpu().numpy().astype(np.float32),
        r=whole,
        r_map=each,
        history=history,
        intensity=None if state.intensity is None else state.intensity.cpu().numpy().copy(),
        background=background,
        stopped=stopped,
        began=began,
        variation=None if state.variation is None else float(state.variation[0]),
        learned=None if state.learned is None else float(state.learned[0]),
        geometry=scan.geometry,
    )

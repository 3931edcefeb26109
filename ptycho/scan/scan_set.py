"""Several scans that train one network. Each has its own probe and scale; their groups are numbered in one
list.

A batch holds groups of one scan only, because a batch has one probe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import DataError
from ptycho.io.geometry import Geometry
from ptycho.scan import normalization
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.grouping import Index
from ptycho.scan.raw_data import RawData

Scan = RawData | PtychoDataContainer

#: overlaps that differ by less mean the same probe guess, stored with different rounding
_SAME_OVERLAP = 1e-6


@dataclass(frozen=True, eq=False)
class ScanSet:
    """Grouped scans in order; `numbers` says under which number the model knows each.

    Group g of the set is group g - first[k] of container k, where first[k] <= g < first[k + 1].
    """

    containers: tuple[PtychoDataContainer, ...]
    numbers: tuple[int, ...]

    @classmethod
    def of(cls, scans: PtychoDataContainer | ScanSet | Sequence[PtychoDataContainer]) -> ScanSet:
        """A set of one container or several, numbered from 0; a set passes through.

        Raises DataError where there is none, or where patterns or groups are not of one size.
        """
        if isinstance(scans, ScanSet):
            return scans
        made = (scans,) if isinstance(scans, PtychoDataContainer) else tuple(scans)
        if not made:
            raise DataError("no scan to train on: give at least one")
        for number, one in enumerate(made):
            if one.N != made[0].N or one.gridsize != made[0].gridsize:
                ours, theirs = (f"{c.N} x {c.N} px, {c.gridsize**2} a group" for c in (made[0], one))
                raise DataError(
                    f"scan {number} has patterns of {theirs}, scan 0 of {ours}: one model takes one size"
                )
        return cls(made, tuple(range(len(made))))

    def __len__(self) -> int:
        return int(self.first[-1])

    @property
    def first(self) -> Index:
        """(scans + 1,) the number of each scan's first group, and of all groups."""
        return np.cumsum([0, *(len(one) for one in self.containers)]).astype(np.int64)

    @property
    def n_patterns(self) -> int:
        """Patterns of all scans."""
        return sum(len(one.patterns) for one in self.containers)

    def where(self, groups: Index) -> tuple[int, Index]:
        """(place in `containers`, group numbers there) of a batch, whose groups are of one scan."""
        first = self.first
        place = int(np.searchsorted(first, groups[0], side="right")) - 1
        return place, groups - first[place]

    @property
    def centres_xy(self) -> NDArray[np.float64]:
        """(groups, 2) mean position of every group in its own scan's frame, [x, y] px."""
        return np.concatenate([_group_centres(one) for one in self.containers])

    def __repr__(self) -> str:
        sizes = ", ".join(str(len(one.patterns)) for one in self.containers)
        return f"ScanSet({len(self.containers)} scans of {sizes} patterns)"


@dataclass(frozen=True)
class KnownScan:
    """What a model stores of one training scan.

    probe (P, N, N) in the network's gauge; x_scale, nphotons, probe_factor of `ptycho.scan.normalization`;
    log_scale, the logarithm of the trained correction of the scale; bad_pixels (N, N); guess (P, N, N), the
    probe guess of the scan, by which similar scans are found; geometry, what the scan says of its metres.
    """

    probe: NDArray[np.complex64]
    x_scale: float
    nphotons: float
    probe_factor: float
    bad_pixels: NDArray[np.bool_]
    guess: NDArray[np.complex64]
    log_scale: float = 0.0
    geometry: Geometry = Geometry()

    @classmethod
    def of(
        cls, container: PtychoDataContainer, probe: NDArray[np.complex64], probe_factor: float
    ) -> KnownScan:
        """A training scan, with the probe that it starts from."""
        none = np.zeros((container.N, container.N), bool)
        return cls(
            probe=probe,
            x_scale=container.x_scale,
            nphotons=container.nphotons,
            probe_factor=probe_factor,
            bad_pixels=none if container.bad_pixels is None else np.asarray(container.bad_pixels, bool),
            guess=container.probe,
            geometry=container.geometry,
        )


def stacked(modes: Sequence[NDArray[Any]]) -> NDArray[np.complex64]:
    """Probes (P_k, N, N) as one array (S, P, N, N) complex64; a scan with fewer modes gets modes of zeros.

    A mode of zeros has no gradient, so it stays zero.

    >>> stacked([np.ones((1, 4, 4)), np.ones((2, 4, 4))]).shape
    (2, 2, 4, 4)
    """
    most = max(len(probe) for probe in modes)
    padded = [np.pad(probe, ((0, most - len(probe)), (0, 0), (0, 0))) for probe in modes]
    return np.stack(padded).astype(np.complex64)


def probe_overlap(one: NDArray[Any], other: NDArray[Any]) -> float:
    """|<a, b>| / (|a| |b|) of the strongest modes of two probes (P, N, N): 1 where equal but for a factor.

    >>> probe = np.random.default_rng(0).standard_normal((1, 4, 4))
    >>> round(probe_overlap(probe, 3j * probe), 9), probe_overlap(probe, 0 * probe)
    (1.0, 0.0)
    """
    a, b = (max(modes, key=lambda mode: float(np.sum(np.abs(mode) ** 2))).ravel() for modes in (one, other))
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(abs(np.vdot(a, b))) / norm if norm > 0 else 0.0


def most_alike(
    guess: NDArray[Any],
    x_scale: float,
    known: Sequence[tuple[NDArray[Any], float]],
) -> int:
    """Number of the training scan that was measured most like another scan.

    `guess` (P, N, N) and `x_scale` are the probe guess and the normalisation of the other scan; `known` holds
    those of the training scans. The scan with the most similar probe is chosen. Among equal probes it is the
    one with the closest mean amplitude, then the first. A scan that was used in training is therefore found
    again.
    """
    overlaps = np.array([probe_overlap(guess, probe) for probe, _ in known])
    distances = np.array([abs(np.log(x_scale / scale)) for _, scale in known])
    nearest = np.flatnonzero(overlaps >= overlaps.max() - _SAME_OVERLAP)
    return int(nearest[np.argmin(distances[nearest])])


def acquisition_of(scan: Scan) -> tuple[NDArray[np.complex64], float]:
    """The data that identify a measurement: its probe guess (P, N, N) and its own x_scale. Time O(M N^2)."""
    if isinstance(scan, PtychoDataContainer):
        return scan.probe, scan.x_scale
    return scan.probe_modes, normalization.x_scale(scan.amplitude_by_rows(), scan.bad_pixels)


def _group_centres(container: PtychoDataContainer) -> NDArray[np.float64]:
    """(B, 2) mean position of every group, [x, y] px."""
    return np.asarray(container.positions_px[container.nn_indices].mean(1))

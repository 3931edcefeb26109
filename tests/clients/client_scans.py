"""Simulated scans as the files that ptychodus reads, and what it gives back compared with the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptycho.evaluation.gauge import remove_gauge
from ptycho.io.ptychodus_diffraction import Diffraction, write_diffraction
from ptycho.io.ptychodus_frame import ObjectFrame, detector_pixel_m
from ptycho.io.ptychodus_product import Metadata, Product, write_product
from ptycho.simulation import Scenario, Simulated, simulate

ENERGY_EV, DISTANCE_M, PIXEL_M, CENTRE_M = 8000.0, 1.0, 1e-8, (3e-6, -1e-6)


@dataclass(frozen=True)
class Case:
    """One scan: side of a pattern, incoherent modes, whether the object is square, and the number of scan
    positions: what a network learns an image from in seconds."""

    N: int
    modes: int
    square: bool
    positions: int = 144

    def __str__(self) -> str:
        return f"{self.N}px-{self.modes}mode-{'square' if self.square else 'wide'}-{self.positions}"

    def simulate(self) -> Simulated:
        """uint16 counts, one pixel in two hundred dead, the probe known."""
        return simulate(
            Scenario(
                N=self.N,
                n_positions=self.positions,
                step_px=5.0 if self.N == 64 else 6.0,
                aspect=1.0 if self.square else 1.6,
                photons=2e5,
                n_modes=self.modes,
                dead_fraction=0.005,
                probe_error=0.0,
            )
        )


def write_scan(folder: Path, scan: Simulated, *, truth: bool) -> Product:
    """diffraction.h5 and product.h5; the object in the product is the truth (for labels) or flat."""
    raw = scan.raw
    assert raw.diff3d.max() < 2**16
    obj = scan.object_true if truth else np.ones_like(scan.object_true)
    frame = ObjectFrame(obj.shape, (PIXEL_M, PIXEL_M), CENTRE_M)
    metres = frame.to_metres(raw.positions_px, raw.N)
    indexes = np.arange(raw.n_positions)
    product = Product(
        obj,
        frame,
        scan.probe_true,
        indexes,
        metres[:, 0],
        metres[:, 1],
        Metadata("scan", "", DISTANCE_M, ENERGY_EV, scan.scenario.photons),
    )
    detector = detector_pixel_m(ENERGY_EV, DISTANCE_M, raw.N, PIXEL_M)
    folder.mkdir(parents=True, exist_ok=True)
    write_product(folder / "product.h5", product)
    write_diffraction(
        folder / "diffraction.h5",
        Diffraction(raw.diff3d.astype(np.uint16), indexes, raw.bad_pixels, (detector, detector)),
    )
    return product


@dataclass(frozen=True)
class Agreement:
    """How an image lies on the truth: `correlation` without the mean and after the shift is removed,
    `orientation` the best of the eight turns and mirrors (0 is none), `shift_px` (y, x) of the peak."""

    correlation: float
    orientation: int
    shift_px: tuple[float, float]


def compare(image: NDArray, scan: Simulated) -> Agreement:
    """The image of a canvas against the truth of the same canvas, pixel [0, 0] on pixel [0, 0].

    Only what is free is removed: scale, phase, a phase ramp; for `correlation` the shift too.
    """
    assert image.shape == scan.object_true.shape, (image.shape, scan.object_true.shape)
    aligned = remove_gauge(image, scan.object_true, scan.roi, allow_twin=False)
    y0, y1, x0, x1 = scan.roi
    side = min(y1 - y0, x1 - x0)
    box = (slice(y0, y0 + side), slice(x0, x0 + side))
    here, truth = _detail(image[box]), _detail(scan.object_true[box])
    peaks = [_peak(_turned(here, turn), truth) for turn in range(8)]
    best = int(np.argmax([height for height, _ in peaks]))
    return Agreement(_correlation(_detail(aligned.recon), _detail(aligned.reference)), best, peaks[0][1])


def check(image: NDArray, scan: Simulated, within_px: float = 1.0) -> None:
    """The image is the truth's, upright, less than a pixel from its place."""
    found = compare(image, scan)
    print(found)
    assert found.correlation >= 0.8, found
    assert found.orientation == 0, found
    assert max(abs(shift) for shift in found.shift_px) < within_px, found


def _detail(image: NDArray) -> NDArray:
    """Amplitude and phase without their means, the phase without its plane: (H,W) complex, ramp-free."""
    amplitude = np.abs(image) / np.abs(image).mean()
    phase = np.angle(image * np.conj(image.mean()))
    rows, columns = np.indices(image.shape)
    design = np.stack([np.ones(image.size), rows.ravel(), columns.ravel()], 1)
    plane = design @ np.linalg.lstsq(design, phase.ravel(), rcond=None)[0]
    return (amplitude - 1) + 1j * (phase - plane.reshape(phase.shape))


def _turned(image: NDArray, turn: int) -> NDArray:
    mirrored = image[:, ::-1] if turn >= 4 else image
    return np.rot90(mirrored, turn % 4)


def _correlation(a: NDArray, b: NDArray) -> float:
    return float(np.real(np.vdot(a, b)) / (np.linalg.norm(a) * np.linalg.norm(b)))


def _peak(a: NDArray, b: NDArray) -> tuple[float, tuple[float, float]]:
    """Height and place (y, x) of the cross-correlation peak, to a fraction of a pixel (parabola)."""
    window = np.outer(np.hanning(len(a)), np.hanning(len(a)))
    product = np.fft.ifft2(np.fft.fft2(a * window) * np.conj(np.fft.fft2(b * window))).real
    product /= np.linalg.norm(a * window) * np.linalg.norm(b * window)
    row, column = (int(v) for v in np.unravel_index(np.argmax(product), product.shape))
    place = []
    for line, at in ((product[:, column], row), (product[row], column)):
        n = len(line)
        low, mid, high = line[at - 1], line[at], line[(at + 1) % n]
        bend = low - 2 * mid + high
        offset = 0.5 * (low - high) / bend if bend else 0.0
        place.append((at + offset + n / 2) % n - n / 2)
    return float(product[row, column]), (float(place[0]), float(place[1]))

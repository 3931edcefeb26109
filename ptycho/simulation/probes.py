"""Probes for simulation, centred on pixel (N//2, N//2), with a given number of photons.

Every recipe takes factors for its aperture and its defocus. A realistic wrong guess is the same recipe with
factors different from one.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ptycho.errors import ConfigError
from ptycho.simulation.registry import lookup

Probe = NDArray[np.complex64]
MAX_MODES = 15


class ProbeMaker(Protocol):
    """Draws one probe: side N px, photons = sum |P|^2, and factors on its aperture and its defocus."""

    def __call__(
        self, N: int, photons: float = 1.0, aperture_factor: float = 1.0, defocus_factor: float = 1.0
    ) -> Probe:
        """(N, N) complex64."""
        ...


def disk(N: int, photons: float = 1.0, aperture_factor: float = 1.0, defocus_factor: float = 1.0) -> Probe:
    """A disk of radius N/6 with a rim of one pixel and a spherical phase of 2 rad at the rim: a pinhole.

    Returns (N, N) complex64 with sum |P|^2 = photons.

    >>> round(float(np.sum(np.abs(disk(64, photons=1e6)) ** 2)))
    1000000
    """
    radius = _radius(N)
    rim = N / 6 * aperture_factor
    amplitude = 1.0 / (1.0 + np.exp(np.clip((radius - rim) / 0.5, -50, 50)))
    return _powered(amplitude * np.exp(2j * defocus_factor * (radius / (N / 6)) ** 2), photons)


def gaussian(
    N: int, photons: float = 1.0, aperture_factor: float = 1.0, defocus_factor: float = 1.0
) -> Probe:
    """A Gaussian beam of standard deviation N/10 (of the amplitude) past its waist: 1 rad at one deviation.

    Returns (N, N) complex64 with sum |P|^2 = photons.
    """
    scaled = _radius(N) / (N / 10)
    return _powered(np.exp((1j * defocus_factor - 0.5 / aperture_factor**2) * scaled**2), photons)


def zone_plate(
    N: int, photons: float = 1.0, aperture_factor: float = 1.0, defocus_factor: float = 1.0
) -> Probe:
    """The defocused focus of a zone plate with a central stop: a soft annular pupil with a quadratic phase.

    Returns (N, N) complex64 with sum |P|^2 = photons. Pupil radii 3 and 11 Fourier px and a defocus of
    0.045 rad/px^2 at N = 64; at other N they scale so that the spot covers the same share of the window.
    """
    scale = N / 64
    k = np.fft.fftfreq(N) * N
    radius = np.hypot(k[:, None], k[None, :])

    def edge(rim: float) -> NDArray[np.float64]:
        return np.asarray(1.0 / (1.0 + np.exp(np.clip((radius - rim) / 0.35, -60, 60))))

    pupil = edge(11.0 * scale * aperture_factor) - edge(3.0 * scale)
    wave = np.fft.ifft2(pupil * np.exp(0.045j / scale * defocus_factor * radius**2), norm="ortho")
    return _powered(np.fft.fftshift(wave), photons)


PROBES: dict[str, ProbeMaker] = {"disk": disk, "gaussian": gaussian, "zone_plate": zone_plate}


def get_probe(name: str) -> ProbeMaker:
    """The recipe of a probe by its name; raises ConfigError naming the nearest one."""
    return lookup(PROBES, name, "probe")


def with_modes(probe: NDArray[np.complexfloating], n_modes: int, decay: float = 0.3) -> Probe:
    """Incoherent modes of one beam: the beam times Hermite-like polynomials, made orthogonal.

    Shapes: probe (N, N) complex; returns (n_modes, N, N) complex64, mutually orthogonal, each with `decay`
    times the power of the one before, together with the power of `probe`. Raises ConfigError beyond 15 modes.
    """
    if not 1 <= n_modes <= MAX_MODES:
        raise ConfigError(f"n_modes is {n_modes}; it must be 1 to {MAX_MODES}")
    base = np.asarray(probe, np.complex128)
    N = base.shape[-1]
    y, x = (np.indices(base.shape) - N // 2) / (N / 8)
    orders = [(degree - j, j) for degree in range(5) for j in range(degree + 1)][:n_modes]
    raw = np.stack([base * x**i * y**j for i, j in orders]).reshape(n_modes, -1)
    orthogonal = np.linalg.qr(raw.T)[0].T
    # QR leaves each mode's phase free; the first mode stays the beam itself.
    orthogonal *= np.exp(1j * np.angle(np.sum(orthogonal.conj() * raw, axis=1)))[:, None]
    power = decay ** np.arange(n_modes, dtype=np.float64)
    power *= np.sum(np.abs(base) ** 2) / power.sum()
    modes = orthogonal * np.sqrt(power)[:, None]
    return modes.reshape(n_modes, N, N).astype(np.complex64)


def _radius(N: int) -> NDArray[np.float64]:
    r = np.arange(N) - N // 2
    return np.asarray(np.hypot(r[:, None], r[None, :]))


def _powered(wave: NDArray[np.complex128], photons: float) -> Probe:
    scaled = wave * np.sqrt(photons / np.sum(np.abs(wave) ** 2))
    return np.asarray(scaled, np.complex64)

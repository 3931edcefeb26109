"""The terms of the objective as plain NumPy formulas, float64, and fields to try them on."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage
from skimage.metrics import structural_similarity

from ptycho.forward import label_losses, losses, penalties
from ptycho.ops import ops_of

B, C, N = 2, 4, 32
READ_NOISE, EPSILON, SIGMA_PX, RANGE = 2.0, 0.01, 1.5, 1.0


def fields(seed: int = 0) -> dict[str, np.ndarray]:
    """Everything that a term may take, with structure and noise, float64."""
    rng = np.random.default_rng(seed)

    def patches() -> np.ndarray:
        parts = ndimage.gaussian_filter(rng.standard_normal((2, B, C, N, N)), (0, 0, 0, 2, 2)) * 4
        return (0.6 + 0.2 * parts[0]) * np.exp(1j * parts[1])

    axis = np.arange(N) - N // 2
    return {
        "patches": patches(),
        "labels": patches(),
        "views": patches(),
        "weight": np.exp(-(axis[:, None] ** 2 + axis**2) / 100),
        "probe": patches()[0, :2],
        "rate": rng.uniform(0.1, 30, (B, C, N, N)),
        "counts": rng.poisson(9, (B, C, N, N)).astype(float),
        "counted": rng.uniform(size=(B, C, N, N)) > 0.2,
    }


def _mean(values: np.ndarray, weight: np.ndarray) -> float:
    return float((values * weight).sum() / np.broadcast_to(weight, values.shape).sum())


def _sobel(field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images = np.abs(field).reshape(-1, N, N)
    down, right = (
        np.stack([ndimage.sobel(image, axis, mode="mirror") for image in images]).reshape(field.shape)
        for axis in (0, 1)
    )
    return down, right


def _ssim(one: np.ndarray, other: np.ndarray) -> float:
    edge, found = int(3.5 * SIGMA_PX + 0.5), []
    for a, b in zip(np.abs(one).reshape(-1, N, N), np.abs(other).reshape(-1, N, N), strict=True):
        _, image = structural_similarity(
            a,
            b,
            data_range=RANGE,
            gaussian_weights=True,
            sigma=SIGMA_PX,
            use_sample_covariance=False,
            full=True,
        )
        found.append(image[edge:-edge, edge:-edge].mean())
    return 1 - float(np.mean(found))


def values(given: dict[str, np.ndarray]) -> dict[str, float]:
    """Every term by name."""
    p, q, v, w = (given[name] for name in ("patches", "labels", "views", "weight"))
    rate, counts, counted, probe = (given[name] for name in ("rate", "counts", "counted", "probe"))
    phase = np.abs(np.angle(p * q.conj())) / np.pi
    (down, right), (d, r) = _sobel(p), _sobel(q)
    # where the reflected edge has no slope at all, there is no direction either
    length, true = np.sqrt(down**2 + right**2 + 1e-12), np.sqrt(d**2 + r**2 + 1e-12)
    cosine = (down * d + right * r) / (length * true)
    shifted, expected = counts + READ_NOISE**2, rate + READ_NOISE**2
    gap = np.sqrt(rate) - np.sqrt(counts)
    rows, columns = np.diff(p, axis=-2)[..., :-1], np.diff(p, axis=-1)[..., :-1, :]
    power = (np.abs(probe) ** 2).sum()
    bent = [(np.abs(np.diff(p, 2, axis)) ** 2).mean() for axis in (-2, -1)]
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = np.where(counts > 0, counts * np.log(counts / rate), 0)
    return {
        "poisson_deviance": (rate - counts + surprise)[counted].mean(),
        "poisson_nll": (rate - counts * np.log(rate))[counted].mean(),
        "gaussian_poisson": (expected - shifted + shifted * np.log(shifted / expected))[counted].mean(),
        "amplitude_mae": np.abs(gap)[counted].mean(),
        "amplitude_charbonnier": (np.sqrt(gap**2 + EPSILON**2) - EPSILON)[counted].mean(),
        "total_variation": np.sqrt(np.abs(rows) ** 2 + np.abs(columns) ** 2).mean(),
        "smoothness": sum(bent),
        "overlap_consistency": _mean(np.abs(p - v) ** 2, w),
        "probe_power": (power / 350 - 1) ** 2,
        "probe_support": (np.abs(probe) ** 2 * (1 - w)).sum() / power,
        "supervised": _mean(np.abs(np.abs(p) - np.abs(q)) + phase, w),
        "realspace_mae": _mean(np.abs(p - q), w),
        "label_phase": _mean(phase, w),
        "label_ssim": _ssim(p, q),
        "label_edges": _mean(np.abs(length - true), w),
        "label_orientation": ((1 - cosine) * w * true).sum() / (w * true).sum(),
    }


def calls(given: dict[str, Any]) -> dict[str, tuple[str, Any]]:
    """name -> (which field the gradient is taken of, the value as a function of it); `given` of any kind."""
    root = ops_of(given["rate"]).sqrt
    q, v, w = (given[name] for name in ("labels", "views", "weight"))
    counts, counted = given["counts"], given["counted"]
    of_rate = {
        "poisson_deviance": lambda r: losses.poisson_deviance(r, counts, counted),
        "poisson_nll": lambda r: losses.poisson_nll(r, counts, counted),
        "gaussian_poisson": lambda r: losses.shifted_poisson(r, counts, counted, READ_NOISE**2),
        "amplitude_mae": lambda r: losses.amplitude_mae(root(r), root(counts), counted),
        "amplitude_charbonnier": lambda r: losses.amplitude_charbonnier(
            root(r), root(counts), counted, EPSILON
        ),
    }
    of_probe = {
        "probe_power": lambda p: penalties.probe_power(p, 350.0),
        "probe_support": lambda p: penalties.probe_support(p, w),
    }
    of_patches = {
        "total_variation": losses.total_variation,
        "smoothness": penalties.smoothness,
        "overlap_consistency": lambda p: penalties.overlap_consistency(p, v, w),
        "supervised": lambda p: losses.supervised(p, q, w),
        "realspace_mae": lambda p: losses.realspace_mae(p, q, w),
        "label_phase": lambda p: label_losses.label_phase(p, q, w),
        "label_ssim": lambda p: label_losses.label_ssim(p, q, SIGMA_PX, RANGE),
        "label_edges": lambda p: label_losses.label_edges(p, q, w),
        "label_orientation": lambda p: label_losses.label_orientation(p, q, w),
    }
    made = {name: ("rate", call) for name, call in of_rate.items()}
    made |= {name: ("probe", call) for name, call in of_probe.items()}
    return made | {name: ("patches", call) for name, call in of_patches.items()}

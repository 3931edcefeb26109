"""What the sections of `refine.py` share: the scans of `../shared/bench`, a solution, its judgement."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
sys.path[:0] = [str(SHARED / "bench"), str(Path(__file__).resolve().parents[1])]

import judge  # noqa: E402
import simulate  # noqa: E402, F401  (the sections make their scans with it)

from ptycho_torch.refine import make_scan, reconstruct  # noqa: E402

PICTURES: list[tuple[str, np.ndarray]] = []


def centres(data) -> np.ndarray:
    """(M, 2) centres [x, y] px of a simulated scan."""
    return data["positions_px"][:, ::-1] + data["diffraction"].shape[-1] // 2


def evaluate(image: np.ndarray, origin_xy: tuple[int, int], data) -> dict:
    """Judge an image after laying it on the true object's frame."""
    true = data["object_true"]
    laid = np.ones(true.shape, complex)
    x, y = origin_xy
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + image.shape[0], true.shape[0]), min(x + image.shape[1], true.shape[1])
    laid[top:bottom, left:right] = image[top - y : bottom - y, left - x : right - x]
    return judge.evaluate(laid, true, data["roi"])


def solve(data, name: str, watch: bool = False, probe=None, bad=None, positions=None, **options) -> str:
    """One reconstruction as a table row."""
    scan = make_scan(
        data["diffraction"],
        centres(data) if positions is None else positions,
        data["probe_guess"] if probe is None else probe,
        bad_pixels=bad,
    )
    spent, reached = 0.0, {0.06: None, 0.045: None}
    clock = time.process_time()

    def look(now):
        nonlocal spent, clock
        spent += time.process_time() - clock
        if watch:
            error = evaluate(now.state.object.numpy(), now.state.canvas.origin_xy, data)["nrmse"]
            for goal, when in reached.items():
                if when is None and error <= goal:
                    reached[goal] = spent
        clock = time.process_time()

    result = reconstruct(scan, callbacks=(look,), **options)
    e = evaluate(result.object, result.origin_xy, data)
    PICTURES.append((name, result.object))
    sweeps = len(result.history)
    times = " / ".join("-" if t is None else f"{t:.2f}" for t in reached.values()) if watch else ""
    return (
        f"| {name} | {sweeps} | {spent:.2f} | {spent / sweeps:.3f} | {times} | {e['nrmse']:.4f} | "
        f"{e['amp_psnr']:.1f} / {e['amp_ssim']:.3f} | {e['phase_psnr']:.1f} / {e['phase_ssim']:.3f} | "
        f"{e['frc50']:.2f} | {result.r:.4f} |"
    )


HEAD = (
    "| case | sweeps | CPU s | s/sweep | s to 0.06 / 0.045 | cNRMSE | amp PSNR/SSIM | phase PSNR/SSIM "
    "| FRC50 | R |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def blur(image: np.ndarray, sigma_px: float) -> np.ndarray:
    """A complex image under a Gaussian of `sigma_px`."""
    from scipy.ndimage import gaussian_filter

    real, imaginary = (gaussian_filter(part, sigma_px) for part in (image.real, image.imag))
    return (real + 1j * imaginary).astype(np.complex64)

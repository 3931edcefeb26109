"""Judge a reconstruction file against a file that holds the truth, and print the results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ptycho.cli.console import Console
from ptycho.cli.runs import write_json
from ptycho.errors import DataError

if TYPE_CHECKING:
    import numpy as np

# Metric: its name on the screen and how it is written.
_SHOWN = {
    "r_factor": ("R", "{:.4f}   (stitched object re-diffracted at every position)"),
    "nrmse": ("cNRMSE", "{:.4f}"),
    "frc50": ("FRC50", "{:.3f}    of Nyquist"),
    "frc_half_bit": ("FRC 1/2-bit", "{:.3f}    of Nyquist"),
    "amplitude_psnr": ("amp PSNR", "{:.2f} dB"),
    "amplitude_ssim": ("amp SSIM", "{:.3f}"),
    "phase_psnr": ("phase PSNR", "{:.2f} dB"),
    "phase_ssim": ("phase SSIM", "{:.3f}"),
    "groups_per_s": ("speed", "{:.0f} groups/s"),
}


class Truth(NamedTuple):
    """An object (H, W) complex, the box (y0, y1, x0, x1) to judge in, and the object pixel of its corner."""

    object: np.ndarray
    roi: tuple[int, int, int, int] | None = None
    origin_xy: tuple[float, float] = (0.0, 0.0)


class Reconstruction(NamedTuple):
    """A stitched object (H, W) complex, which pixels were reached, the object pixel of its corner, and the
    side of an object pixel."""

    object: np.ndarray
    coverage: np.ndarray | None
    origin_xy: tuple[float, float] | None
    object_pixel_size_m: float | None = None


def find_truth(path: Path) -> Truth | None:
    """The truth in a scan file: object_true (with roi), else objectGuess; None where there is neither."""
    from ptycho.report import products

    found = products.find_truth(Path(path))
    return None if found is None else Truth(found.object, found.roi)


def read_truth(path: Path) -> Truth:
    """As `find_truth`; a reconstruction can serve as truth too. Raises DataError where there is no object."""
    truth = find_truth(path)
    if truth is not None:
        return truth
    try:
        made = read_reconstruction(path)
    except DataError:
        raise DataError(f"{path} holds no truth: none of object_true, objectGuess, object is in it") from None
    return Truth(made.object, None, made.origin_xy or (0.0, 0.0))


def read_reconstruction(path: Path) -> Reconstruction:
    """The image in a file of any kind that `ptycho infer` and `reconstruct` write."""
    from ptycho.io.images import read_image

    made = read_image(path)
    return Reconstruction(made.object, made.coverage, made.origin_xy, made.object_pixel_size_m)


def judge(made: Reconstruction, truth: Truth, *, pixel_size_m: float | None = None) -> dict[str, Any]:
    """Every number of `ptycho.evaluation.judge.evaluate`, after the gauge is removed. Raises InputError."""
    from ptycho.evaluation.judge import evaluate

    origin = made.origin_xy
    if origin is not None:
        origin = (origin[0] - truth.origin_xy[0], origin[1] - truth.origin_xy[1])
    return evaluate(
        made.object,
        truth.object,
        truth.roi,
        pixel_size_m=pixel_size_m or made.object_pixel_size_m,
        origin_xy=origin,
        coverage=made.coverage,
    ).as_dict()


def judged_lines(metrics: Mapping[str, Any]) -> list[str]:
    """One line for each known number that was computed."""
    return [
        f"{name:<13}{form.format(metrics[key])}"
        for key, (name, form) in _SHOWN.items()
        if isinstance(metrics.get(key), (int, float))
    ]


def report_product(product: Path, scan: Path, metrics: Mapping[str, Any], console: Console) -> None:
    """Judge a product if its scan holds the truth; write metrics.json beside it and print the numbers."""
    size: float | None = None
    try:
        truth = find_truth(scan)
        made = read_reconstruction(product)
        size = made.object_pixel_size_m
        judged = judge(made, truth) if truth is not None else {}
    except Exception as error:
        # The image is complete. A failed judgement is reported, and the command still succeeds.
        console.warn(f"the image was not judged: {error}")
        judged = {}
    together = {**metrics, **judged, **({} if size is None else {"object_pixel_size_m": size})}
    write_json(product.with_name("metrics.json"), together)
    for line in judged_lines(together):
        console.say(line)
    console.say(f"product      {product}")

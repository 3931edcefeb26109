"""Compares two complex images: removes the gauge, then computes numbers and a figure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ptycho.errors import InputError
from ptycho.evaluation.judge import Evaluation, evaluate
from ptycho.image.cropping import Box, centre_origin, common_box, covered_box
from ptycho.report import style
from ptycho.report.panels import spread
from ptycho.report.products import Product
from ptycho.report.wording import metrics_line

#: if pixel sizes differ by more than this share, the images cannot be compared pixel by pixel
_SAME_PIXEL = 2e-3


class Comparison(NamedTuple):
    """Two products, the numbers of the first against the second, and whether their positions were known."""

    first: Product
    second: Product
    evaluation: Evaluation
    origin_known: bool


def compare(first: Product, second: Product, *, pixel_size_m: float | None = None) -> Comparison:
    """Judge the first image against the second, which serves as truth and sets ranges and box.

    Images of different shapes are placed by their origins (or centres in metres), else centre on centre;
    their common area is judged. pixel_size_m of the object, for FRC in metres; None: the value of the files.
    Raises InputError where pixel sizes differ, or nothing is shared. Time: as
    `ptycho.evaluation.judge.evaluate`.
    """
    size = pixel_size_of(first, second) if pixel_size_m is None else pixel_size_m
    origin = origin_of(first, second, size)
    seen = second.coverage
    reference = np.asarray(second.object)
    if seen is not None:
        reference = np.where(seen > 0, reference, reference[seen > 0].mean() if (seen > 0).any() else 0)
    evaluation = evaluate(
        first.object,
        reference,
        _box(first, second, origin),
        pixel_size_m=size,
        origin_xy=origin,
        coverage=first.coverage,
    )
    return Comparison(first, second, evaluation, origin is not None)


def comparison_figure(path: str | os.PathLike[str], comparison: Comparison) -> Path:
    """Amplitude over phase of the first, the second and their difference, in the second's gauge."""
    made, other = comparison.evaluation.aligned.recon, comparison.evaluation.aligned.reference
    centre = np.exp(-1j * np.angle(other.mean()))
    tall = float(np.clip(made.shape[0] / made.shape[1], 0.4, 2.0))
    names = (comparison.first.name, comparison.second.name)
    figure = style.new_figure(11.4, 2 * (3.0 * tall + 0.4) + 0.6, None, metrics_line(comparison.evaluation))
    axes = figure.subplots(2, 3, squeeze=False)
    rows = (
        ("amplitude", style.AMPLITUDE_MAP, np.abs(made), np.abs(other), np.abs(made) - np.abs(other)),
        ("phase / rad", style.PHASE_MAP, np.angle(made * centre), np.angle(other * centre),
         np.angle(made * other.conj())),
    )  # fmt: skip
    for row, (what, colours, ours, theirs, error) in enumerate(rows):
        low, high = spread(theirs)
        reach = max(float(np.percentile(np.abs(error), 99.5)), 1e-9)
        pictures = (
            (ours, colours, low, high),
            (theirs, colours, low, high),
            (error, style.SIGNED_MAP, -reach, reach),
        )
        heads = (*map(_plain_text, names), "difference")
        for axis, (values, tint, a, b), head in zip(axes[row], pictures, heads, strict=True):
            shown = axis.imshow(values, cmap=tint, vmin=a, vmax=b)
            first = axis is axes[row, 0]
            style.dress(axis, head if row == 0 else "", "x / px" if row else "", what if first else "")
            style.colour_bar(figure, axis, shown)
    return style.save(figure, path)


def _plain_text(name: str) -> str:
    """A file's name as plain text: a dollar sign in it does not start a formula."""
    short = name if len(name) <= 40 else f"{name[:19]}…{name[-19:]}"
    return short.replace("$", r"\$")


def same_pixel(a: float, b: float) -> bool:
    """Whether two pixel sizes, m, are equal enough to compare images pixel by pixel."""
    return abs(a - b) <= _SAME_PIXEL * b


def pixel_size_of(first: Product, second: Product) -> float | None:
    """The pixel size of two products, m; None if neither has one; InputError if they differ."""
    a, b = first.pixel_size_m, second.pixel_size_m
    if a is not None and b is not None and not same_pixel(a, b):
        raise InputError(
            f"{first.name} has pixels of {a:.6g} m and {second.name} of {b:.6g} m; resample one of them first"
        )
    return b if b is not None else a


def origin_of(first: Product, second: Product, size: float | None) -> tuple[float, float] | None:
    """[x, y] of the first image's corner in pixels of the second, None if the files do not give it.

    Two products with known centres share one frame in metres, for any numbering of their pixels.
    """
    if first.centre_m is not None and second.centre_m is not None and size is not None:
        sides = zip(reversed(first.object.shape), reversed(second.object.shape), strict=True)
        x, y = (
            (a - b) / size + (v - w) / 2
            for a, b, (w, v) in zip(first.centre_m, second.centre_m, sides, strict=True)
        )
        return x, y
    if first.origin_xy is None or second.origin_xy is None:
        return None
    return first.origin_xy[0] - second.origin_xy[0], first.origin_xy[1] - second.origin_xy[1]


def _box(first: Product, second: Product, origin: tuple[float, float] | None) -> Box | None:
    """The box to judge, in pixels of the second image: its own, else the common area; None: unknown."""
    if second.roi is None and second.coverage is None:
        return None
    start = centre_origin(first.object.shape, second.object.shape) if origin is None else origin
    y0, y1, x0, x1 = common_box(first.object.shape, second.object.shape, start)
    if second.roi is not None:
        t, b, left, r = second.roi
        return max(t, y0), min(b, y1), max(left, x0), min(r, x1)
    both = np.asarray(second.coverage)[y0:y1, x0:x1] > 0
    if first.coverage is not None:
        x, y = (round(float(v)) for v in start)
        both = both & (np.asarray(first.coverage)[y0 - y : y1 - y, x0 - x : x1 - x] > 0)
    if not both.any():
        raise InputError(f"{first.name} and {second.name} cover nothing in common; check their origins")
    t, b, left, r = covered_box(both)
    margin = min(b - t, r - left) // 16
    return y0 + t + margin, y0 + b - margin, x0 + left + margin, x0 + r - margin

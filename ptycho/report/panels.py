"""Arrays as small pictures for a page: the pixels and a colour strip, without any background."""

from __future__ import annotations

import base64
import io
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.colors import Colormap
from numpy.typing import ArrayLike, NDArray

from ptycho.report.hues import complex_colours, phase_colours
from ptycho.report.scale_bar import bar_label, bar_length

MAX_SIDE = 1024
_LEVELS = 255


class Bar(NamedTuple):
    """A scale bar over a picture: its length in per cent of the picture's width, and its text."""

    share: float
    label: str


class Panel(NamedTuple):
    """A picture for a page: PNG data URIs of image and colour strip, size in px, ends of the scale, a bar."""

    title: str
    uri: str
    width: int
    height: int
    strip: str
    low: str
    high: str
    unit: str
    caption: str
    bar: Bar | None = None


def panel(
    values: ArrayLike,
    title: str,
    colours: str | Colormap,
    *,
    limits: tuple[float, float] | None = None,
    unit: str = "",
    caption: str = "",
    log: bool = False,
    max_side: int = MAX_SIDE,
    bar: Bar | None = None,
) -> Panel:
    """Values (H, W) real in the colours of a matplotlib map; NaN is transparent.

    limits: ends of the scale, None: the range without the outermost 0.2 %. log: a logarithmic scale (limits
    in the values' own unit). Images beyond max_side px are averaged down.
    """
    image = _shrunk(np.asarray(values, np.float64), max_side)
    low, high = spread(image) if limits is None else limits
    with np.errstate(divide="ignore", invalid="ignore"):
        shown = np.log(np.maximum(image, low)) if log else image
        a, b = (np.log(low), np.log(high)) if log else (low, high)
        scaled = np.clip((shown - a) / max(b - a, 1e-300), 0, 1)
    # Index 0 is reserved for unknown values.
    index = np.where(np.isfinite(scaled), 1 + np.round(np.nan_to_num(scaled) * (_LEVELS - 1)), 0)
    height, width = image.shape
    ramp = np.arange(1, _LEVELS + 1)[None, :]
    return Panel(
        title,
        _png(index, colours),
        width,
        height,
        _png(ramp, colours),
        short(low),
        short(high),
        unit,
        caption,
        bar,
    )


def complex_panel(
    field: ArrayLike,
    title: str,
    limits: tuple[float, float],
    *,
    caption: str = "",
    max_side: int = MAX_SIDE,
    bar: Bar | None = None,
) -> Panel:
    """A complex field (H, W) as one picture: phase as hue, amplitude between `limits` as lightness."""
    values = np.asarray(field, np.complex128)
    shrunk = _shrunk(values, max_side)
    height, width = shrunk.shape
    circle = phase_colours(np.linspace(-np.pi, np.pi, _LEVELS))[None]
    return Panel(
        title,
        _rgba(complex_colours(shrunk, limits)),
        width,
        height,
        _rgba(circle),
        "−π",
        "π",
        "rad",
        caption,
        bar,
    )


def bar_of(width_px: int, pixel_size_m: float | None) -> Bar:
    """The scale bar of a picture of `width_px` object pixels, in micrometres, or in pixels without a size."""
    step, unit = (1.0, "px") if pixel_size_m is None else (pixel_size_m * 1e6, "µm")
    length = bar_length(width_px * step)
    return Bar(round(100 * length / (width_px * step), 2), bar_label(length, unit))


def spread(values: ArrayLike, percent: float = 0.2) -> tuple[float, float]:
    """Ends of a colour scale without the effect of a few outliers; NaN is left out."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    if not known.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(known, (percent, 100 - percent)))
    return (low, high) if high - low > 1e-9 * max(abs(low), abs(high), 1e-30) else (low - 0.5, high + 0.5)


def colour_of(values: ArrayLike, limits: tuple[float, float], colours: str | Colormap) -> list[str]:
    """Hexadecimal colours '#rrggbb' of values (M,), one each."""
    low, high = limits
    scaled = np.clip((np.asarray(values, np.float64) - low) / max(high - low, 1e-300), 0, 1)
    bytes_ = (matplotlib.colormaps.get_cmap(colours)(scaled)[:, :3] * 255).round().astype(int)
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in bytes_]


def short(value: float) -> str:
    """A number as short text for the end of a scale."""
    return "0" if value == 0 else f"{value:.3g}".replace("-", "−")


def _shrunk(image: NDArray[Any], max_side: int) -> NDArray[Any]:
    step = -(-max(image.shape) // max_side)
    if step <= 1:
        return image
    rows, columns = (max(n // step, 1) for n in image.shape)
    cut = image[: rows * step, : columns * step]
    return np.asarray(cut.reshape(rows, step, columns, step).mean(axis=(1, 3)))


def _png(index: NDArray[np.int64] | NDArray[np.float64], colours: str | Colormap) -> str:
    from PIL import Image

    table = matplotlib.colormaps.get_cmap(colours)(np.linspace(0, 1, _LEVELS))[:, :3]
    palette = [0, 0, 0, *(table * 255).round().astype(int).ravel().tolist()]
    picture = Image.fromarray(index.astype(np.uint8))
    picture.putpalette(palette)
    return _uri(picture, transparency=0)


def _rgba(colours: NDArray[np.float64]) -> str:
    from PIL import Image

    return _uri(Image.fromarray((colours * 255).round().astype(np.uint8)))


def _uri(picture: Any, **options: Any) -> str:
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True, **options)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")

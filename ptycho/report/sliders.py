"""Sliders between images of several runs of one scan, each at its position in the common area."""

from __future__ import annotations

from collections.abc import Sequence

from ptycho.report.panels import Bar, Panel
from ptycho.report.view import Choice, Extent, Pick, RunView


def choices(views: Sequence[RunView]) -> list[Choice]:
    """One slider each for amplitude, phase and both as colours, if at least two runs of one scan overlap.

    Images of one scan are placed in the pixels of that scan, for any size; if one has no known position, all
    are placed centre on centre. An image without overlap with the first is left out. The common area is
    shown; nothing is resampled, the page moves and scales the pictures.
    """
    shown = [view for view in views if view.hero and view.extent is not None]
    if len(shown) < 2 or len({view.scan_id for view in views}) != 1:
        return []
    places = _places([view.extent for view in shown if view.extent is not None])
    common = places[0]
    kept = [(shown[0], places[0])]
    for view, place in zip(shown[1:], places[1:], strict=True):
        both = _common(common, place)
        if both is not None:
            common = both
            kept.append((view, place))
    if len(kept) < 2:
        return []
    made = []
    for title in ("amplitude", "phase", "complex"):
        known = [(view, place, p) for view, place in kept for p in view.hero if p.title == title]
        if len(known) > 1:
            picks = [Pick(f"{view.id}-{title}", view.name, _style(place, common)) for view, place, _ in known]
            left, right = (_barred(p, place, common) for _, place, p in known[:2])
            made.append(Choice(title.capitalize(), left, right, picks, common.width, common.height))
    return made


def _places(extents: Sequence[Extent]) -> list[Extent]:
    """The positions of the images in one frame, [x, y] px."""
    if all(extent.known for extent in extents):
        return list(extents)
    return [extent._replace(x=-extent.width / 2, y=-extent.height / 2) for extent in extents]


def _common(a: Extent, b: Extent) -> Extent | None:
    """The common area, None if it is empty."""
    x, y = max(a.x, b.x), max(a.y, b.y)
    width, height = min(a.x + a.width, b.x + b.width) - x, min(a.y + a.height, b.y + b.height) - y
    return Extent(x, y, width, height, a.known) if width >= 1 and height >= 1 else None


def _style(place: Extent, frame: Extent) -> str:
    """CSS that lays a picture of `place` in a frame: shares of the frame in per cent."""
    shares = {
        "left": (place.x - frame.x) / frame.width,
        "top": (place.y - frame.y) / frame.height,
        "width": place.width / frame.width,
        "height": place.height / frame.height,
    }
    return "; ".join(f"{name}: {100 * share:.3f}%" for name, share in shares.items())


def _barred(panel: Panel, place: Extent, frame: Extent) -> Panel:
    """The panel with its scale bar as long in the frame as it was in its own picture."""
    if panel.bar is None:
        return panel
    share = panel.bar.share * place.width / frame.width
    return panel._replace(bar=Bar(round(share, 2), panel.bar.label) if share < 95 else None)

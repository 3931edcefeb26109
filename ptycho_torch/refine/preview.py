"""A preview of an object during a run: amplitude beside phase, in grey, as one small PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptycho.io.atomic import atomic_write
from ptycho_torch.refine.scan import RefineScan
from ptycho_torch.refine.state import RefineState
from ptycho_torch.refine.unknowns import illumination

_SEEN = 0.02  # share of the peak illumination under which a pixel is left dark
_PERCENT = 0.5


def preview_picture(scan: RefineScan, state: RefineState) -> NDArray[np.uint8]:
    """Amplitude and phase (H, 2 W) as grey values, contrast from the lit pixels."""
    light = illumination(scan, state).cpu().numpy()
    lit = light > _SEEN * light.max()
    image = state.object.cpu().numpy()
    turned = image * np.exp(-1j * np.angle(image[lit].sum()))
    halves = []
    for values in (np.abs(turned), np.angle(turned)):
        low, high = np.percentile(values[lit], (_PERCENT, 100 - _PERCENT))
        grey = 255 * np.clip((values - low) / max(high - low, 1e-9), 0, 1)
        halves.append(np.where(lit, grey, 0))
    return np.concatenate(halves, 1).astype(np.uint8)


def write_preview(path: Path, scan: RefineScan, state: RefineState) -> None:
    """Write `preview_picture` as a PNG; the file is complete at any time."""
    from PIL import Image

    with atomic_write(path) as temporary:
        Image.fromarray(preview_picture(scan, state)).save(temporary, format="PNG")

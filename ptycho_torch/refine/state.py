"""Everything a reconstruction knows at one moment: the unknowns, their place, start and storage."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ptycho.errors import DataError
from ptycho.io.tensors import read_tensors, write_tensors
from ptycho_torch.refine.operators import Canvas
from ptycho_torch.refine.scan import RefineScan

_FORMAT = "ptychopinn-refine-1"


@dataclass
class RefineState:
    """The unknowns.

    object (H, W) complex on `canvas`; probe (P, N, N) complex, so that |FFT_ortho(probe * window)|^2 are
    counts; positions_xy (M, 2) float64; intensity (M,) amplitude factor per pattern or None; background
    (N, N) counts, zero frequency first, or None; lost (M,) bool: patterns that a search for positions keeps
    out of the object, or None; epoch: finished sweeps.
    """

    canvas: Canvas
    object: Tensor
    probe: Tensor
    positions_xy: Tensor
    intensity: Tensor | None = None
    background: Tensor | None = None
    epoch: int = 0
    lost: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Named tensors, the absent ones left out."""
        named = dict(
            object=self.object,
            probe=self.probe,
            positions_xy=self.positions_xy,
            intensity=self.intensity,
            background=self.background,
            lost=self.lost,
        )
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def clone(self) -> RefineState:
        """An independent copy."""
        copies: dict[str, Any] = {name: tensor.clone() for name, tensor in self.tensors().items()}
        return replace(self, **copies)


def start_state(
    scan: RefineScan,
    *,
    modes: int | None = None,
    margin_px: int = 1,
    initial_object: np.ndarray | None = None,
    initial_origin_xy: tuple[int, int] | None = None,
    intensity: bool = False,
    background: bool = False,
) -> RefineState:
    """A flat object (or `initial_object`, whose [0, 0] is object pixel `initial_origin_xy`) and the scan's
    probe.

    Missing probe modes are the first one times x, y, xy, ... with 5 % of its power each. The probe's power
    is then set so that the model explains the mean pattern.
    """
    canvas = Canvas.around(scan.positions_xy.cpu().numpy(), scan.n, margin_px)
    field = torch.ones(canvas.shape, dtype=scan.probe.dtype)
    if initial_object is not None:
        lay(field, np.asarray(initial_object), canvas.origin_xy, initial_origin_xy or canvas.origin_xy)
    state = RefineState(
        canvas,
        field.to(scan.counts.device),
        more_modes(scan.probe, modes or scan.probe.shape[0]),
        scan.positions_xy.clone(),
        torch.ones(scan.size, dtype=scan.counts.dtype, device=scan.counts.device) if intensity else None,
        first_background(scan) if background else None,
    )
    from ptycho_torch.refine.forward import predict  # forward needs the class above

    some = torch.linspace(0, scan.size - 1, min(scan.size, 64)).round().to(torch.int64)
    model = predict(scan, state, some).intensity
    model = model if scan.good is None else model * scan.good
    counts = scan.counts[some].sum(dtype=torch.float64)
    state.probe = state.probe * float(torch.sqrt(counts / model.sum(dtype=torch.float64).clamp_min(1e-30)))
    return state


def first_background(scan: RefineScan) -> Tensor:
    """Half of what the scan's dark pixels hold on average (5th percentile), everywhere, (N, N) counts."""
    mean = torch.zeros_like(scan.counts[0])
    for part in scan.counts.split(256):
        mean += part.sum(0)
    seen = mean[scan.good > 0] if scan.good is not None else mean.flatten()
    dark = float(seen.sort().values[len(seen) // 20]) / scan.size
    return torch.full_like(mean, max(0.5 * dark, 1e-3 * scan.mean_counts / scan.n**2))


def lay(
    field: Tensor, image: np.ndarray, origin_xy: tuple[int, int], image_origin_xy: tuple[int, int]
) -> None:
    """Copy what of `image` (H, W) falls on `field`, whose [0, 0] is at `origin_xy`, in place."""
    if image.ndim != 2 or not np.isfinite(image).all():
        raise DataError(f"the starting object has shape {image.shape}; give a finite (H, W) complex image")
    x, y = image_origin_xy[0] - origin_xy[0], image_origin_xy[1] - origin_xy[1]
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + image.shape[0], field.shape[0]), min(x + image.shape[1], field.shape[1])
    if bottom > top and right > left:
        part = np.ascontiguousarray(image[top - y : bottom - y, left - x : right - x])
        field[top:bottom, left:right] = torch.from_numpy(part).to(field.dtype)


def more_modes(probe: Tensor, modes: int) -> Tensor:
    """Probe (P, N, N) cut or extended to `modes` modes."""
    if modes <= probe.shape[0]:
        return probe[:modes].clone()
    n = probe.shape[-1]
    line = torch.linspace(-1, 1, n, dtype=probe.real.dtype, device=probe.device)
    y, x = torch.meshgrid(line, line, indexing="ij")
    made = list(probe)
    for order in range(probe.shape[0], modes):
        vertical = order // 2
        mode = probe[0] * x ** (order - vertical) * y**vertical
        made.append(mode * torch.linalg.vector_norm(probe[0]) / torch.linalg.vector_norm(mode) * 0.05**0.5)
    return torch.stack(made)


def save_state(
    path: str | Path, state: RefineState, extra: dict[str, Tensor], settings: dict[str, object]
) -> None:
    """Write state, the rule's own tensors and the settings as safetensors, whole or not at all."""
    tensors = {f"state.{k}": v.detach().cpu().numpy() for k, v in state.tensors().items()}
    tensors |= {f"rule.{k}": v.detach().cpu().numpy() for k, v in extra.items()}
    note = dict(format=_FORMAT, epoch=state.epoch, shape=state.canvas.shape, origin_xy=state.canvas.origin_xy)
    write_tensors(Path(path), tensors, {"refine": json.dumps(note | {"settings": settings})})


def load_state(
    path: str | Path, device: str | torch.device = "cpu"
) -> tuple[RefineState, dict[str, Tensor], dict[str, object]]:
    """What `save_state` wrote: (state, rule tensors, settings). DataError for a foreign file."""
    try:
        arrays, texts = read_tensors(Path(path))
        note = json.loads(texts.get("refine", "{}"))
        # a copy is aligned as torch likes it: sums and transforms then round as they did before
        tensors = {key: torch.from_numpy(value).to(device).clone() for key, value in arrays.items()}
        if not isinstance(note, dict):
            raise ValueError("no note of a refinement in it")
    except Exception as error:
        raise DataError(
            f"{path} is no refinement checkpoint ({error}); give a file that `reconstruct` wrote"
        ) from error
    if note.get("format") != _FORMAT:
        raise DataError(f"{path} is no refinement checkpoint of this version; start the reconstruction again")
    if not {"epoch", "shape", "origin_xy", "settings"} <= note.keys():
        raise DataError(f"{path} lacks a part of its note; start the reconstruction again")
    own = {key[6:]: tensor for key, tensor in tensors.items() if key.startswith("state.")}
    canvas = Canvas(tuple(note["shape"]), tuple(note["origin_xy"]))
    state = RefineState(canvas=canvas, epoch=int(note["epoch"]), **own)
    return state, {key[5:]: t for key, t in tensors.items() if key.startswith("rule.")}, note["settings"]

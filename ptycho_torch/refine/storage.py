"""A reconstruction's state on disk: safetensors, without code, written completely or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from ptycho.errors import DataError
from ptycho.io.tensors import read_tensors, write_tensors
from ptycho_torch.refine.operators import Canvas
from ptycho_torch.refine.state import RefineState

_FORMAT = "ptychopinn-refine-1"


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
        # a copy has torch's own memory alignment, so sums and transforms round as before
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

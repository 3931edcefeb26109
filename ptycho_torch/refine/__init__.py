"""Iterative reconstruction on the package's own physics: alone, before training, after inference."""

from __future__ import annotations

from ptycho_torch.refine.engine import reconstruct, refine_probe, run
from ptycho_torch.refine.initial import start_state
from ptycho_torch.refine.labels import check_distilled, label_scan
from ptycho_torch.refine.loop import iterate
from ptycho_torch.refine.options import RefineOptions
from ptycho_torch.refine.result import IterationState, RefineResult, r_factors
from ptycho_torch.refine.rule import Rule
from ptycho_torch.refine.rules import make_rule
from ptycho_torch.refine.scan import RefineScan, make_scan, scan_from_raw
from ptycho_torch.refine.state import RefineState
from ptycho_torch.refine.storage import load_state, save_state

__all__ = [
    "IterationState",
    "RefineOptions",
    "RefineResult",
    "RefineScan",
    "RefineState",
    "Rule",
    "check_distilled",
    "iterate",
    "label_scan",
    "load_state",
    "make_rule",
    "make_scan",
    "r_factors",
    "reconstruct",
    "refine_probe",
    "run",
    "save_state",
    "scan_from_raw",
    "start_state",
]

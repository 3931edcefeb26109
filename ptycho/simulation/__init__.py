"""Scans with a known answer: objects, probes, scans and photons, put together by a `Scenario`."""

from __future__ import annotations

from ptycho.simulation.objects import OBJECTS, get_object
from ptycho.simulation.probes import PROBES, get_probe, with_modes
from ptycho.simulation.scans import SCANS, get_scan
from ptycho.simulation.scenario import Scenario, Simulated, Truth, diffract_scan, read_truth, simulate

__all__ = [
    "OBJECTS",
    "PROBES",
    "SCANS",
    "Scenario",
    "Simulated",
    "Truth",
    "diffract_scan",
    "get_object",
    "get_probe",
    "get_scan",
    "read_truth",
    "simulate",
    "with_modes",
]

"""The examples in docstrings run, and each public function of the operators' modules has one."""

from __future__ import annotations

import doctest
import inspect

import pytest

from ptycho import ops, physics
from ptycho.clients import legacy, loading
from ptycho.config import fields
from ptycho.evaluation import amplitude_phase, frc, gauge, judge, metrics, rfactor
from ptycho.forward import diffraction, label_losses, losses, merging, penalties, region
from ptycho.forward import fields as forward_fields
from ptycho.image import canvas, cropping, registration, stitching
from ptycho.networks import graphs
from ptycho.objectives import manifest
from ptycho.report import drawing, drawing_history, drawing_scan, hues, scale_bar, showing
from ptycho.report import fields as report_fields
from ptycho.run import batches, schedules
from ptycho.scan import grouping, labels, normalization, probe, raw_data, scan_set, units
from ptycho.simulation import probes, scans, scenario

#: modules of which every public function shows an example
COMPLETE = (physics, metrics, frc, grouping, probe, cropping)
FORWARD = (diffraction, forward_fields, label_losses, losses, merging, penalties, region)
MODULES = (
    *COMPLETE, *FORWARD, ops, amplitude_phase, gauge, judge, rfactor, canvas, registration, stitching,
    batches, schedules,
    labels, normalization, units, raw_data, scan_set, legacy, loading, fields, graphs, manifest, probes,
    scans, scenario, drawing, drawing_history, drawing_scan, hues, scale_bar, showing, report_fields,
)  # fmt: skip


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_examples_run(module):
    done = doctest.testmod(module)
    assert done.attempted > 0
    assert done.failed == 0


@pytest.mark.parametrize("module", COMPLETE, ids=lambda module: module.__name__)
def test_every_public_function_has_an_example(module):
    functions = inspect.getmembers(module, inspect.isfunction)
    own = {name: f for name, f in functions if f.__module__ == module.__name__ and name[0] != "_"}
    assert own
    assert [name for name, f in own.items() if ">>>" not in (f.__doc__ or "")] == []

"""Positions fitted to the patterns of a small scan with a known object: what is found, what has no effect."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ptycho.errors import DataError
from ptycho.image.registration import phase_ramp
from ptycho.simulation import Scenario, simulate
from ptycho.warp.distortions import drift_and_hysteresis
from ptycho_torch.refine import scan_from_raw, start_state
from ptycho_torch.refine.joint import joint_step
from ptycho_torch.warp.held_object import HeldFit, fit_held_object

MADE = simulate(
    Scenario(object="lines", N=32, n_positions=100, step_px=4.0, probe="disk", seed=4, photons=1e5)
)
TRUE = MADE.raw.positions_px
OBJECT = np.asarray(MADE.object_true, np.complex128)
ALL = np.ones(OBJECT.shape, bool)
PROBE = np.asarray(MADE.raw.probeGuess)
WRITTEN = TRUE + drift_and_hysteresis(TRUE, (2.0, 3.0), (-2.0, 0.0))
#: what looks leave: smooth, largest at the border
LEFT = 0.4 * np.sin((TRUE - TRUE.mean(0)) / 12.0)
SCAN = scan_from_raw(MADE.raw)


def fit(reference: np.ndarray = OBJECT, known: np.ndarray = ALL, **more: object) -> HeldFit:
    given = {"places_px": TRUE + LEFT, "written_px": WRITTEN + 7.0, "probe": PROBE, "rounds": 3, **more}
    return fit_held_object(SCAN, reference, known, **given)


def off_px(places: np.ndarray) -> float:
    off = places - TRUE
    return float(np.sqrt(((off - off.mean(0)) ** 2).sum(1).mean()))


def test_positions_of_a_known_object_are_found() -> None:
    found = fit()
    assert off_px(TRUE + LEFT) > 0.3 and off_px(found.places_px) < 0.04
    assert off_px(found.places_px) < off_px(found.own_px)
    assert found.better > 4 and found.used.all() and found.rows[-1]["misfit"] < found.rows[0]["misfit"]


def test_the_gauge_of_the_reference_has_no_effect() -> None:
    cycles = (0.01, -0.02)
    gauged = 1.7 * np.exp(0.5j) * OBJECT * phase_ramp(OBJECT.shape, cycles)
    probe = PROBE * phase_ramp(PROBE.shape[-2:], cycles).conj()
    change = fit(gauged, probe=probe).places_px - fit().places_px
    assert np.sqrt(((change - change.mean(0)) ** 2).sum(1).mean()) < 0.02


def test_patterns_on_unknown_object_have_no_say_but_move_with_the_others() -> None:
    known = ALL.copy()
    known[:, : OBJECT.shape[1] // 3] = False
    spoilt = np.where(known, OBJECT, np.nan)
    found = fit(spoilt, known)
    assert 0.3 < found.used.mean() < 0.9
    assert off_px(found.places_px) < off_px(TRUE + LEFT)
    with pytest.raises(DataError, match="no pattern lies on the known part"):
        fit(OBJECT, ~ALL | (np.arange(OBJECT.shape[1]) < 4))


def test_a_step_that_holds_the_object_leaves_it() -> None:
    scan = replace(SCAN, positions_xy=torch.from_numpy(TRUE + LEFT))
    state = start_state(scan, initial_object=OBJECT, initial_origin_xy=(0, 0), margin_px=4)
    before = state.clone()
    joint_step(scan, state, iterations=4, with_strain=False, with_object=False)
    assert torch.equal(state.object, before.object)
    assert not torch.equal(state.probe, before.probe)
    assert off_px(state.positions_xy.numpy()) < off_px(TRUE + LEFT)

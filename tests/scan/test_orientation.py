"""Orientation, scale and probe are found by patterns held out, on scans whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho.errors import InputError
from ptycho.scan.orientation import ORIENTATIONS, reorient
from ptycho.scan.raw_data import RawData
from ptycho.simulation.scenario import Scenario, simulate
from ptycho.workflows.orientation import find_orientation
from ptycho.workflows.probe_choice import choose_probe
from ptycho.workflows.rotation import turned
from ptycho.workflows.trials import attempt, take_part

#: the orientation that undoes each one
INVERSE = {name: name for name in ORIENTATIONS} | {
    "swapped_x_negated": "swapped_y_negated",
    "swapped_y_negated": "swapped_x_negated",
}


def scan(seed: int = 2, **choices: object) -> RawData:
    settings = {"object": "cat_and_coins", "N": 32, "n_positions": 100, "step_px": 2.2, "photons": 1e5}
    return simulate(Scenario(**{**settings, **choices}, seed=seed)).raw


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_each_orientation_is_undone_by_its_inverse(name: str) -> None:
    places = np.random.default_rng(0).uniform(0, 50, (20, 2))
    back = reorient(reorient(places, name), INVERSE[name])
    assert np.ptp(back - places, axis=0) == pytest.approx(0, abs=1e-9)


def test_an_unknown_orientation_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="swapped_x_negated"):
        reorient(np.zeros((3, 2)), "upside_down")


@pytest.mark.parametrize("name", ["as_given", "swapped", "x_negated"])
def test_the_orientation_is_found(name: str) -> None:
    raw = scan()
    turned = raw.moved_to(reorient(raw.positions_px, name))
    found = find_orientation(turned, n_patterns=60, sweeps=5, with_scale=False)
    assert INVERSE[name] in (found.name, found.twin)
    assert found.sure in ("sure", "likely")
    assert any("twin" in line for line in found.lines())


def test_positions_times_two_are_found() -> None:
    raw = scan()
    centre = raw.positions_px.mean(0)
    wide = raw.moved_to(centre + 2 * (raw.positions_px - centre))
    assert find_orientation(wide, n_patterns=60, sweeps=5).scale in (0.5, 0.7)


@pytest.mark.parametrize("degrees, sweeps", [(37.0, 6), (0.0, 6)])
def test_turned_axes_are_found(degrees: float, sweeps: int) -> None:
    raw = scan(object="lines", n_positions=120)
    given = raw.moved_to(turned(raw.positions_px, degrees))
    found = find_orientation(given, sweeps=sweeps, with_scale=False, with_rotation=True)
    assert found.rotation is not None
    undone = turned(reorient(given.positions_px, found.rotation.name), found.rotation.degrees)
    # the twin, both axes negated, fits as well
    apart = [np.abs(sign * (undone - undone.mean(0)) - (raw.positions_px - raw.positions_px.mean(0))).max()
             for sign in (1, -1)]  # fmt: skip
    assert min(apart) < 2.0
    assert any("degrees" in line for line in found.lines()) == bool(degrees)


def test_few_photons_cannot_tell() -> None:
    found = find_orientation(scan(photons=30.0), n_patterns=40, sweeps=3, with_scale=False)
    assert found.sure == "cannot tell"
    assert any("more photons" in line for line in found.lines())


def test_held_out_patterns_are_predicted_where_axes_are_right_also_with_three_modes() -> None:
    raw = scan()
    part = take_part(raw, 80)
    assert part.held.sum() == 16
    right = attempt(part, sweeps=10)
    wrong = attempt(part, reorient(part.positions, "swapped"), sweeps=10, modes=3)
    assert right.explained > 0.6 > 0.45 > wrong.explained


def test_a_scan_without_a_probe_gets_one() -> None:
    raw = scan(n_positions=144, N=48, step_px=3.0)
    arrays = raw.as_arrays()
    arrays.pop("probeGuess")
    bare = RawData(**{**arrays, "objectGuess": None})
    assert bare.probe_made
    assert [one.kind for one in bare.check()] == ["no_probe"]
    choice = choose_probe(bare)
    assert choice.r_held[choice.name] == min(choice.r_held.values())
    flat = attempt(take_part(bare, 60)).flat
    assert choice.r_held[choice.name] < 0.75 * flat

"""The image that a network starts from: its gauge, its patches, the rounds in which it changes."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho import physics
from ptycho.errors import ConfigError
from ptycho.image.canvas import Frame, Stitched
from ptycho.networks.graphs import NetworkSpec, available, describe
from ptycho.run.reference import coarse_reference, dealt, moved, placed_on
from ptycho.scan.normalization import normalize_probe
from ptycho.scan.reference import Reference
from ptycho.simulation.probes import zone_plate
from ptycho.simulation.scenario import diffract_scan


def test_patches_are_those_of_the_oracle():
    rng = np.random.default_rng(0)
    image = (rng.normal(size=(60, 70)) + 1j * rng.normal(size=(60, 70))).astype(np.complex64)
    places = rng.uniform(0, 20, (2, 3, 2)) + np.array([20 - 5, 20 + 7])
    made = Reference(image, (-5, 7)).around(places, 32)
    flat = places.reshape(-1, 2)
    wanted = physics.extract(image, flat[:, 0] + 5, flat[:, 1] - 7, 32).reshape(2, 3, 32, 32)
    np.testing.assert_allclose(made, wanted, atol=1e-5)


def test_a_flat_object_has_amplitude_one_half():
    rng = np.random.default_rng(0)
    probe = normalize_probe(zone_plate(64)[None], 4.0)[0]
    places = rng.uniform(40, 80, (25, 2))
    intensity = diffract_scan(np.ones((130, 130)), probe, places)
    x = np.sqrt(intensity * 32**2 / intensity.sum((1, 2)).mean()).astype(np.float32)
    made = coarse_reference(x, places, probe)
    np.testing.assert_allclose(np.abs(made.image), 0.5, atol=0.01)


def test_the_image_keeps_what_no_patch_reached_and_moves_where_many_did():
    before = Reference(np.ones((4, 4), np.complex64), (0, 0))
    coverage = np.zeros((4, 4), np.float32)
    coverage[0, 0], coverage[1, 1] = 1, 0.1
    change = Stitched(np.full((4, 4), 2j, np.complex64), coverage, Frame((0.0, 0.0), (4, 4)))
    made = moved(before, change).image
    assert (
        made[2, 2] == 1 and made[1, 1] == pytest.approx(1 + 1j) and made[0, 0].imag == pytest.approx(2 / 1.1)
    )


def test_every_group_is_dealt_once_and_neighbours_apart():
    parts = list(dealt(np.arange(11), 4))
    assert sorted(np.concatenate(parts).tolist()) == list(range(11))
    assert all((np.diff(part) == 4).all() for part in parts)
    assert len(list(dealt(np.arange(2), 4))) == 2


def test_the_image_lies_on_another_canvas_at_its_place():
    image = Reference(np.arange(16, dtype=np.complex64).reshape(4, 4), (10, 20))
    coverage = np.ones((4, 4), np.float32)
    coverage[0] = 0
    made = placed_on(image, coverage, Frame((8.0, 21.0), (3, 4)))
    assert made.object.real.tolist() == [[0, 0, 4, 5], [0, 0, 8, 9], [0, 0, 12, 13]]
    assert made.coverage.tolist() == [[0, 0, 1, 1]] * 3


@pytest.mark.parametrize("name", [name for name in available() if name != "swift"])
def test_a_network_without_a_reference_is_refused_by_name(name):
    with pytest.raises(ConfigError, match=f"{name}.*takes no reference"):
        describe(name, NetworkSpec(reference="coarse"))


def test_one_patch_for_a_group_is_refused_by_name():
    with pytest.raises(ConfigError, match="object_big"):
        describe("swift", NetworkSpec(channels=4, object_big=False, reference="coarse"))

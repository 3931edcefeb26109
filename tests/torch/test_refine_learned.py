"""The learned prior: what its network answers, who decides about it, the loop with it, and its training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_refine_engine import guess_of, make_problem, object_error

from ptycho.errors import BundleError
from ptycho.models.shipped import PRIOR, shipped_weights
from ptycho.simulation.objects import cat_and_coins
from ptycho.simulation.random_objects import random_object
from ptycho_torch.refine import RefineOptions, make_scan, reconstruct, start_state
from ptycho_torch.refine.held_out import judges, verdict
from ptycho_torch.refine.learned import expected_error
from ptycho_torch.refine.learned_step import answer, choose_share, keep_share
from ptycho_torch.refine.schedule import Schedule
from ptycho_torch.refine.unknowns import illumination
from ptycho_torch.shipped.prior_pairs import draw_pairs
from ptycho_torch.shipped.prior_train import Training


def noisy_picture(photons):
    """An object that no training saw, with white errors of what so many photons a pixel leave; and light."""
    truth = torch.from_numpy(cat_and_coins((112, 128), seed=4))
    rng = np.random.default_rng(1)
    light = torch.full(truth.shape, float(photons))
    light[:8] = 1e-4 * photons
    size = expected_error(truth, light).clamp_max(1.0) / 2**0.5 * truth.abs().mean()
    noise = torch.from_numpy(rng.normal(size=(2, *truth.shape))).float()
    return truth + size * torch.complex(noise[0], noise[1]), truth, light


@pytest.mark.parametrize("photons, share", [(10, 0.75), (100, 0.85)])
def test_the_network_lowers_the_error_and_leaves_dark_pixels_alone(photons, share):
    noisy, truth, light = noisy_picture(photons)
    found = answer(noisy, light)
    before, after = ((image - truth)[16:].abs().square().mean() ** 0.5 for image in (noisy, found))
    assert after < share * before
    assert torch.equal(found[:8], noisy[:8])


def test_the_answer_turns_and_scales_with_the_object():
    noisy, _, light = noisy_picture(30)
    plain, turned = answer(noisy, light), answer(2 * np.exp(1.1j) * noisy, light / 4)
    torch.testing.assert_close(turned, 2 * np.exp(1.1j) * plain, atol=2e-4, rtol=0)
    double = answer(noisy.to(torch.complex128), light.double())
    assert double.dtype == torch.complex128
    torch.testing.assert_close(double.to(torch.complex64), plain, atol=1e-5, rtol=0)


def test_the_weights_are_small_and_a_missing_file_is_named(tmp_path):
    assert PRIOR.stat().st_size < 1e6
    with pytest.raises(BundleError, match="install ptychopinn again"):
        shipped_weights(tmp_path / "absent.safetensors")


def test_held_out_patterns_choose_the_share():
    counts, positions, probe, truth, _ = make_problem(photons=1e5)
    scan = make_scan(counts, positions, probe)
    state = start_state(scan, initial_object=truth)
    light = illumination(scan, state)
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(0.2 * (rng.normal(size=truth.shape) + 1j * rng.normal(size=truth.shape)))
    true = state.object.clone()
    # the light of a faint scan: errors of 0.3 are expected
    faint = light * 12 / float(light.max())
    noisy = replace(state, object=state.object + noise.to(state.object.dtype))
    noisy.earlier_object = noisy.object.clone()
    asked = judges(scan, 0)
    before, image = verdict(scan, noisy, asked), noisy.object
    choose_share(scan, noisy, faint, asked)
    assert float(noisy.learned[0]) > 0 and verdict(scan, noisy, asked) < before
    # what the next sweep carries on is not the prior's move
    torch.testing.assert_close(noisy.object, noisy.earlier_object)
    again = replace(noisy, object=image, earlier_object=None)
    keep_share(again, faint)
    assert torch.equal(again.object, noisy.object)
    # the truth needs no prior: whatever the network says of it, the patterns decide against it
    choose_share(scan, state, faint, asked)
    assert float(state.learned[0]) == 0 and torch.equal(state.object, true)


def test_few_photons_ask_for_it_and_its_run_resumes_to_the_byte(tmp_path):
    counts, positions, probe, truth, _ = make_problem(photons=300, side=10)
    scan = make_scan(counts, positions, guess_of(probe))
    none = reconstruct(scan, prior="none", epochs=10)
    path = tmp_path / "state.safetensors"
    learned = reconstruct(scan, epochs=10)
    assert learned.learned is not None and learned.variation is None
    assert object_error(learned, truth) < object_error(none, truth)
    for done in (4, 7):  # before the patterns are asked, and after
        path.unlink(missing_ok=True)
        reconstruct(scan, epochs=10, checkpoint=path, callbacks=(lambda now, done=done: now.epoch == done,))
        resumed = reconstruct(scan, epochs=10, checkpoint=path, resume=True)
        assert resumed.object.tobytes() == learned.object.tobytes() and resumed.learned == learned.learned
    assert len(reconstruct(scan).history) < 20


def test_half_way_down_the_line():
    course = torch.tensor([0.3, 0.2, 0.19, 0.1895], dtype=torch.float64)
    assert Schedule(RefineOptions(), short=True).length(course) == 12
    assert Schedule(RefineOptions(), short=True).middle(course) == 7
    assert Schedule(RefineOptions(), 10).middle(None) == 4 and Schedule(RefineOptions(), 1).middle(None) == 0


def test_pairs_are_drawn_by_seed_and_training_goes_on_as_if_unbroken(tmp_path):
    pairs = draw_pairs((3, 1), {"prior": "none", "epochs": 3})
    same = draw_pairs((3, 1), {"prior": "none", "epochs": 3})
    assert [pair.image.tobytes() for pair in pairs] == [pair.image.tobytes() for pair in same]
    one, other = (Training(pairs, 1.0, 5) for _ in range(2))
    one.take_step(), one.take_step()
    other.take_step()
    other.save(tmp_path / "state.pt")
    later = Training(pairs, 1.0, 5)
    later.load(tmp_path / "state.pt")
    later.take_step()
    for a, b in zip(one.network.parameters(), later.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_what_is_kept_for_judging_is_never_drawn():
    rng = np.random.default_rng(0)
    others = ("photo", "field", "binary", "cells", "blobs", "star")
    assert np.isfinite(random_object(48, rng, without=others[:-1])).all()
    with pytest.raises(ValueError, match="empty"):
        random_object(48, rng, without=(*others, "lines"))

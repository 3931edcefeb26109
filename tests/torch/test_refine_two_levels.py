"""First object, coarse step, prior and schedule, each against its own formula; and the loop with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_refine_engine import N, guess_of, make_problem, object_error

from ptycho.errors import ConfigError, DataError
from ptycho.run.coarse_grid import CoarseGrid
from ptycho_torch.refine import RefineOptions, make_scan, reconstruct, start_state
from ptycho_torch.refine.coarse import coarse_field, coarse_step, local_problems, share
from ptycho_torch.refine.first_object import choose_start, scan_moments
from ptycho_torch.refine.forward import predict
from ptycho_torch.refine.held_out import judges, verdict
from ptycho_torch.refine.prior import (
    asked_for,
    choose_weight,
    keep_weight,
    photons_a_pixel,
    pulled_to,
    relative_light,
    smoothed_by_variation,
)
from ptycho_torch.refine.schedule import Schedule
from ptycho_torch.refine.storage import load_state, save_state
from ptycho_torch.refine.unknowns import illumination


def at_the_truth(modes=1, bad=None, photons=1e6):
    """A noise-free scan in float64 and its true state."""
    counts, positions, probe, truth, origin = make_problem(modes=modes, noise=False, photons=photons)
    scan = make_scan(counts, positions, probe, unit="counts", dtype=torch.complex128, bad_pixels=bad)
    state = start_state(scan, initial_object=truth)
    state.probe = torch.from_numpy(probe).to(torch.complex128)
    return scan, state, truth


def wave(shape, size, period=60.0):
    """A field (H, W) longer than the probe."""
    y, x = np.indices(shape)
    return size * np.sin(2 * np.pi * (x / period + 0.3 * y / period))


@pytest.mark.parametrize("modes", [1, 2])
@pytest.mark.parametrize("masked", [False, True])
def test_local_problems_are_the_derivatives_of_the_counts(modes, masked):
    bad = np.random.default_rng(0).random((N, N)) < 0.1 if masked else None
    scan, state, _ = at_the_truth(modes, bad)
    index = torch.arange(3, 6)
    normal, right, middle, _ = local_problems(scan, state, index)
    # at the truth nothing is asked, so one number away the right side is the normal matrix times that number
    assert float(right.abs().max()) < 1e-6 * float(normal.abs().max())
    line = torch.arange(N, dtype=torch.float64) - N // 2
    across, down = (line - middle[0]).expand(N, N), (line - middle[1])[:, None].expand(N, N)
    bends = (torch.ones(N, N, dtype=torch.float64), across, down, 1j * across, 1j * down)
    exit = predict(scan, state, index)
    floor = 1e-2 * scan.mean_counts / N**2
    weight = (exit.intensity + floor).rsqrt() * (1 if scan.good is None else scan.good)
    slopes = []
    for bend in bends:
        both = [
            torch.fft.fft2(exit.probes * (exit.patches * torch.exp(step * bend))[:, None], norm="ortho")
            for step in (1e-5, -1e-5)
        ]
        change = sum(sign * far.abs().square().sum(1) for sign, far in zip((1, -1), both, strict=True))
        slopes.append((weight * change / 2e-5).flatten(1))
    basis = torch.stack(slopes, 1)
    torch.testing.assert_close(
        normal, basis @ basis.transpose(1, 2), rtol=1e-6, atol=1e-6 * float(normal.max())
    )


@pytest.mark.parametrize("modes", [1, 2])
def test_one_coarse_step_takes_out_an_error_longer_than_the_probe(modes):
    scan, state, truth = at_the_truth(modes)
    error = np.exp(wave(truth.shape, 0.05) + 1j * wave(truth.shape, 0.2, 45.0))
    state.object = state.object * torch.from_numpy(error)

    def left(image):
        box = np.s_[20:-20, 20:-20]
        ratio = (image.numpy() / truth)[box]
        return np.log(np.abs(ratio)).std(), np.angle(ratio / ratio.mean()).std()

    before = left(state.object)
    asked, others = share(scan, state, 0, 1)
    assert not set(asked.tolist()) & set(others.tolist())
    assert len(asked) + len(others) == scan.size
    assert coarse_step(scan, state, asked, others)
    after = left(state.object)
    assert after[0] < 0.5 * before[0] and after[1] < 0.5 * before[1]


def test_a_coarse_step_that_judges_do_not_like_is_not_taken():
    scan, state, _ = at_the_truth()
    before = state.object.clone()
    field = coarse_field(scan, state, torch.arange(scan.size))
    assert float((field - 1).abs().max()) < 1e-2
    assert not coarse_step(scan, state, torch.arange(4), torch.arange(4, 40)) or torch.allclose(
        state.object, before, atol=1e-3
    )


def test_lost_patterns_have_no_say_in_the_coarse_step():
    scan, state, _ = at_the_truth()
    state.lost = torch.zeros(scan.size, dtype=torch.bool)
    state.lost[[3, 17]] = True
    asked, others = share(scan, state, 0, 1)
    assert not {3, 17} & set(torch.cat([asked, others]).tolist())


def test_grid_reads_values_and_slopes_where_they_are():
    grid = CoarseGrid((60, 80), 4.0, 30.0)
    # waves of the grid's own periods
    width, height = grid.grid[1] * 4.0, grid.grid[0] * 4.0
    y, x = np.meshgrid(4.0 * np.arange(grid.grid[0]), 4.0 * np.arange(grid.grid[1]), indexing="ij")
    kx, ky = 2 * np.pi * 2 / width, 2 * np.pi * 3 / height
    spectra = grid.spectra(np.sin(kx * x + ky * y)[None])
    coefficients = grid.images(spectra * grid.prefilter).ravel()
    at = np.random.default_rng(0).uniform(0, 55, (20, 2))
    turn = kx * at[:, 0] + ky * at[:, 1]
    np.testing.assert_allclose(grid.reader(at) @ coefficients, np.sin(turn), atol=2e-3)
    np.testing.assert_allclose(grid.reader(at, (1, 0)) @ coefficients, kx * np.cos(turn), atol=2e-3)
    np.testing.assert_allclose(grid.reader(at, (0, 1)) @ coefficients, ky * np.cos(turn), atol=2e-3)
    down, across = np.indices((60, 80))
    np.testing.assert_allclose(grid.canvas(spectra)[0], np.sin(kx * across + ky * down), atol=2e-3)


def test_moments_of_a_scan_are_those_of_its_patterns():
    from ptycho.run.moments import pattern_moments

    counts, positions, probe, _, _ = make_problem(side=4)
    bad = np.random.default_rng(0).random((N, N)) < 0.1
    plain = pattern_moments(counts, bad_pixels=bad)
    found = scan_moments(make_scan(counts, positions, probe, bad_pixels=bad))
    np.testing.assert_allclose(found.counts, plain.counts, rtol=1e-5)
    np.testing.assert_allclose(found.centre_xy, plain.centre_xy, atol=1e-6)


def test_the_better_first_object_is_taken():
    counts, positions, probe, truth, _ = make_problem(photons=1e6)
    scan = make_scan(counts, positions, probe)
    flat = start_state(scan)
    started, name = choose_start(scan, flat, "auto")
    every = torch.arange(scan.size)
    assert name in ("flat", "coarse", "coarse amplitude")
    assert verdict(scan, started, every) <= verdict(scan, flat, every)
    assert choose_start(scan, flat, "flat")[1] == "flat" and choose_start(scan, flat, "coarse")[1] == "coarse"
    flickering = replace(flat, intensity=torch.ones(scan.size))
    assert choose_start(scan, flickering, "auto")[1] == "flat"


def test_verdict_does_not_see_the_scale_of_the_probe_nor_bad_pixels():
    bad = np.random.default_rng(0).random((N, N)) < 0.1
    scan, state, _ = at_the_truth(bad=bad)
    index = torch.arange(scan.size)
    once = verdict(scan, state, index)
    assert verdict(scan, replace(state, probe=3 * state.probe), index) == pytest.approx(once, rel=1e-9)
    worse = replace(state, object=state.object * (1 + 0.1 * torch.randn(state.object.shape)))
    assert verdict(scan, worse, index) > once


def test_judges_are_few_and_come_from_where_the_scan_is_dense():
    counts, positions, probe, _, _ = make_problem()
    scan = make_scan(counts, positions, probe)
    chosen = judges(scan, 0)
    assert len(chosen) == scan.size // 16 and len(set(chosen.tolist())) == len(chosen)
    assert not torch.equal(judges(scan, 1), chosen)
    small = make_scan(counts[:20], positions[:20], probe)
    assert len(judges(small, 0)) == 0


def energy(image, noisy, light, weight):
    """What total variation minimises, written plainly."""
    down, across = torch.zeros_like(image), torch.zeros_like(image)
    across[:, :-1], down[:-1] = image[:, 1:] - image[:, :-1], image[1:] - image[:-1]
    length = (across.abs().square() + down.abs().square()).sqrt()
    return float(0.5 * (light * (image - noisy).abs().square()).sum() + weight * length.sum())


def test_total_variation_goes_to_its_minimum():
    rng = np.random.default_rng(0)
    y, x = np.indices((40, 50))
    clean = np.where(x > 20, 1.0, 0.7) * np.exp(0.4j * (y > 15))
    noisy = torch.from_numpy(clean + 0.1 * (rng.normal(size=clean.shape) + 1j * rng.normal(size=clean.shape)))
    light = torch.ones(clean.shape, dtype=torch.float64)
    light[:, :10] = 0.2
    least = smoothed_by_variation(noisy, light, 0.1, 2000)
    floor = energy(least, noisy, light, 0.1)
    for _ in range(20):
        nudged = least + 1e-3 * torch.from_numpy(
            rng.normal(size=clean.shape) + 1j * rng.normal(size=clean.shape)
        )
        assert energy(nudged, noisy, light, 0.1) > floor
    found = smoothed_by_variation(noisy, light, 0.1)
    assert energy(found, noisy, light, 0.1) < 1.05 * floor < 0.5 * energy(noisy, noisy, light, 0.1)
    assert np.abs(found.numpy() - clean).mean() < 0.5 * np.abs(noisy.numpy() - clean).mean()
    assert smoothed_by_variation(noisy, light, 0.0) is noisy


def test_weight_is_what_held_out_patterns_like():
    counts, positions, probe, truth, _ = make_problem(photons=1e6)
    scan = make_scan(counts, positions, probe)
    state = start_state(scan, initial_object=truth)
    light = relative_light(illumination(scan, state))
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(0.2 * (rng.normal(size=truth.shape) + 1j * rng.normal(size=truth.shape)))
    noisy = replace(state, object=state.object + noise.to(state.object.dtype))
    asked = judges(scan, 0)
    before = verdict(scan, noisy, asked)
    choose_weight(scan, noisy, light, 0.5, asked)
    assert float(noisy.variation[0]) > 0 and float(noisy.variation[1]) == 0.5
    assert verdict(scan, noisy, asked) < before
    choose_weight(scan, state, light, 0.5, asked)
    assert float(state.variation[0]) < float(noisy.variation[0])
    again = replace(noisy, object=state.object + noise.to(state.object.dtype))
    keep_weight(again, light, 0.25)
    half = smoothed_by_variation(
        state.object + noise.to(state.object.dtype), light, float(noisy.variation[0]) / 2
    )
    torch.testing.assert_close(again.object, half)


def test_a_pull_to_the_first_object_is_what_held_out_patterns_like():
    counts, positions, probe, truth, _ = make_problem(photons=1e3)
    scan = make_scan(counts, positions, probe)
    state = start_state(scan, initial_object=truth)
    light = relative_light(illumination(scan, state))
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(0.4 * (rng.normal(size=truth.shape) + 1j * rng.normal(size=truth.shape)))
    asked = judges(scan, 0)
    plain = replace(state, object=state.object + noise.to(state.object.dtype))
    drawn = replace(plain, first=1.5j * state.object)
    choose_weight(scan, plain, light, 1.0, asked)
    choose_weight(scan, drawn, light, 1.0, asked)
    assert plain.pull is None and float(drawn.pull[0]) > 0
    assert verdict(scan, drawn, asked) < verdict(scan, plain, asked)
    assert torch.equal(pulled_to(plain.object, state.object, light, 0.0), plain.object)


def test_momentum_brings_more_in_the_same_sweeps_and_resumes_to_the_byte(tmp_path):
    counts, positions, probe, truth, _ = make_problem(photons=1e6, side=7, step=8.0)
    scan = make_scan(counts, positions, guess_of(probe))
    whole = reconstruct(scan, epochs=12, prior="none")
    none = reconstruct(scan, epochs=12, prior="none", momentum=0.0)
    assert whole.r < none.r and object_error(whole, truth) < object_error(none, truth)
    path = tmp_path / "state.safetensors"
    stop = {"callbacks": (lambda now: now.epoch == 5,), "checkpoint": path}
    reconstruct(scan, epochs=12, prior="none", **stop)
    resumed = reconstruct(scan, epochs=12, prior="none", checkpoint=path, resume=True)
    assert resumed.object.tobytes() == whole.object.tobytes()


def test_nothing_is_carried_on_with_one_level_or_where_positions_move():
    assert RefineOptions().carried > 0 and RefineOptions(momentum=0.3).carried == 0.3
    for still in ({"levels": 1}, {"positions": "free"}, {"rule": "adam"}, {"rule": "raar"}):
        assert RefineOptions(**still).carried == 0


def test_prior_is_asked_for_where_photons_are_few():
    few, positions, probe, _, _ = make_problem(photons=300)
    hardly, many = (make_problem(photons=photons)[0] for photons in (20, 1e6))
    for counts, wanted in ((hardly, "tv"), (few, "learned"), (many, "none")):
        scan = make_scan(counts, positions, probe)
        state = start_state(scan)
        assert asked_for(scan, state, RefineOptions()) == wanted
        for named in ("learned", "tv", "none"):
            assert asked_for(scan, state, RefineOptions(prior=named)) == named
        state.variation = torch.tensor([0.0, 1.0])
        assert asked_for(scan, state, RefineOptions()) == "tv"
    assert photons_a_pixel(scan, state) == pytest.approx(
        photons_a_pixel(make_scan(2 * many, positions, probe), state) / 2, rel=1e-3
    )


def test_the_schedule_ends_when_a_sweep_brings_little_more():
    schedule = Schedule(RefineOptions())

    def after(*r):
        course = torch.tensor(r, dtype=torch.float64)
        return schedule.full_sweeps(course), schedule.length(course)

    assert after(0.3, 0.2999) == (2, 20)
    assert after(0.3, 0.2, 0.19, 0.1895) == (4, 22)
    # what comes after the full sweeps does not lengthen them again
    assert after(0.3, 0.2, 0.19, 0.1895, 0.1, 0.05) == (4, 22)
    assert after(*(0.9**k for k in range(30))) == (20, 38)
    course = torch.tensor([0.3, 0.2999] + [0.29] * 18)
    steps = [schedule.strength(epoch, course) for epoch in range(20)]
    assert steps[:3] == [1.0, 1.0, 1.0] and steps[-1] == 0.02 and all(np.diff(steps[2:]) < 0)
    assert Schedule(RefineOptions(), 7).length(course) == 7
    for fixed in (RefineOptions(positions="free"), RefineOptions(rule="adam"), RefineOptions(rule="raar")):
        assert Schedule(fixed).length(None) == 40
    assert not Schedule(RefineOptions(levels=1)).levels(1, None) and schedule.levels(1, None)


def test_default_explains_more_than_the_same_sweeps_from_a_flat_object():
    counts, positions, probe, truth, _ = make_problem(photons=1e5, side=12)
    scan = make_scan(counts, positions, guess_of(probe))
    two = reconstruct(scan)
    one = reconstruct(scan, start="flat", levels=1, prior="none", epochs=len(two.history))
    assert two.r < one.r and object_error(two, truth) < 0.02
    assert two.stopped == "sweeps" and 20 <= len(two.history) <= 38


def test_total_variation_helps_where_photons_are_few_and_its_run_resumes_to_the_byte(tmp_path):
    counts, positions, probe, truth, _ = make_problem(photons=500, side=10)
    scan = make_scan(counts, positions, guess_of(probe))
    none = reconstruct(scan, prior="none", epochs=10)
    path = tmp_path / "state.safetensors"
    with_prior = reconstruct(scan, epochs=10, prior="tv")
    assert with_prior.variation is not None
    assert object_error(with_prior, truth) < object_error(none, truth)
    reconstruct(scan, epochs=10, prior="tv", checkpoint=path, callbacks=(lambda now: now.epoch == 4,))
    resumed = reconstruct(scan, epochs=10, prior="tv", checkpoint=path, resume=True)
    assert resumed.object.tobytes() == with_prior.object.tobytes() and resumed.began == with_prior.began
    with pytest.raises(ConfigError, match="was made with prior = tv, not auto"):
        reconstruct(scan, epochs=10, checkpoint=path, resume=True)


def test_a_state_file_from_before_these_options_goes_on_as_the_loop_it_was(tmp_path):
    counts, positions, probe, _, _ = make_problem(side=4)
    scan = make_scan(counts, positions, guess_of(probe))
    old = {"start": "flat", "levels": 1, "prior": "none"}
    whole = reconstruct(scan, epochs=6, **old)
    path = tmp_path / "old.safetensors"
    reconstruct(scan, epochs=6, checkpoint=path, callbacks=(lambda now: now.epoch == 3,), **old)
    state, rule, settings = load_state(path)
    state.course = None
    save_state(path, state, rule, {k: v for k, v in settings.items() if k not in (*old, "began")})
    assert (
        reconstruct(scan, epochs=6, checkpoint=path, resume=True, **old).object.tobytes()
        == whole.object.tobytes()
    )
    with pytest.raises(ConfigError, match="was made with start = flat, not auto"):
        reconstruct(scan, epochs=6, checkpoint=path, resume=True)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"start": "warm"}, "start='warm' is unknown"),
        ({"levels": 3}, "levels=3 must be 1 or 2"),
        ({"prior": "l1"}, "prior='l1' is unknown"),
        ({"full_epochs": -1}, "full_epochs=-1"),
        ({"momentum": 1.0}, "momentum=1.0 must lie"),
    ],
)
def test_wrong_choices_are_named(wrong, message):
    with pytest.raises(ConfigError, match=message):
        RefineOptions(**wrong).check()


def test_watch_sees_the_first_object_and_every_sweep(tmp_path):
    counts, positions, probe, _, _ = make_problem(side=5)
    seen = []
    reconstruct(
        make_scan(counts, positions, probe), epochs=3, watch=lambda scan, state, done: seen.append(done)
    )
    assert seen == [0, 1, 2, 3]
    from PIL import Image

    from ptycho_torch.refine.preview import write_preview

    scan = make_scan(counts, positions, probe)
    state = start_state(scan)
    write_preview(tmp_path / "preview.png", scan, state)
    with Image.open(tmp_path / "preview.png") as picture:
        assert picture.size == (2 * state.canvas.shape[1], state.canvas.shape[0])


def test_positions_that_do_not_fit_are_named():
    from ptycho.run.coarse_start import coarse_start

    with pytest.raises(DataError, match="positions have shape"):
        coarse_start(np.ones((3, N, N)), np.zeros((2, 2)), np.ones((N, N)))

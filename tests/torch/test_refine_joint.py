"""Object, probe, positions and strain in one least-squares problem: derivatives, steps, what they recover."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_refine_engine import guess_of, make_problem
from test_refine_positions import left, photographs, true_state

from ptycho_torch.refine import joint as joint_module
from ptycho_torch.refine import make_scan, reconstruct, start_state
from ptycho_torch.refine.forward import predict
from ptycho_torch.refine.joint import Linear, Move, joint_step, object_prior
from ptycho_torch.refine.strain import slopes, stretch


def small(modes=2, intensity=True):
    """A scan of nine positions in double precision, two modes, intensity factors and dead pixels."""
    counts, positions, probe, truth, _ = make_problem(side=3, photons=1e6)
    bad = np.random.default_rng(1).random(probe.shape[-2:]) < 0.1
    scan = make_scan(counts, positions + 0.3, probe, unit="counts", bad_pixels=bad, dtype=torch.complex128)
    state = start_state(scan, modes=modes, initial_object=truth, intensity=intensity, margin_px=3)
    if intensity:
        state.intensity = torch.linspace(0.8, 1.2, scan.size, dtype=torch.float64)
    return scan, state


def random_move(state, rng, scale=1.0):
    def draw(shape):
        return torch.from_numpy(rng.normal(size=shape)) * scale

    def complex_(shape):
        return torch.complex(draw(shape), draw(shape))

    size = float(state.probe.abs().max())
    return Move(
        complex_(state.object.shape),
        size * complex_(state.probe.shape),
        draw(state.positions_xy.shape),
        0.01 * draw((4,)),
    )


def intensities(scan, state):
    return predict(scan, state, torch.arange(scan.size)).intensity


def linear_change(linear, move):
    spectrum = torch.fft.fft2(move.probe)
    return torch.cat([linear.forward(b, move, spectrum) for b in linear._batches()])


def test_the_linear_model_is_the_derivative_of_the_counts():
    scan, state = small()
    linear = Linear(scan, state, torch.arange(scan.size), probe=True, strain=True)
    move = random_move(state, np.random.default_rng(0))._replace(strain=torch.zeros(4, dtype=torch.float64))
    step = 1e-5
    ends = []
    for sign in (1, -1):
        there = state.clone()
        there.object = state.object + sign * step * move.object
        there.probe = state.probe + sign * step * move.probe
        there.positions_xy = state.positions_xy + sign * step * move.positions
        ends.append(intensities(scan, there))
    weight = scan.good * (intensities(scan, state) + linear.floor).rsqrt()
    expected = weight * (ends[0] - ends[1]) / (2 * step)
    got = linear_change(linear, move)
    assert float((got - expected).norm()) < 1e-6 * float(expected.norm())


def smooth_state(probe_sigma_px=None):
    """Scan and state in double precision, the object band-limited: `stretch` moves it without error.

    probe_sigma_px: a Gaussian probe instead of the scan's own, with 3 % of its peak at the window's edge.
    """
    scan, state = true_state()
    height, width = state.object.shape
    ky, kx = (torch.fft.fftfreq(side, dtype=torch.float64) for side in (height, width))
    k = torch.hypot(ky[:, None], kx[None, :])
    noise = torch.randn(
        state.object.shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(0)
    )
    state.object = 1 + 3 * torch.fft.ifft2(torch.fft.fft2(noise) * torch.exp(-((k / 0.08) ** 2)))
    if probe_sigma_px is not None:
        line = torch.arange(scan.n, dtype=torch.float64) - scan.n // 2
        bell = torch.exp(-(line.square() + line[:, None].square()) / (2 * probe_sigma_px**2))
        state.probe = (state.probe.abs().max() * bell)[None].to(state.probe)
    return scan, state


SOME = torch.arange(30, 60)


def strained_by(state, entry, step):
    bend = step * torch.eye(4, dtype=torch.float64)[entry].reshape(2, 2)
    there = state.clone()
    stretch(there, torch.eye(2, dtype=torch.float64) + bend)
    return there


def change_by_strain(scan, state, linear, entry, step, one_sided=False):
    """Weighted change of the counts for a unit of strain, by differences."""
    weight = (predict(scan, state, SOME).intensity + linear.floor).rsqrt()
    low = state if one_sided else strained_by(state, entry, -step)
    ends = [predict(scan, there, SOME).intensity for there in (strained_by(state, entry, step), low)]
    return weight * (ends[0] - ends[1]) / (step if one_sided else 2 * step)


def strain_column(linear, entry):
    bend = torch.eye(4, dtype=torch.float64)[entry]
    return linear_change(linear, linear.zero()._replace(strain=bend))


@pytest.mark.parametrize("entry", range(4))
def test_strain_is_the_derivative_of_stretching_object_and_positions(entry):
    scan, state = smooth_state(probe_sigma_px=2.5)
    linear = Linear(scan, state, SOME, probe=True, strain=True)
    got = strain_column(linear, entry)
    central = change_by_strain(scan, state, linear, entry, 1e-5)
    assert float((central - got).norm()) < 1e-6 * float(got.norm())
    wrong = []
    for step in (8e-4, 4e-4, 2e-4):
        change = change_by_strain(scan, state, linear, entry, step, one_sided=True)
        wrong.append(float((change - got).norm() / got.norm()))
    # a one-sided difference errs by half the second derivative times the step, and by nothing else
    assert wrong[0] / wrong[1] == pytest.approx(2, rel=0.02)
    assert wrong[1] / wrong[2] == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize("entry", range(4))
def test_what_the_strain_leaves_out_is_the_wrap_of_the_probes_tails(entry):
    # straining object and positions moves each exit wave as a whole, which no detector sees; a Fourier shift
    # wraps what of the probe reaches the window's edge, so there the shift is seen. It goes with the tails.
    error = []
    for sigma in (None, 4.0, 3.5, 3.0):
        scan, state = smooth_state(sigma)
        linear = Linear(scan, state, SOME, probe=True, strain=True)
        central = change_by_strain(scan, state, linear, entry, 1e-5)
        error.append(float((strain_column(linear, entry) - central).norm() / central.norm()))
    assert 0.05 < error[0] < 0.4
    assert error[1] > 5 * error[2] > 25 * error[3]


@pytest.mark.parametrize("entry", range(4))
def test_with_its_tails_a_strain_is_a_move_of_object_and_positions(entry):
    scan, state = smooth_state()
    linear = Linear(scan, state, SOME, probe=True, strain=True)
    bend = torch.eye(4, dtype=torch.float64)[entry].reshape(2, 2)
    middle = state.positions_xy.mean(0)
    height, width = state.object.shape
    y, x = torch.meshgrid(
        *(torch.arange(side, dtype=torch.float64) for side in (height, width)), indexing="ij"
    )
    origin = torch.tensor(state.canvas.origin_xy)
    away = (torch.stack([x, y], -1) + origin - middle) @ bend.T
    slope_x, slope_y = slopes(state.object)
    move = linear.zero()._replace(
        object=-slope_x * away[..., 0] - slope_y * away[..., 1],
        positions=(state.positions_xy - middle) @ bend.T,
    )
    central = change_by_strain(scan, state, linear, entry, 1e-5)
    got = linear_change(linear, move)
    assert float((got - central).norm()) < 1e-7 * float(central.norm())


@pytest.mark.parametrize("entry", range(4))
def test_the_likelihoods_slope_along_a_strain(entry):
    scan, state = smooth_state(probe_sigma_px=2.5)
    linear = Linear(scan, state, SOME, probe=True, strain=True)
    linear._stiff = torch.zeros_like(linear._stiff)  # the prior is on the object in its own frame
    ends = [linear.loss(strained_by(state, entry, step)) for step in (1e-5, -1e-5)]
    got = float(linear.gradient().strain[entry] / linear.unit.strain[entry])
    assert got == pytest.approx(-(ends[0] - ends[1]) / 2e-5, rel=1e-4)


def test_the_adjoint_is_the_adjoint_and_the_gradient_that_of_the_likelihood():
    scan, state = small()
    linear = Linear(scan, state, torch.arange(scan.size), probe=True, strain=True)
    rng = np.random.default_rng(0)
    one, two = (random_move(state, rng).times(linear.unit) for _ in range(2))
    unit = linear.unit.positions
    one, two = (
        m._replace(positions=m.positions - unit * (m.positions * unit).sum(0) / (unit**2).sum(0))
        for m in (one, two)
    )
    assert one.dot(linear.normal(two)) == pytest.approx(two.dot(linear.normal(one)), rel=1e-9)
    move = one._replace(strain=torch.zeros(4, dtype=torch.float64))
    step, ends = 1e-4, []
    for sign in (1, -1):
        plain = move.times(linear.unit)
        there = state.clone()
        there.object = state.object + sign * step * plain.object
        there.probe = state.probe + sign * step * plain.probe
        there.positions_xy = state.positions_xy + sign * step * plain.positions
        ends.append(linear.loss(there))
    assert -(ends[0] - ends[1]) / (2 * step) == pytest.approx(linear.gradient().dot(move), rel=1e-5)


def test_waves_computed_anew_give_the_kept_ones_step(monkeypatch):
    scan, state = small(modes=1, intensity=False)
    other = state.clone()
    joint_step(scan, state, iterations=4)
    monkeypatch.setattr(joint_module, "_CACHED", 0)
    joint_step(scan, other, iterations=4)
    torch.testing.assert_close(other.object, state.object)
    torch.testing.assert_close(other.positions_xy, state.positions_xy)


def test_what_is_held_stays_and_lost_patterns_have_no_say():
    scan, state = small(modes=1, intensity=False)
    scan.counts[4] = scan.counts[4].flip(-1)
    state.lost = torch.arange(scan.size) == 4
    before = state.clone()
    joint_step(scan, state, iterations=4, with_probe=False, with_strain=False)
    torch.testing.assert_close(state.probe, before.probe)
    torch.testing.assert_close(state.positions_xy[4], before.positions_xy[4])
    assert float((state.positions_xy - before.positions_xy).norm()) > 0


def test_the_prior_has_the_objects_own_power_law():
    _, state = true_state()
    rng = np.random.default_rng(0)
    height, width = state.object.shape
    k = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    k[0, 0] = 1
    for fall in (2.4, 3.4):
        noise = np.fft.fft2(rng.normal(size=(height, width)) + 1j * rng.normal(size=(height, width)))
        state.object = torch.from_numpy(np.fft.ifft2(noise * k ** (-fall / 2)))
        stiff = object_prior(state)
        got = np.log(float(stiff[0, 20] / stiff[0, 5])) / np.log(4)
        assert got == pytest.approx(fall, abs=0.25)
    state.object = torch.ones_like(state.object)
    assert float(object_prior(state).max()) == 0


@pytest.mark.parametrize("photons", [1e5, 1e6, 1e7])
def test_a_scan_with_a_wrong_scale_and_angle_is_put_right(photons):
    counts, positions, guess, _, _ = photographs(photons)
    turn = np.deg2rad(1.0)
    wrong = 1.01 * positions @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    result = reconstruct(make_scan(counts, wrong, guess), positions="affine")
    assert left(result.positions_xy, positions) < 0.4 * left(wrong, positions)


@pytest.mark.parametrize("positions", ["free", "affine"])
def test_right_positions_come_back_as_they_were(positions):
    counts, where, guess, _, _ = photographs(1e5)
    result = reconstruct(make_scan(counts, where, guess), positions=positions, epochs=20)
    assert left(result.positions_xy, where) < 0.01


def test_errors_under_a_pixel_go_to_a_fraction_of_it():
    counts, positions, guess, _, _ = photographs(1e7)
    wrong = positions + np.random.default_rng(3).normal(0, 0.5, positions.shape)
    result = reconstruct(make_scan(counts, wrong, guess), positions="free")
    assert left(result.positions_xy, positions) < 0.15 * left(wrong, positions)


def test_joint_sweeps_resume_to_the_byte(tmp_path):
    counts, positions, probe, _, _ = make_problem(side=5)
    wrong = positions + np.random.default_rng(3).normal(0, 0.4, positions.shape)
    scan = make_scan(counts, wrong, guess_of(probe))
    options = {"positions": "affine", "epochs": 30}
    whole = reconstruct(scan, **options)
    path = tmp_path / "state.safetensors"
    reconstruct(scan, **options, checkpoint=path, callbacks=(lambda now: now.epoch == 12,))
    again = reconstruct(scan, **options, checkpoint=path, resume=True)
    assert again.positions_xy.tobytes() == whole.positions_xy.tobytes()
    assert again.object.tobytes() == whole.object.tobytes()

"""The loop and its operators: adjoints, gauges, determinism, resume, Ctrl-C, options, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ptycho.errors import ConfigError, DataError
from ptycho_torch.refine import iterate, make_scan, reconstruct, refine_probe, start_state
from ptycho_torch.refine.batches import make_batches
from ptycho_torch.refine.forward import predict
from ptycho_torch.refine.operators import (
    Canvas,
    gather,
    gather_indexed,
    scatter_add,
    scatter_add_indexed,
    shift_fourier,
    shift_ramps,
    split_positions,
    unshift_sum,
)
from ptycho_torch.refine.unknowns import orthogonalise, position_step

N = 32


def make_problem(modes=1, photons=3e4, seed=0, side=9, step=2.2, noise=True):
    """A small scan: counts (M,N,N), centres (M,2) [x,y], true probe, object and its origin."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2) * step
    positions = grid + rng.uniform(-0.8, 0.8, grid.shape) + N
    k = np.fft.fftfreq(N) * N
    r = np.hypot(k[:, None], k)
    pupil = np.exp(0.06j * r**2) / (1 + np.exp((r - 6.5) / 0.4))
    probe = np.fft.fftshift(np.fft.ifft2(pupil))[None]
    if modes > 1:
        x = np.arange(N) - N // 2
        more = [probe[0] * x / 3 * 0.8, probe[0] * x[:, None] / 3 * 0.6]
        probe = orthogonalise(torch.from_numpy(np.concatenate([probe, more])[:modes])).numpy()
    probe = (probe * np.sqrt(photons / np.sum(np.abs(probe) ** 2))).astype(np.complex64)
    canvas = Canvas.around(positions, N)
    y, x = np.indices(canvas.shape)
    truth = (0.85 + 0.12 * np.sin(x / 3) * np.cos(y / 4)) * np.exp(
        0.5j * np.sin((x + y) / 5) + 0.3j * np.cos(y / 3)
    )
    blank = make_scan(np.ones((len(positions), N, N), np.int32), positions, probe)
    state = start_state(blank, initial_object=truth)
    state.probe = torch.from_numpy(probe)
    clean = torch.fft.fftshift(
        predict(blank, state, torch.arange(len(positions))).intensity, dim=(-2, -1)
    ).numpy()
    counts = rng.poisson(clean) if noise else clean
    return counts, positions, probe, truth, canvas.origin_xy


def guess_of(probe):
    k = np.fft.fftfreq(N) * N
    spectrum = np.fft.fft2(probe[0]) * np.exp(0.012j * (k[:, None] ** 2 + k**2))
    return np.fft.ifft2(spectrum).astype(np.complex64)


def object_error(result, truth, inset=20):
    box = np.s_[inset:-inset, inset:-inset]
    found, true = result.object[box].astype(complex), truth[box]
    y, x = np.indices(found.shape)
    ratio = found * true.conj()
    dx = np.angle(np.sum(ratio[:, 1:] * ratio[:, :-1].conj()))
    dy = np.angle(np.sum(ratio[1:] * ratio[:-1].conj()))
    found = found * np.exp(-1j * (dx * x + dy * y))
    scale = np.vdot(found, true) / np.vdot(found, found)
    return np.linalg.norm(scale * found - true) / np.linalg.norm(true)


def random_complex(rng, *shape):
    return torch.from_numpy(rng.normal(size=shape) + 1j * rng.normal(size=shape))


def test_gather_and_scatter_are_adjoint_and_land_on_the_known_pixel():
    rng = np.random.default_rng(0)
    corners = torch.tensor([[0, 0], [3, 7], [8, 2]])
    canvas, patches = random_complex(rng, 40, 41), random_complex(rng, 3, N, N)
    total = torch.zeros_like(canvas)
    scatter_add(total, patches, corners)
    assert torch.vdot(canvas.flatten(), total.flatten()) == pytest.approx(
        complex(torch.vdot(gather(canvas, corners, N).flatten(), patches.flatten()))
    )
    positions = torch.tensor([[50.25, 61.0]], dtype=torch.float64)
    where = Canvas((40, 41), (30, 40))
    whole, fraction = split_positions(positions, where, N)
    assert whole.tolist() == [[61 - 16 - 40, 50 - 16 - 30]]
    assert fraction.tolist() == [[0.25, 0.0]]


def test_windows_of_other_devices_are_those_of_the_cpu():
    rng = np.random.default_rng(4)
    corners = torch.tensor([[0, 0], [3, 7], [3, 6]])
    canvas, patches = random_complex(rng, 40, 41), random_complex(rng, 3, N, N)
    torch.testing.assert_close(gather_indexed(canvas, corners, N), gather(canvas, corners, N))
    first, second = torch.zeros_like(canvas), torch.zeros_like(canvas)
    scatter_add(first, patches, corners)
    scatter_add_indexed(second, patches, corners)
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("kind", ["random", "compact"])
@pytest.mark.parametrize("count", [5, 100, 3000])
def test_a_sweep_visits_every_pattern_once(kind, count):
    positions = torch.from_numpy(np.random.default_rng(0).uniform(0, 100, (count, 2)))
    batches = make_batches(positions, 16, kind, 0, 3)
    assert sorted(torch.cat(batches).tolist()) == list(range(count))
    assert max(len(batch) for batch in batches) <= 24
    assert all(
        torch.equal(a, b) for a, b in zip(batches, make_batches(positions, 16, kind, 0, 3), strict=True)
    )


def test_fourier_shift_is_unitary_and_undone_by_its_adjoint():
    rng = np.random.default_rng(1)
    ramps = shift_ramps(torch.tensor([[0.3, -0.4]], dtype=torch.float64), N, torch.complex128)
    image = random_complex(rng, 2, N, N)
    moved = shift_fourier(image, ramps)
    assert torch.linalg.vector_norm(moved) == pytest.approx(float(torch.linalg.vector_norm(image)))
    torch.testing.assert_close(unshift_sum(moved, ramps), image)
    from ptycho.physics import shift_fourier as oracle

    np.testing.assert_allclose(moved[0, 0].numpy(), oracle(image[0].numpy(), [0.3, -0.4]), atol=1e-12)


def test_window_gradient_is_the_scatter():
    rng = np.random.default_rng(2)
    canvas = random_complex(rng, 36, 36).requires_grad_(True)
    corners = torch.tensor([[0, 1], [4, 2]])
    assert torch.autograd.gradcheck(lambda c: gather(c, corners, N), [canvas], fast_mode=True)


def test_the_model_keeps_every_photon_of_the_exit_wave():
    counts, positions, probe, truth, _ = make_problem(modes=2)
    scan = make_scan(counts, positions, probe, dtype=torch.complex128)
    exit = predict(scan, start_state(scan, initial_object=truth), torch.arange(4))
    waves = (exit.probes * exit.patches[:, None]).abs().square().sum((1, 2, 3))
    torch.testing.assert_close(exit.intensity.sum((1, 2)), waves)


def test_flat_start_and_wrong_probe_reach_the_truth():
    counts, positions, probe, truth, origin = make_problem()
    result = refine_probe(counts, positions, guess_of(probe), epochs=40, start="flat", levels=1)
    assert result.origin_xy == origin
    assert object_error(result, truth) < 0.06
    assert result.history[-1]["r"] < 0.5 * result.history[0]["r"]
    covered = result.object[result.coverage > 0.3]
    explained = np.sum(np.abs(result.probe) ** 2) * np.mean(np.abs(covered) ** 2)
    assert explained == pytest.approx(counts.sum((1, 2)).mean(), rel=0.15)


@pytest.mark.parametrize("rule", ["epie", "rpie", "lsqml", "raar", "adam"])
def test_every_rule_improves_and_repeats_itself_to_the_byte(rule):
    counts, positions, probe, _, _ = make_problem(side=5)
    first, second = (
        reconstruct(make_scan(counts, positions, guess_of(probe)), rule=rule, epochs=6) for _ in range(2)
    )
    assert first.object.tobytes() == second.object.tobytes()
    assert first.probe.tobytes() == second.probe.tobytes()
    assert first.r < first.history[0]["r"]


@pytest.mark.parametrize("batch_size", [1, 7, 25])
def test_no_batch_size_diverges(batch_size):
    counts, positions, probe, _, _ = make_problem(side=5)
    result = refine_probe(
        counts, positions, guess_of(probe), epochs=8, batch_size=batch_size, batches="compact"
    )
    assert result.r < result.history[0]["r"]


def test_probe_scale_and_count_scale_change_only_what_is_free():
    counts, positions, probe, _, _ = make_problem()
    base = refine_probe(counts, positions, guess_of(probe), epochs=5)
    scaled = refine_probe(counts, positions, 37.0 * guess_of(probe), epochs=5)
    np.testing.assert_allclose(scaled.object, base.object, atol=2e-3)
    brighter = refine_probe(counts * 9, positions, guess_of(probe), epochs=5)
    np.testing.assert_allclose(brighter.object, base.object, atol=2e-3)
    np.testing.assert_allclose(brighter.probe, 3 * base.probe, atol=2e-3 * np.abs(brighter.probe).max())


def test_amplitude_and_counts_are_the_same_scan():
    counts, positions, probe, _, _ = make_problem(side=4)
    as_counts = refine_probe(counts, positions, probe, epochs=2)
    as_amplitude = refine_probe(np.sqrt(counts, dtype=np.float32), positions, probe, epochs=2)
    np.testing.assert_allclose(as_amplitude.object, as_counts.object, atol=1e-3)


def test_three_modes_explain_what_one_cannot_and_come_out_orthogonal_and_sorted():
    counts, positions, probe, _, _ = make_problem(modes=3, photons=1e6)
    one = refine_probe(counts, positions, probe[0], epochs=25)
    three = refine_probe(counts, positions, probe[0], epochs=25, modes=3)
    assert three.r < 0.9 * one.r
    flat = three.probe.reshape(3, -1)
    gram = np.abs(flat.conj() @ flat.T)
    assert np.all(np.diff(np.diag(gram)) <= 0)
    assert np.max(gram - np.diag(np.diag(gram))) < 1e-4 * gram[0, 0]


def test_orthogonalising_keeps_the_incoherent_sum():
    modes = random_complex(np.random.default_rng(3), 3, 8, 8)
    torch.testing.assert_close(orthogonalise(modes).abs().square().sum(0), modes.abs().square().sum(0))


def test_bad_pixels_have_no_say():
    counts, positions, probe, truth, _ = make_problem()
    bad = np.random.default_rng(0).random((N, N)) < 0.05
    wild = np.where(bad, 10 * counts.max(), counts)
    clean = refine_probe(np.where(bad, 0, counts), positions, guess_of(probe), epochs=30, bad_pixels=bad)
    spoiled = refine_probe(wild, positions, guess_of(probe), epochs=30, bad_pixels=bad)
    assert spoiled.object.tobytes() == clean.object.tobytes()
    assert object_error(spoiled, truth) < 0.1
    missing = np.where(bad, np.nan, counts)
    assert refine_probe(missing, positions, probe, unit="counts", bad_pixels=bad, epochs=1).r > 0


def test_right_positions_stay_and_wrong_ones_move_home():
    counts, positions, probe, _, _ = make_problem(photons=1e6)
    still = refine_probe(counts, positions, probe, epochs=20, positions="free")
    assert np.sqrt(np.mean(np.sum((still.positions_xy - positions) ** 2, 1))) < 0.05
    rng = np.random.default_rng(5)
    wrong = positions + rng.normal(0, 0.7, positions.shape)
    moved = refine_probe(counts, wrong, probe, epochs=40, positions="free")

    def rms(found):
        away = found - positions
        return np.sqrt(np.mean(np.sum((away - away.mean(0)) ** 2, 1)))

    assert rms(moved.positions_xy) < 0.5 * rms(wrong)


def test_position_step_points_at_the_true_position():
    counts, positions, probe, truth, _ = make_problem(noise=False)
    scan = make_scan(counts, positions, probe, unit="counts", dtype=torch.complex128)
    state = start_state(scan, initial_object=truth)
    state.probe = torch.from_numpy(probe).to(torch.complex128)
    away = torch.tensor([0.05, -0.03], dtype=torch.float64)
    state.positions_xy = state.positions_xy + away
    step, information = position_step(scan, state, predict(scan, state, torch.arange(10, 30)))
    torch.testing.assert_close(step, -away.expand_as(step), atol=0.01, rtol=0)
    assert (torch.linalg.eigvalsh(information) > 0).all()


def test_intensity_factors_follow_a_flickering_source():
    counts, positions, probe, _, _ = make_problem(noise=False, photons=1e6)
    flicker = np.random.default_rng(1).uniform(0.7, 1.3, len(positions))
    flicker /= np.sqrt(np.mean(flicker**2))
    result = refine_probe(
        counts * flicker[:, None, None] ** 2, positions, probe, unit="counts", epochs=40, intensity=True
    )
    assert np.corrcoef(result.intensity, flicker)[0, 1] > 0.95


def test_background_takes_up_stray_light():
    counts, positions, probe, _, _ = make_problem(noise=False, photons=1e5)
    stray = counts + 20.0
    without = refine_probe(stray, positions, probe, unit="counts", epochs=30)
    taken = refine_probe(stray, positions, probe, unit="counts", epochs=30, background=True)
    assert taken.r < 0.7 * without.r
    assert np.median(taken.background) == pytest.approx(20.0, rel=0.4)


def test_limits_and_support_hold():
    counts, positions, probe, _, _ = make_problem(side=5)
    support = np.hypot(*(np.indices((N, N)) - N // 2)) < 10
    result = refine_probe(
        counts,
        positions,
        probe,
        epochs=3,
        probe_support=support,
        amplitude_limits=(0.5, 1.0),
        smoothness=0.01,
    )
    assert np.all(result.probe[:, ~support] == 0)
    assert np.abs(result.object).max() <= 1.0 + 1e-5


def test_resumed_run_is_the_uninterrupted_run(tmp_path):
    counts, positions, probe, _, _ = make_problem(side=4)
    scan = make_scan(counts, positions, guess_of(probe))
    for rule in ("rpie", "adam", "raar"):
        whole = reconstruct(scan, rule=rule, epochs=6)
        path = tmp_path / f"{rule}.safetensors"
        reconstruct(scan, rule=rule, epochs=6, checkpoint=path, callbacks=(lambda now: now.epoch == 3,))
        resumed = reconstruct(scan, rule=rule, epochs=6, checkpoint=path, resume=True)
        assert resumed.object.tobytes() == whole.object.tobytes()
        assert resumed.probe.tobytes() == whole.probe.tobytes()
        assert [row["epoch"] for row in resumed.history] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(ConfigError, match="was made with"):
        reconstruct(scan, rule="raar", epochs=9, checkpoint=path, resume=True)


def test_interrupt_keeps_the_best_state():
    counts, positions, probe, _, _ = make_problem(side=4)

    def interrupt(now):
        if now.epoch == 4:
            raise KeyboardInterrupt

    result = reconstruct(make_scan(counts, positions, probe), epochs=20, callbacks=(interrupt,))
    assert result.stopped == "interrupted"
    assert len(result.history) == 4
    assert result.r < result.history[0]["r"]


def test_the_users_own_loop_sees_every_sweep_and_may_stop():
    counts, positions, probe, _, _ = make_problem(side=4)
    scan = make_scan(counts, positions, probe)
    state = start_state(scan)
    seen = []
    for now in iterate(scan, state, epochs=10):
        seen.append(now.r)
        if now.epoch == 3:
            break
    assert len(seen) == 3 and state.epoch == 3


def test_tolerance_stops_early_and_progress_counts_sweeps():
    counts, positions, probe, _, _ = make_problem(side=4)
    calls = []
    result = reconstruct(
        make_scan(counts, positions, probe),
        epochs=50,
        patience=2,
        tolerance=0.5,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert result.stopped == "tolerance"
    assert calls[-1] == (len(result.history), 50)


def test_a_starting_object_is_laid_on_its_own_pixels():
    counts, positions, probe, truth, origin = make_problem(noise=False)
    scan = make_scan(counts, positions, probe, unit="counts")
    cut = truth[5:, 9:]
    result = reconstruct(scan, lambda _: (cut, (origin[0] + 9, origin[1] + 5)), epochs=1, probe_from=None)
    np.testing.assert_allclose(result.object[20:-20, 20:-20], truth[20:-20, 20:-20], atol=0.02)


def test_bad_input_is_named_before_any_work():
    counts, positions, probe, _, _ = make_problem(side=3)
    with pytest.raises(DataError, match="positions have shape"):
        refine_probe(counts, positions[:-1], probe)
    with pytest.raises(DataError, match="probe has shape"):
        refine_probe(counts, positions, probe[0, :-2])
    with pytest.raises(DataError, match="NaN, infinite or negative"):
        refine_probe(np.where(counts > 5, np.nan, counts), positions, probe)
    with pytest.raises(ConfigError, match="update rule 'magic'"):
        reconstruct(make_scan(counts, positions, probe), rule="magic")
    with pytest.raises(ConfigError, match="unknown refinement option epoch"):
        reconstruct(make_scan(counts, positions, probe), epoch=3)
    with pytest.raises(ConfigError, match="noise model"):
        reconstruct(make_scan(counts, positions, probe), rule_options={"noise": "loud"})

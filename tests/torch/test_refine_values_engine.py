"""Every option of the iterative engine changes what it should; a resume refuses every other setting."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from refine_problem import INDEX, M, N, differs, problem

from ptycho.errors import ConfigError
from ptycho_torch.refine import make_rule, make_scan, reconstruct, start_state
from ptycho_torch.refine.batches import make_batches
from ptycho_torch.refine.forward import predict
from ptycho_torch.refine.initial import first_background, lay, more_modes
from ptycho_torch.refine.loop import iterate
from ptycho_torch.refine.operators import Canvas, shift_fourier, shift_ramps, unshift_sum
from ptycho_torch.refine.options import RefineOptions
from ptycho_torch.refine.unknowns import constrain, illumination, smoothed

# the engine


def scan_of(bad: bool = False) -> Any:
    return problem(bad)[0]


def single() -> Any:
    """The scan in single precision, which is what checkpoints hold."""
    scan = scan_of()
    return make_scan(
        torch.fft.fftshift(scan.counts, dim=(-2, -1)).numpy().astype(np.int64), scan.positions_xy.numpy(),
        scan.probe.numpy().astype(np.complex64),
    )  # fmt: skip


def test_strength_course_of_options():
    plain = RefineOptions(full_epochs=2, final_strength=0.1)
    assert [plain.strength(e, 12) for e in (0, 1, 2)] == [1.0, 1.0, 1.0]
    assert plain.strength(7, 12) == pytest.approx((11 - 7) / (11 - 2)) and plain.strength(11, 12) == 0.1
    late = RefineOptions(full_epochs=8, final_strength=0.1)
    assert late.strength(7, 40) == 1.0 and late.strength(8, 40) == pytest.approx(31 / 31)
    assert late.strength(20, 40) == pytest.approx(19 / 31) != plain.strength(20, 40)


@pytest.mark.parametrize("modes", [0, 17])
def test_modes_are_one_to_sixteen(modes):
    RefineOptions(modes=16).check()
    RefineOptions(modes=1).check()
    with pytest.raises(ConfigError, match="between 1 and 16"):
        RefineOptions(modes=modes).check()


def test_the_probe_moves_from_the_sweep_that_was_asked_for():
    for first in (0, 2, None):
        scan, state = problem()
        start = state.probe.numpy().copy()
        moved = []
        for now in iterate(scan, state, epochs=4, options=RefineOptions(probe_from=first)):
            moved.append(differs(start, now.state.probe.numpy()) > 1e-9)
        wanted = [first is not None and epoch >= first for epoch in range(4)]
        assert moved == wanted


def test_r_of_a_sweep_is_the_misfit_of_its_batches():
    """With a strength of nearly nothing the image stands still: R is that of the start, bad pixels left
    out.
    """
    for bad in (False, True):
        scan, state = problem(bad)
        model = predict(scan, state, INDEX).intensity
        good = torch.ones_like(model[0]) if scan.good is None else scan.good
        wanted = ((model.sqrt() - scan.counts.sqrt()) ** 2 * good).sum() / scan.counts.sum()
        rule = make_rule("rpie")
        rule.start(scan, state)
        rule.step = lambda scan, state, index, strength, probe: predict(scan, state, index)
        now = next(iter(iterate(scan, state, epochs=1, rule=rule, options=RefineOptions(probe_from=None))))
        assert now.r == pytest.approx(float(wanted.sqrt()), rel=1e-9)


def test_r_of_a_result_leaves_bad_pixels_out():
    result = reconstruct(scan_of(bad=True), epochs=2)
    scan = scan_of(bad=True)
    state = start_state(scan)
    state.object, state.probe = torch.from_numpy(result.object), torch.from_numpy(result.probe)
    model = predict(scan, state, INDEX).intensity
    wrong = ((model.sqrt() - scan.counts.sqrt()) ** 2 * scan.good).sum((1, 2))
    total = scan.counts.sum((1, 2))
    assert result.r == pytest.approx(float((wrong.sum() / total.sum()).sqrt()), rel=1e-9)
    assert result.r_map == pytest.approx((wrong / total).sqrt().numpy(), rel=1e-9)
    assert result.coverage.max() == pytest.approx(1.0)


def test_patience_counts_whole_sweeps():
    """With nothing left to gain a run of patience n ends after n + 1 sweeps; a tolerance of nothing never
    ends it.
    """
    for patience in (1, 2, 5):
        made = reconstruct(scan_of(), epochs=9, patience=patience, tolerance=0.99)
        assert made.stopped == "tolerance" and len(made.history) == patience + 1
    made = reconstruct(scan_of(), epochs=4, patience=1, tolerance=-1e9)
    assert made.stopped == "sweeps" and len(made.history) == 4


def test_patience_looks_so_many_sweeps_back():
    """R halves in the first sweep and stands still after: two sweeps back is still a gain, one is none."""
    course = iter([1.0, 0.5, 0.5, 0.5, 0.5])

    scan, state = problem()
    from ptycho_torch.refine import engine

    class Now:
        pass

    def told(scan, state, **_):
        for epoch, r in enumerate(course, 1):
            now = Now()
            now.epoch, now.r, now.strength, now.seconds = epoch, r, 1.0, 0.0
            yield now

    before, engine.iterate = engine.iterate, told
    try:
        made = engine.run(scan, state, epochs=5, seed=0, options=RefineOptions(patience=2, tolerance=0.1))
    finally:
        engine.iterate = before
    assert [row["r"] for row in made.history] == [1.0, 0.5, 0.5, 0.5] and made.stopped == "tolerance"


def test_interrupted_the_best_state_is_kept():
    """Ctrl-C after a sweep that was worse than the one before."""
    scan, state = problem()
    kept = []

    def spoil(now):
        kept.append((now.r, now.state.object.clone()))
        if now.epoch == 3:
            now.state.object *= 3  # the next sweep is worse
        if now.epoch == 4:
            raise KeyboardInterrupt

    made = reconstruct(scan, epochs=8, callbacks=(spoil,))
    assert made.stopped == "interrupted" and kept[3][0] > kept[2][0]
    best = min(range(4), key=lambda n: kept[n][0])
    assert best == 2 and np.array_equal(made.object, kept[2][1].numpy())


def test_a_callback_that_says_true_ends_the_run():
    made = reconstruct(scan_of(), epochs=6, callbacks=(lambda now: now.epoch == 2, lambda now: None))
    assert made.stopped == "callback" and len(made.history) == 2
    assert len(reconstruct(scan_of(), epochs=3, callbacks=(lambda now: 1,)).history) == 3


CHANGED = {
    "seed": 1, "epochs": 5, "rule": "epie", "rule_options": {"alpha": 0.5}, "modes": 2, "background": True,
    "intensity": True, "positions": "free", "batch_size": 3, "batches": "compact", "full_epochs": 1,
    "final_strength": 0.3, "probe_from": 2, "smoothness": 0.1, "amplitude_limits": (0.5, 1.0),
    "probe_support": np.ones((N, N)), "prior": "none", "start": "flat", "levels": 1,
    "positions_from": 1, "position_step_px": 0.2, "momentum": 0.3,
}  # fmt: skip


@pytest.mark.parametrize("name", [*CHANGED, "position_search_px", "position_decode", "position_belief"])
def test_a_resume_with_another_setting_is_refused(tmp_path, name):
    path = tmp_path / "state.safetensors"
    options = {"epochs": 4, "seed": 0}
    value = CHANGED.get(name)
    if name == "position_search_px":
        options["positions"], value = "free", 1.0
    if name in ("position_decode", "position_belief"):
        options |= {"positions": "free", "position_search_px": 1.0, "position_belief": "formula"}
        value = {"position_decode": "st", "position_belief": "network"}[name]
    reconstruct(single(), checkpoint=path, callbacks=(lambda now: True,), **options)
    with pytest.raises(ConfigError, match=f"was made with {name} = .*use the same, or start afresh"):
        reconstruct(single(), checkpoint=path, resume=True, **{**options, name: value})
    made = reconstruct(single(), checkpoint=path, resume=True, **options)
    assert len(made.history) == 4


@pytest.mark.parametrize("name, value", [("alpha", 0.31), ("noise", "poisson")])
def test_a_resume_with_a_rule_of_other_values_is_refused(tmp_path, name, value):
    path = tmp_path / "state.safetensors"
    rule = make_rule("rpie")
    reconstruct(single(), rule=rule, epochs=4, checkpoint=path, callbacks=(lambda now: True,))
    with pytest.raises(ConfigError, match="was made with rule_values"):
        reconstruct(single(), rule=make_rule("rpie", **{name: value}), epochs=4, checkpoint=path, resume=True)
    assert len(reconstruct(single(), rule=rule, epochs=4, checkpoint=path, resume=True).history) == 4


def test_a_checkpoint_of_before_goes_on(tmp_path):
    """One that knows fewer settings, as an earlier version wrote it."""
    import json

    from safetensors import safe_open
    from safetensors.torch import save_file

    path = tmp_path / "state.safetensors"
    reconstruct(single(), epochs=4, checkpoint=path, callbacks=(lambda now: True,))
    with safe_open(str(path), "pt") as file:
        note = json.loads(file.metadata()["refine"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    for name in ("smoothness", "batch_size", "probe_support", "rule_values"):
        del note["settings"][name]
    save_file(tensors, path, {"refine": json.dumps(note)})
    assert len(reconstruct(single(), epochs=4, checkpoint=path, resume=True).history) == 4
    with pytest.raises(ConfigError, match="seed"):
        reconstruct(single(), epochs=4, checkpoint=path, resume=True, seed=1)


def test_every_option_of_the_engine_is_free_or_refused():
    """An option added to the engine must be added to one of the two lists."""
    free = {"patience", "tolerance"}  # when to stop, not what is computed
    names = {field.name for field in dataclasses.fields(RefineOptions)}
    search = {"position_search_px", "position_decode", "position_belief"}
    assert names == free | (set(CHANGED) | search) - {"seed", "epochs"}


# what the options do


def constrained(**options: Any):
    _, state = problem(modes=2)
    state.intensity = torch.linspace(0.5, 2.0, M, dtype=torch.float64)
    before = state.clone()
    made = RefineOptions(**options)
    constrain(state, made, illumination(*problem(modes=2)), True)
    return before, state


def test_support_limits_and_intensity():
    support = np.zeros((N, N))
    support[8:24, 8:24] = 1
    before, after = constrained(probe_support=support, amplitude_limits=(0.75, 0.85))
    assert not after.probe[:, :8].any() and after.probe[:, 8:24, 8:24].abs().sum() > 0
    size = after.object.abs()
    assert (float(size.min()), float(size.max())) == pytest.approx((0.75, 0.85))
    angle = torch.angle(after.object * before.object.conj())
    assert float(angle.abs().max()) < 1e-9
    before, after = constrained()
    mean = float(before.intensity.square().mean().sqrt())
    assert float(after.intensity.square().mean()) == pytest.approx(1.0)
    power = [float((state.probe.abs() ** 2).sum()) for state in (before, after)]
    assert power[1] == pytest.approx(mean**2 * power[0])


def test_smoothing_leaves_flat_images_and_pulls_to_the_neighbours():
    weight = torch.rand(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    flat = torch.full((5, 6), 2.0 + 1j, dtype=torch.complex128)
    assert torch.allclose(smoothed(flat, weight, 0.3), flat)
    image = torch.randn(5, 6, dtype=torch.complex128, generator=torch.Generator().manual_seed(1))
    made = smoothed(image, weight, 0.3)
    pull = 0.3 * float(weight.max())
    around = image[1, 3] + image[3, 3] + image[2, 2] + image[2, 4]
    wanted = (weight[2, 3] * image[2, 3] + pull * around) / (weight[2, 3] + 4 * pull)
    assert complex(made[2, 3]) == pytest.approx(complex(wanted))


def test_batches_follow_seed_epoch_and_kind():
    positions = torch.rand(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 50

    def key(kind: str, seed: int, epoch: int) -> tuple:
        return tuple(torch.cat(make_batches(positions, 10, kind, seed, epoch)).tolist())

    for kind in ("random", "compact"):
        assert len({key(kind, seed, epoch) for seed in (0, 1) for epoch in (0, 1)}) == 4
    spans = [
        np.mean([float((positions[part].amax(0) - positions[part].amin(0)).mean()) for part in
                 make_batches(positions, 10, kind, 0, 0)])
        for kind in ("random", "compact")
    ]  # fmt: skip
    assert spans[1] < 0.5 * spans[0]
    assert max(len(part) for part in make_batches(positions, 10, "compact", 0, 0)) <= 10


def test_starts_of_object_modes_probe_and_background():
    field = torch.ones((6, 8), dtype=torch.complex128)
    lay(field, np.arange(1.0, 13).reshape(3, 4), (10, 20), (9, 22))
    assert (
        field.real[2:5, :3].tolist() == [[2.0, 3, 4], [6, 7, 8], [10, 11, 12]]
        and field.real.sum() == 48 - 9 + 63
    )
    scan, state = problem()
    modes = more_modes(scan.probe, 3)
    power = (modes.abs() ** 2).sum((1, 2))
    assert (power[1:] / power[0]).tolist() == pytest.approx([0.05, 0.05])
    for bad in (False, True):
        scan, state = problem(bad)
        model = predict(
            scan, dataclasses.replace(state, object=torch.ones_like(state.object)), INDEX
        ).intensity
        good = torch.ones_like(model[0]) if scan.good is None else scan.good
        assert float((model * good).sum()) == pytest.approx(float(scan.counts.sum()), rel=1e-6)
    scan = problem()[0]
    mean = scan.counts.mean(0).flatten().sort().values
    assert float(first_background(scan)[0, 0]) == pytest.approx(
        max(0.5 * float(mean[len(mean) // 20]), 1e-3 * scan.mean_counts / N**2)
    )


def test_background_of_a_result_lies_as_the_patterns_do():
    """Light in one corner of the detector, under every pattern: it is found in that corner, and never
    jumps.
    """
    rng = np.random.default_rng(0)
    scan, state = problem()
    plain = torch.fft.fftshift(scan.counts, dim=(-2, -1)).numpy()
    plain[:, :8, :8] += rng.poisson(40, (M, 8, 8))
    data = make_scan(
        plain.astype(np.int64), scan.positions_xy.numpy(), scan.probe.numpy(), dtype=torch.complex128
    )
    steps = []

    def seen(now):
        steps.append(now.state.background.clone())

    made = reconstruct(data, epochs=6, background=True, callbacks=(seen,))
    corner = made.background[:8, :8].mean()
    assert corner > 3 * made.background[20:, 20:].mean()
    ratios = torch.stack(steps)[1:] / torch.stack(steps)[:-1]
    assert float(ratios.max()) <= 2 + 1e-9 and float(ratios.min()) >= 0.5 - 1e-9
    assert float(ratios.max()) > 1.9


def test_shifts_are_unitary_and_undone_by_their_adjoint():
    rng = np.random.default_rng(0)
    fraction = torch.from_numpy(rng.uniform(-0.5, 0.5, (3, 2)))
    ramps = shift_ramps(fraction, N, torch.complex128)
    image = torch.from_numpy(rng.standard_normal((2, N, N)) + 1j * rng.standard_normal((2, N, N)))
    moved = shift_fourier(image, ramps)
    k = np.fft.fftfreq(N)
    x, y = fraction[1].tolist()
    wanted = np.fft.ifft2(np.fft.fft2(image[0].numpy()) * np.exp(-2j * np.pi * (k[:, None] * y + k * x)))
    assert moved[1, 0].numpy() == pytest.approx(wanted)
    assert unshift_sum(moved, ramps).numpy() == pytest.approx(3 * image.numpy())


def test_canvas_has_a_margin_on_every_side():
    for margin in (0, 1, 7):
        canvas = Canvas.around(np.array([[20.5, 30.0], [24.0, 33.2]]), 16, margin)
        assert canvas.origin_xy == (20 - 8 - margin, 30 - 8 - margin)
        assert canvas.shape == (34 - 30 + 16 + 2 * margin, 24 - 20 + 16 + 2 * margin)

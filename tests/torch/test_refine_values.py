"""Every argument of every update rule and every option of the engine changes what it should."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from refine_problem import INDEX, N, differs, problem

from ptycho_torch.refine import make_rule
from ptycho_torch.refine.forward import predict
from ptycho_torch.refine.noise import factor, misfit


def stepped(
    rule: str,
    *,
    bad: bool = False,
    background: bool = False,
    strength: float = 0.8,
    probe: bool = True,
    **options: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Object and probe after one step over the whole scan."""
    scan, state = problem(bad)
    if background:
        state.background = torch.full_like(scan.counts[0], 5.0)
    made = make_rule(rule, **options)
    made.start(scan, state)
    for _ in range(2 if rule == "raar" and options else 1):  # beta tells from the second sweep on
        made.step(scan, state, INDEX, strength, probe)
        made.end_epoch(scan, state, strength, probe)
    return state.object.numpy().copy(), state.probe.numpy().copy()


#: (rule, option, value, what it must change, what it must leave alone)
OPTIONS = [
    ("rpie", "alpha", 0.6, ("object",), ()),
    ("rpie", "alpha_probe", 0.9, ("probe",), ("object",)),
    ("rpie", "noise", "poisson", ("object", "probe"), ()),
    ("epie", "noise", "bounded", ("object", "probe"), ()),
    ("lsqml", "noise", "amplitude", ("object", "probe"), ()),
    ("lsqml", "damping", 0.4, ("object", "probe"), ()),
    ("lsqml", "largest", 0.05, ("object", "probe"), ()),
    ("raar", "beta", 0.9, ("object", "probe"), ()),
    ("adam", "rate", 0.02, ("object",), ("probe",)),
    ("adam", "probe_rate", 0.02, ("probe",), ("object",)),
    ("adam", "objective", "poisson_nll", ("object",), ()),
]


@pytest.mark.parametrize("rule, name, value, changes, leaves", OPTIONS)
def test_every_option_of_a_rule_changes_what_it_should(rule, name, value, changes, leaves):
    default = {"beta": 0.75} if name == "beta" else {}
    plain = dict(zip(("object", "probe"), stepped(rule, **default), strict=True))
    other = dict(zip(("object", "probe"), stepped(rule, **{name: value}), strict=True))
    for part in changes:
        assert differs(plain[part], other[part]) > 1e-4, part
    for part in leaves:
        assert differs(plain[part], other[part]) < 1e-12, part


@pytest.mark.parametrize("damping", [0.1, 0.4])
def test_lsqml_moves_object_and_probe_along_their_damped_mean_residuals(damping):
    """Odstrcil 2018: on whole pixels the direction of the probe is sum(conj(O) chi) / (w + damping (max -
    w)).
    """
    scan, state = problem()
    scan = dataclasses.replace(scan, positions_xy=scan.positions_xy.round())
    state.positions_xy = scan.positions_xy.clone()
    exit = predict(scan, state, INDEX)
    patches, probe = exit.patches.numpy(), state.probe.numpy()[0].copy()
    far = np.fft.fft2(patches * probe, norm="ortho")
    counts, floor = scan.counts.numpy(), float(scan.floor)
    chi = np.fft.ifft2(far * (np.sqrt((counts + floor) / (np.abs(far) ** 2 + floor)) - 1), norm="ortho")

    def damped(total, light):
        return total / (light + damping * (light.max() - light))

    along_probe = damped((patches.conj() * chi).sum(0), (np.abs(patches) ** 2).sum(0))
    total, light = np.zeros(state.object.shape, complex), np.zeros(state.object.shape)
    for m, (y, x) in enumerate(exit.corners_yx.tolist()):
        total[y : y + N, x : x + N] += probe.conj() * chi[m]
        light[y : y + N, x : x + N] += np.abs(probe) ** 2
    phase = np.angle(damped(total, light))
    before = state.object.numpy().copy()
    rule = make_rule("lsqml", noise="amplitude", damping=damping)
    rule.start(scan, state)
    rule.step(scan, state, INDEX, 1.0, True)
    moved = state.probe.numpy()[0] - probe
    cosine = np.vdot(along_probe, moved) / np.linalg.norm(along_probe) / np.linalg.norm(moved)
    assert cosine == pytest.approx(1.0, abs=1e-9)
    alone = stepped("lsqml", noise="amplitude", damping=damping, probe=False)[0]
    assert differs(alone, stepped("lsqml", noise="amplitude", damping=0.25, probe=False)[0]) > 1e-4
    step = state.object.numpy() - before
    lit = np.abs(step) > 1e-6 * np.abs(step).max()
    assert np.abs(np.angle(step * np.exp(-1j * phase)))[lit].max() < 1e-6


def test_alpha_probe_is_alpha_where_it_is_not_given():
    one, other = stepped("rpie", alpha=0.6), stepped("rpie", alpha=0.6, alpha_probe=0.6)
    assert differs(one[1], other[1]) == 0 and differs(one[1], stepped("rpie", alpha_probe=0.6)[1]) < 1e-12


@pytest.mark.parametrize("rule", ["rpie", "epie", "lsqml", "adam"])
def test_a_step_is_as_long_as_its_strength(rule):
    """Half the strength is half the way; Adam's first step as well."""
    scan, state = problem()
    start = state.object.numpy(), state.probe.numpy()
    whole, half = stepped(rule, strength=1.0), stepped(rule, strength=0.5)
    for before, long, short in zip(start, whole, half, strict=True):
        assert (
            np.abs(short - before - 0.5 * (long - before)).max() < 1e-9 * np.abs(long - before).max() + 1e-12
        )
    still = stepped(rule, probe=False)
    assert differs(still[1], start[1]) == 0 and differs(still[0], start[0]) > 1e-4


@pytest.mark.parametrize("rule", ["rpie", "epie", "lsqml", "raar", "adam"])
@pytest.mark.parametrize("background", [False, True])
def test_bad_pixels_over_bright_ones_do_not_pull(rule, background):
    """Any counts under the mask: the step is the same. And the background is seen by every rule."""
    made = []
    for value in (0, 10_000):
        scan, state = problem(bad=True)
        state.background = torch.full_like(scan.counts[0], 5.0) if background else None
        scan = dataclasses.replace(scan, counts=torch.where(scan.good > 0, scan.counts, value))
        one = make_rule(rule)
        one.start(scan, state)
        one.step(scan, state, INDEX, 0.8, True)
        one.end_epoch(scan, state, 0.8, True)
        made.append((state.object.numpy().copy(), state.probe.numpy().copy()))
    assert max(differs(a, b) for a, b in zip(*made, strict=True)) < 1e-9
    if background:
        plain = stepped(rule, bad=True)
        assert differs(plain[0], made[0][0]) > 1e-4


def test_raar_by_its_formula_for_two_sweeps():
    """Luke 2005 with the relaxed projections of the docstring, in loops; a background belongs to the
    model.
    """
    beta, ground = 0.7, 5.0
    scan, state = problem()
    state.background = torch.full_like(scan.counts[0], ground)
    counts, floor = scan.counts.numpy(), float(scan.floor)
    rule = make_rule("raar", beta=beta)
    rule.start(scan, state)

    def waves():
        exit = predict(scan, state, INDEX)
        return exit, (exit.probes * exit.patches[:, None]).numpy()

    kept = (1 - beta) * waves()[1]
    for sweep in range(2):
        exit, psi = waves()
        wave = kept + beta * psi
        far = np.fft.fft2(wave, norm="ortho")
        model = (np.abs(far) ** 2).sum(1) + ground
        ratio = np.sqrt((counts + floor) / (model + floor)) - 1
        change = np.fft.ifft2(far * ratio[:, None], norm="ortho")
        projected = wave + change
        kept = (1 - 2 * beta) * projected + beta * wave
        missing = projected + change - psi
        total = np.zeros(state.object.shape, complex)
        light = np.zeros(state.object.shape)
        probes = exit.probes.numpy()
        for m, (y, x) in enumerate(exit.corners_yx.tolist()):
            total[y : y + N, x : x + N] += (probes[m].conj() * missing[m]).sum(0)
            light[y : y + N, x : x + N] += (np.abs(probes[m]) ** 2).sum(0)
        least = 1e-3 * light.max()
        wanted = state.object.numpy() + total / (light + np.maximum(least - light, 0))
        rule.step(scan, state, INDEX[:5], 1.0, False)
        rule.step(scan, state, INDEX[5:], 1.0, False)
        rule.end_epoch(scan, state, 1.0, False)
        assert np.abs(state.object.numpy() - wanted).max() < 1e-9 * np.abs(wanted).max(), sweep


def test_raar_takes_half_of_the_way_for_object_and_probe_together():
    scan, state = problem()
    before = state.object.numpy().copy()
    alone = stepped("raar", probe=False)[0] - before
    both = stepped("raar", probe=True)[0] - before
    assert np.abs(both - 0.5 * alone).max() < 1e-9 * np.abs(alone).max()


def test_raar_gathers_the_probe_over_the_batches_of_a_sweep():
    made = []
    for parts in ((INDEX,), (INDEX[:4], INDEX[4:7], INDEX[7:])):
        scan, state = problem()
        rule = make_rule("raar")
        rule.start(scan, state)
        for part in parts:
            rule.step(scan, state, part, 1.0, True)
        rule.end_epoch(scan, state, 1.0, True)
        made.append(state.probe.numpy())
    assert differs(*made) < 1e-9


def test_adam_by_its_formula_for_three_steps():
    """Kingma and Ba with one second moment a complex number; the probe's rate in units of its largest
    modulus.
    """
    scan, state = problem()
    options = {"rate": 0.03, "probe_rate": 0.07, "betas": (0.8, 0.95)}
    rule = make_rule("adam", **options)
    rule.start(scan, state)
    fields = {"object": state.object.clone(), "probe": state.probe.clone()}
    first = {name: torch.zeros_like(v) for name, v in fields.items()}
    second = {name: torch.zeros_like(v.real) for name, v in fields.items()}
    for count in (1, 2, 3):
        trial = dataclasses.replace(
            state,
            object=fields["object"].clone().requires_grad_(True),
            probe=fields["probe"].clone().requires_grad_(True),
        )
        model = predict(scan, trial, INDEX).intensity
        from ptycho_torch.refine.objectives import ObjectiveInput, named_objective

        loss = named_objective("amplitude")(ObjectiveInput(scan, model, INDEX, trial.object))
        gradients = torch.autograd.grad(loss, [trial.object, trial.probe])
        size = float((fields["probe"].abs() ** 2).sum(0).max().sqrt())
        for (name, field), gradient in zip(list(fields.items()), gradients, strict=True):
            first[name] = 0.8 * first[name] + 0.2 * gradient
            second[name] = 0.95 * second[name] + 0.05 * gradient.abs() ** 2
            scale = (second[name] / (1 - 0.95**count)).sqrt()
            rate = 0.6 * (0.03 if name == "object" else 0.07 * size)
            fields[name] = field - rate * (first[name] / (1 - 0.8**count)) / (scale + 1e-8 * scale.max())
        rule.step(scan, state, INDEX, 0.6, True)
        for name in fields:
            assert differs(getattr(state, name).numpy(), fields[name].numpy()) < 1e-8, (name, count)


def test_noise_models_at_interior_points():
    counts, model, floor = torch.tensor([1.0, 9.0]), torch.tensor([3.0, 3.0]), 1.0
    r = np.array([2 / 4, 10 / 4])
    assert factor("amplitude", counts, model, floor).numpy() == pytest.approx(np.sqrt(r) - 1)
    assert factor("poisson", counts, model, floor).numpy() == pytest.approx((r - 1) / 2)
    assert factor("bounded", counts, model, floor).numpy() == pytest.approx(
        [(r[0] - 1) / 2, np.sqrt(r[1]) - 1]
    )
    good = torch.tensor([1.0, 0.0])
    for noise in ("amplitude", "poisson", "bounded"):
        assert factor(noise, counts, model, floor, good)[1] == 0
    both = misfit(counts[None], model[None])
    assert both.item() == pytest.approx((np.sqrt(3) - 1) ** 2 + (np.sqrt(3) - 3) ** 2)
    assert misfit(counts[None], model[None], good[None]).item() == pytest.approx((np.sqrt(3) - 1) ** 2)

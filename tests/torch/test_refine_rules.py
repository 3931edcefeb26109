"""One step of every update rule against the papers' formulas written plainly in NumPy float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ptycho_torch.refine import RefineScan, RefineState, make_rule, make_scan, start_state

N, M, FLOOR = 32, 5, 1e-5


def shifted(probe, fraction_xy):
    k = np.fft.fftfreq(N)
    ramp = np.exp(-2j * np.pi * (k[:, None] * fraction_xy[1] + k * fraction_xy[0]))
    return np.fft.ifft2(np.fft.fft2(probe) * ramp)


class Oracle:
    """Loops and complex128; everything a rule's formula needs, by its letter."""

    def __init__(self, scan: RefineScan, state: RefineState):
        self.counts = scan.counts.numpy()
        self.object, self.probe = state.object.numpy().copy(), state.probe.numpy().copy()
        corner = scan.positions_xy.numpy() - N // 2 - np.array(state.canvas.origin_xy)
        self.whole = np.round(corner).astype(int)
        self.fraction = corner - self.whole
        self.floor = FLOOR * scan.mean_counts / N**2
        self.windows = [np.s_[y : y + N, x : x + N] for x, y in self.whole]
        self.probes = np.array([[shifted(p, d) for p in self.probe] for d in self.fraction])
        self.patches = np.array([self.object[w] for w in self.windows])
        self.psi = self.probes * self.patches[:, None]

    def residual(self, noise, psi):
        far = np.fft.fft2(psi, norm="ortho")
        r = (self.counts + self.floor) / ((np.abs(far) ** 2).sum(1) + self.floor)
        f = {
            "amplitude": np.sqrt(r) - 1,
            "poisson": (r - 1) / 2,
            "bounded": np.where(r < 1, (r - 1) / 2, np.sqrt(r) - 1),
        }[noise]
        return np.fft.ifft2(far * f[:, None], norm="ortho")

    def onto_canvas(self, patches):
        total = np.zeros(self.object.shape, patches.dtype)
        for window, patch in zip(self.windows, patches, strict=True):
            total[window] += patch
        return total

    def unshift(self, patches):
        return np.array(
            [[shifted(p, -d) for p in group] for group, d in zip(patches, self.fraction, strict=True)]
        )


def regularised(w, alpha, peak):
    return w + alpha * np.maximum(peak - w, 0)


@pytest.fixture(params=[1, 2], ids=["one-mode", "two-modes"])
def case(request):
    return problem(request.param)


def problem(modes, patterns=M):
    rng = np.random.default_rng(3)
    positions = np.array([40.0, 50.0]) + rng.uniform(0, 9, (patterns, 2))
    y, x = np.indices((N, N)) - N // 2
    probe = np.exp(-(x**2 + y**2) / 40 + 0.02j * (x**2 - x * y))
    probe = np.stack([probe, 0.3 * probe * x / 4])[:modes]
    probe = probe * np.sqrt(1e4 / np.sum(np.abs(probe) ** 2))
    counts = rng.poisson(30 * np.exp(-(np.hypot(x, y) ** 2) / 60), (patterns, N, N))
    scan = make_scan(counts, positions, probe, dtype=torch.complex128)
    state = start_state(scan)
    bumpy = 1 + 0.1 * (rng.normal(size=state.object.shape) + 1j * rng.normal(size=state.object.shape))
    state.object = torch.from_numpy(bumpy)
    return scan, state


def step(rule, scan, state, strength=0.7):
    rule.start(scan, state)
    rule.step(scan, state, torch.arange(scan.size), strength, True)
    return state


@pytest.mark.parametrize("noise", ["amplitude", "poisson", "bounded"])
def test_rpie_step_is_the_papers(case, noise):
    scan, state = case
    o = Oracle(scan, state)
    chi = o.residual(noise, o.psi)
    light = o.onto_canvas(np.repeat((np.abs(o.probe) ** 2).sum(0)[None], M, 0))
    window = (np.abs(o.patches) ** 2).sum(0)
    peak = (np.abs(o.probe) ** 2).sum(0).max()
    new_object = o.object + 0.7 * o.onto_canvas((o.probes.conj() * chi).sum(1)) / regularised(
        light, 0.3, peak
    )
    pulled = o.unshift(o.patches.conj()[:, None] * chi).sum(0)
    new_probe = o.probe + 0.7 * pulled / regularised(window, 0.3, window.max())
    step(make_rule("rpie", alpha=0.3, noise=noise), scan, state)
    np.testing.assert_allclose(state.object.numpy(), new_object, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(state.probe.numpy(), new_probe, rtol=1e-9, atol=1e-9)


def test_epie_of_one_whole_pixel_pattern_is_maiden_rodenburg():
    scan, state = problem(1, patterns=1)
    scan.positions_xy.copy_(scan.positions_xy.round())
    state.positions_xy = scan.positions_xy.clone()
    o = Oracle(scan, state)
    far = np.fft.fft2(o.psi, norm="ortho")
    modulus = np.sqrt(o.counts + o.floor)[:, None] * far / np.sqrt(np.abs(far) ** 2 + o.floor)
    change = np.fft.ifft2(modulus - far, norm="ortho")[0]
    new_probe = o.probe + (o.patches[0].conj() * change) / (np.abs(o.patches[0]) ** 2).max()
    new_object = o.object.copy()
    new_object[o.windows[0]] += (o.probe.conj() * change)[0] / (np.abs(o.probe) ** 2).max()
    step(make_rule("epie"), scan, state, 1.0)
    covered = np.zeros(new_object.shape, bool)
    covered[o.windows[0]] = True
    np.testing.assert_allclose(state.object.numpy()[covered], new_object[covered], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(state.object.numpy()[~covered], new_object[~covered])
    np.testing.assert_allclose(state.probe.numpy(), new_probe, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("noise", ["amplitude", "poisson"])
def test_lsqml_step_is_the_papers(case, noise):
    scan, state = case
    o = Oracle(scan, state)
    chi = o.residual(noise, o.psi)
    weight = (np.abs(o.probe) ** 2).sum(0)
    light = o.onto_canvas(np.repeat(weight[None], M, 0))
    light = regularised(light, 0.1, light.max())
    window = (np.abs(o.patches) ** 2).sum(0)
    d_object = o.onto_canvas((o.probes.conj() * chi).sum(1)) / light
    d_probe = o.unshift(o.patches.conj()[:, None] * chi).sum(0) / regularised(window, 0.1, window.max())
    steps = []
    for j in range(M):
        along_object = d_object[o.windows[j]] * o.probes[j]
        along_probe = np.array([shifted(d, o.fraction[j]) for d in d_probe]) * o.patches[j]
        rows = [np.concatenate([a.real.ravel(), a.imag.ravel()]) for a in (along_object, along_probe)]
        normal = np.array([[a @ b for b in rows] for a in rows])
        normal = normal + np.diag(1e-3 * np.diag(normal))
        wanted = np.concatenate([chi[j].real.ravel(), chi[j].imag.ravel()])
        steps.append(np.clip(np.linalg.solve(normal, [a @ wanted for a in rows]), 0, 2))
    steps = np.array(steps)
    mean_step = o.onto_canvas(weight * steps[:, 0, None, None])
    step(make_rule("lsqml", noise=noise), scan, state)
    np.testing.assert_allclose(
        state.object.numpy(), o.object + 0.7 * d_object * mean_step / light, rtol=1e-8, atol=1e-11
    )
    np.testing.assert_allclose(
        state.probe.numpy(), o.probe + 0.7 * steps[:, 1].mean() * d_probe, rtol=1e-8, atol=1e-8
    )


def test_raar_sweep_is_lukes_map(case):
    scan, state = case
    o, beta = Oracle(scan, state), 0.8
    rule = make_rule("raar", beta=beta)
    psi = o.psi
    change = o.residual("amplitude", psi)
    reflected = psi + 2 * change
    light = o.onto_canvas((np.abs(o.probes) ** 2).sum(1))
    missing = reflected - psi
    new_object = o.object + o.onto_canvas((o.probes.conj() * missing).sum(1)) / np.maximum(
        light, 1e-3 * light.max()
    )
    rule.start(scan, state)
    index = torch.arange(M)
    rule.step(scan, state, index, 1.0, False)
    rule.end_epoch(scan, state, 1.0, False)
    np.testing.assert_allclose(state.object.numpy(), new_object, rtol=1e-9, atol=1e-12)
    overlap = o.probes * np.array([new_object[w] for w in o.windows])[:, None]
    wanted = beta * overlap + (1 - 2 * beta) * (psi + change) + beta * psi
    np.testing.assert_allclose(rule.waves.numpy() + beta * overlap, wanted, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("objective", ["poisson", "amplitude"])
def test_adam_takes_kingmas_first_step_along_the_analytic_gradient(case, objective):
    scan, state = case
    o = Oracle(scan, state)
    chi = o.residual("amplitude" if objective == "amplitude" else "poisson", o.psi)
    # first step: m^ = g, v^ = |g|^2, so the step is rate * g / |g|
    gradient = -o.onto_canvas((o.probes.conj() * chi).sum(1))
    significant = np.abs(gradient) > 1e-3 * np.abs(gradient).max()
    expected = o.object - 0.7 * 0.05 * gradient / np.where(significant, np.abs(gradient), 1)
    step(make_rule("adam", objective=objective, rate=0.05), scan, state)
    np.testing.assert_allclose(state.object.numpy()[significant], expected[significant], rtol=2e-3, atol=2e-4)


def test_adams_objective_gradient_matches_finite_differences():
    scan, state = problem(2)
    from ptycho_torch.refine.forward import predict
    from ptycho_torch.refine.objectives import PER_PIXEL

    rng = np.random.default_rng(0)
    direction = torch.from_numpy(
        rng.normal(size=state.object.shape) + 1j * rng.normal(size=state.object.shape)
    )
    index = torch.arange(M)
    for objective in PER_PIXEL.values():

        def loss(t, objective=objective):
            moved = RefineState(state.canvas, state.object + t * direction, state.probe, state.positions_xy)
            return objective(predict(scan, moved, index).intensity, scan.counts, scan.floor).sum()

        t = torch.zeros((), dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(loss(t), t)
        numeric = (loss(torch.tensor(1e-6)) - loss(torch.tensor(-1e-6))) / 2e-6
        assert float(slope) == pytest.approx(float(numeric), rel=1e-4)


@pytest.mark.parametrize("name", ["rpie", "epie", "lsqml"])
def test_the_truth_without_noise_is_a_fixed_point(name):
    scan, state = problem(2)
    from ptycho_torch.refine.forward import predict

    truth = predict(scan, state, torch.arange(M)).intensity
    scan.counts.copy_(truth)
    before = state.clone()
    step(make_rule(name), scan, state)
    torch.testing.assert_close(state.object, before.object, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(state.probe, before.probe, rtol=1e-9, atol=1e-7)

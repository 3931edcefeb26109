"""Laws of the physics through the code that trains, on both backends; the oracle's are in `tests/torch`."""

from __future__ import annotations

import numpy as np
import pytest
from both_backends import settings
from scipy.ndimage import gaussian_filter

from ptycho import physics as oracle
from ptycho.clients.trained_model import TrainedModel
from ptycho.forward.merging import merge
from ptycho.scan.raw_data import RawData
from ptycho.tf_helper import reassemble_position

N = 32


@pytest.fixture(scope="module")
def obj() -> np.ndarray:
    """Smooth, without any symmetry: amplitude 0.7 to 1.3, phase within +-1.2 rad."""
    rng = np.random.default_rng(5)
    parts = [gaussian_filter(rng.standard_normal((64, 64)), 3.0, mode="wrap") for _ in range(2)]
    amplitude, phase = (part / np.abs(part).max() for part in parts)
    return (1 + 0.3 * amplitude) * np.exp(1.2j * phase)


def rivals(obj: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "flat": np.full_like(obj, np.sqrt(np.mean(np.abs(obj) ** 2))),
        "mirrored": obj[:, ::-1],
        "upside down": obj[::-1],
        "shifted by 1 px": np.roll(obj, 1, 1),
        "conjugated": obj.conj(),
        "blurred": gaussian_filter(obj.real, 2) + 1j * gaussian_filter(obj.imag, 2),
    }


@pytest.fixture(scope="module")
def measured(obj):
    """Builds a scan of 25 sub-pixel positions with two known probe modes; keywords scale probe and counts."""

    def build(probe_factor: float = 1, dose: float = 1) -> RawData:
        rng = np.random.default_rng(3)
        grid = np.stack(np.meshgrid(np.arange(5), np.arange(5)), -1).reshape(-1, 2) * 3.0
        positions = grid + rng.uniform(-1, 1, grid.shape) + N // 2 + 4
        axis = np.arange(N) - N // 2
        radius2 = axis[:, None] ** 2 + axis**2
        beam = np.exp(-radius2 / (2 * 4.0**2) + 0.03j * radius2)
        probe = np.stack([beam, 0.5 * beam * axis / 4.0 + 0.1j * beam])
        probe *= np.sqrt(1e5 / np.sum(np.abs(probe) ** 2))
        counts = oracle.diffract(oracle.extract(obj, *positions.T, N), probe)
        guess = (probe_factor * probe).astype(np.complex64)
        return RawData.from_coords_without_pc(*positions.T, dose * counts, guess, diffraction_unit="counts")

    return build


def losses_of(side, raw, candidates, region, **changes) -> dict[str, float]:
    """The training loss of the scan as one batch, if the network answered with each of these objects."""
    config = settings(raw, **changes)
    model, container = side.model(raw, config)
    batch = side.batch(container, np.arange(len(container)), region)
    places = container.positions_px[container.nn_indices]
    # the network's gauge: amplitudes are scaled like x, the probe was scaled too
    gauge = container.x_scale / model_probe_factor(model)
    found = {}
    for name, candidate in candidates.items():
        patches = oracle.extract(candidate, *places.reshape(-1, 2).T, N).reshape(*places.shape[:2], N, N)
        side.answer(model, patches * gauge)
        found[name] = side.terms(model, batch)["loss"]
    return found


def model_probe_factor(model) -> float:
    return float(model.gauge[2]) if hasattr(model, "gauge") else model.probe_factor


@pytest.mark.parametrize("term", ["poisson", "mae"])
@pytest.mark.parametrize("region", [False, True], ids=["group", "region"])
@pytest.mark.parametrize("gridsize", [1, 2])
def test_the_true_object_minimises_the_training_loss(side, gridsize, region, term, measured, obj):
    candidates = {"true": obj, **rivals(obj)}
    losses = losses_of(side, measured(), candidates, region, gridsize=gridsize, torch_loss_mode=term)
    best = losses.pop("true")
    assert best < 0.5 * min(losses.values()), (best, losses)


def test_power_of_the_probe_and_dose_change_only_what_is_free(side, measured, obj):
    plain = losses_of(side, measured(), {"true": obj, **rivals(obj)}, True)
    strong = losses_of(side, measured(probe_factor=300), {"flat": rivals(obj)["flat"] / 300}, True)
    assert strong["flat"] == pytest.approx(plain["flat"], rel=1e-4)
    more = losses_of(side, measured(dose=7), {n: np.sqrt(7) * o for n, o in rivals(obj).items()}, True)
    for name, value in more.items():
        assert value == pytest.approx(7 * plain[name], rel=1e-2), name


def delta(C: int) -> np.ndarray:
    patches = np.zeros((1, C, N, N))
    patches[..., N // 2, N // 2] = 1
    return patches


def test_a_delta_at_a_known_position_lands_on_its_pixel_by_merge_workflow_and_client_call(side, make_scan):
    raw = make_scan(n_positions=23)
    known = {(float(x), float(y)) for x, y in raw.positions_px}
    model, container = side.model(raw, settings(raw))
    side.answer(model, delta(1))
    found = side.infer(model, raw, M=20)
    x0, y0 = found["origin_xy"]
    assert {(x + x0, y + y0) for y, x in np.argwhere(np.abs(found["object"]) > 1e-6)} == known
    client = TrainedModel(model)
    patches = client.predict([container.X * client.intensity_scale, container.local_offsets])
    image = np.squeeze(reassemble_position(patches, container.global_offsets, M=20))
    assert np.count_nonzero(np.abs(image) > 1e-6) == len(known)
    # the merge of training: content moves by +r
    relative = np.array([[[4.0, -3.0], [-4.0, 3.0]]])
    patches = np.repeat(delta(1), 2, 1).astype(np.complex64)
    given = [side.asarray(a) for a in (patches, relative, oracle.central_window(N))]
    canvas = side.numpy(merge(*given))[0]
    middle = canvas.shape[0] // 2
    peaks = {(x - middle, y - middle) for y, x in np.argwhere(np.abs(canvas) > 0.1)}
    assert peaks == {(4, -3), (-4, 3)}


def test_models_of_different_sides_and_gridsizes_do_not_disturb_each_other(side, make_scan):
    scans = {1: make_scan(n_positions=6), 2: make_scan(n_positions=6, N=64)}
    models = {gridsize: side.model(raw, settings(raw, gridsize=gridsize)) for gridsize, raw in scans.items()}
    alone = {}
    for gridsize in (2, 1, 2, 1):
        model, container = models[gridsize]
        answer = side.patches(model, container.patterns[container.nn_indices])
        assert answer.shape == (6, gridsize**2, *container.patterns.shape[1:])
        loss = side.terms(model, side.batch(container, np.arange(6), False))["loss"]
        assert alone.setdefault(gridsize, loss) == pytest.approx(loss, rel=1e-6)

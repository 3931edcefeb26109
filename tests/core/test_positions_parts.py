"""What the positions network is trained on: scans with wrong positions, targets, settings, bytes of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptycho.config.learned import settings_from
from ptycho.errors import ConfigError
from ptycho.experiments import learned
from ptycho.io.tensors import read_tensors, write_tensors
from ptycho.positions.scenes import draw_scene, targets
from ptycho.positions.settings import PositionsData, PositionsSettings

SMALL = PositionsData(sides=(32,), n_positions=(25, 36))


def grid(reach: int, step: float) -> np.ndarray:
    line = step * np.arange(-reach, reach + 1)
    return np.stack(np.meshgrid(line, line), -1).reshape(1, -1, 2)


@pytest.mark.parametrize("step", [0.5, 1.0, 2.0])
def test_the_mean_of_a_target_is_the_true_shift(step: float) -> None:
    true = np.random.default_rng(0).uniform(-3 * step, 3 * step, (50, 2))
    shifts = np.repeat(grid(3, step), 50, 0)
    made = targets(true, shifts, np.full(50, step))
    np.testing.assert_allclose(made.sum(1), 1)
    np.testing.assert_allclose((made[..., None] * shifts).sum(1), true, atol=1e-12)
    assert int((made > 0).sum(1).max()) <= 4


def test_a_shift_beyond_the_grid_counts_as_the_nearest_on_it() -> None:
    made = targets(np.array([[9.0, -0.5]]), grid(2, 1.0), np.ones(1)).reshape(5, 5)
    assert made[2, 4] == pytest.approx(0.5) and made[1, 4] == pytest.approx(0.5)


def test_a_scene_follows_from_its_seed_and_has_the_errors_asked_for() -> None:
    one, again, other = (draw_scene(SMALL, (4, k)) for k in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one.counts[0], other.counts[0])
    sizes = []
    for k in range(20):
        scene = draw_scene(SMALL, (5, k))
        off = scene.given_xy - scene.true_xy
        rms = np.sqrt(np.mean(np.sum((off - off.mean(0)) ** 2, 1)))
        sizes.append(rms)
        assert 0.7 < scene.size_px / rms < 2.2
    # 1 to 10 px at 64 px are half of that at 32
    assert 0.3 < min(sizes) < 2 and 3 < max(sizes) < 7


def test_half_of_the_scenes_have_a_hint_unless_asked_otherwise() -> None:
    hints = [np.isfinite(draw_scene(SMALL, (6, k)).help_px) for k in range(20)]
    assert 4 < sum(hints) < 16
    alone = PositionsData(sides=(32,), n_positions=(25, 36), helped=0.0)
    assert not any(np.isfinite(draw_scene(alone, (6, k)).help_px) for k in range(5))


@pytest.mark.parametrize(
    "word, message",
    [
        ("data.photon=[1e3,1e4]", "unknown key 'data.photon'|photon"),
        ("data.photons=[1e6,1e3]", "data.photons"),
        ("data.errors_px=[0.1,3]", "data.errors_px"),
        ("data.sides=[33]", "data.sides"),
        ("chanels=8", "nearest known: 'channels'"),
        ("backend=tensorflow", "unknown key 'backend'"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        learned.points("positions", ["model=positions", word], multirun=False)


def test_groups_and_keys_compose_to_frozen_settings() -> None:
    found = learned.points("positions", ["model=positions", "data=small", "seed=3"], multirun=False)[0][1]
    assert isinstance(found, PositionsSettings) and found.seed == 3 and found.data.sides == (32,)
    with pytest.raises(AttributeError):
        found.seed = 4  # type: ignore[misc]
    assert settings_from(PositionsSettings, {}, "test").data == PositionsData()


def test_equal_contents_give_equal_bytes_however_many_texts(tmp_path: Path) -> None:
    texts = {name: f'{name} "ü" \\' for name in "zyxwvu"}
    made = []
    for order in (texts, dict(reversed(texts.items()))):
        write_tensors(tmp_path / "a.safetensors", {"b": np.ones(3), "a": np.eye(2, dtype="f4")}, order)
        made.append((tmp_path / "a.safetensors").read_bytes())
    assert made[0] == made[1]
    arrays, read = read_tensors(tmp_path / "a.safetensors")
    assert read == texts
    places = [made[0].index(f'"{name}":"{name} '.encode()) for name in sorted(texts)]
    assert places == sorted(places)
    np.testing.assert_array_equal(arrays["a"], np.eye(2))

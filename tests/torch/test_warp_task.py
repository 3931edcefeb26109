"""The network that predicts a warp: its training, its file, its use for pairs of any size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ptycho.config.learned import settings_from
from ptycho.errors import BundleError, ConfigError
from ptycho.experiments import learned
from ptycho.simulation.objects import lines
from ptycho.warp.network_shape import SIDE
from ptycho.warp.prepare import make_pair
from ptycho.warp.training import WarpSettings
from ptycho_torch.learned import fit
from ptycho_torch.warp.network import WarpNetwork, details
from ptycho_torch.warp.predict import load_network, predict_warp
from ptycho_torch.warp.task import WarpTask


def settings(folder: Path, **more: Any) -> WarpSettings:
    given = {
        "output_dir": folder, "epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "judged": 4, "channels": 8,
        "data": {"pool": 3, "objects": "lines"}, "accelerator": "cpu", "logger": "none",
    }  # fmt: skip
    return settings_from(WarpSettings, {**given, **more}, "test")


def test_a_batch_follows_from_seed_epoch_and_step_and_its_field_fits_its_images(tmp_path: Path) -> None:
    task = WarpTask(settings(tmp_path))
    one, again, other = task.batch(0, 1), task.batch(0, 1), task.batch(0, 2)
    assert torch.equal(one["images"], again["images"]) and not torch.equal(one["images"], other["images"])
    from ptycho_torch.warp.field import backward_warp

    field = torch.nn.functional.interpolate(
        one["field"].movedim(-1, 1) * (SIDE - 1) / 2, size=(SIDE, SIDE), mode="bilinear", align_corners=True
    ).movedim(1, -1)
    inner = np.s_[:, :, 16:-16, 16:-16]
    fixed = one["images"][:, :2][inner]
    away = [
        float((fixed - backward_warp(one["images"][:, 2:], sign * field)[inner]).square().mean())
        for sign in (0.0, 1.0, -1.0)
    ]
    assert away[1] < 0.5 * away[0] and away[1] < 0.5 * away[2]


def test_training_leaves_weights_that_predict(tmp_path: Path) -> None:
    made = settings(tmp_path)
    found = fit(WarpTask(made), made)
    assert {path.name for path in found.files} >= {"warp.safetensors", "warp.json"}
    assert set(found.best) == {"loss", "rms_px", "median_px", "before_px"}
    assert (tmp_path / "figures" / "warp_001.png").is_file()
    network = load_network(tmp_path / "warp.safetensors")
    image = np.asarray(lines((70, 96), 3), np.complex128)
    warp = predict_warp(make_pair(image, image), network)
    assert warp.shape == (70, 96) and np.isfinite(warp.field()).all()
    torch.save({}, tmp_path / "other.safetensors")
    with pytest.raises(Exception, match="other.safetensors"):
        load_network(tmp_path / "other.safetensors")


def test_the_first_prediction_is_the_identity_and_the_gauge_is_not_seen() -> None:
    rng = np.random.default_rng(0)
    image = torch.tensor(np.asarray(lines((SIDE, SIDE), 2)))[None]
    weight = torch.ones(1, SIDE, SIDE)
    one, free = details(image, weight), details(3j * image, weight)
    assert torch.allclose(one, free, atol=1e-4) and float(one.std()) == pytest.approx(1.0, abs=0.3)
    values, points = WarpNetwork(8)(torch.tensor(rng.normal(size=(2, 4, SIDE, SIDE)), dtype=torch.float32))
    assert values.shape == (2, 10) and float((values.abs().max() + points.abs().max()).detach()) == 0


def test_the_shipped_network_sees_a_rotation() -> None:
    from ptycho.warp.prepare import warp_image
    from ptycho.warp.warp import identity

    image = np.asarray(lines((128, 128), 77), np.complex128)
    plain = make_pair(image, image)
    true = identity((128, 128)).replaced(rotation=0.06)
    pair = make_pair(warp_image(image, plain, true), image)
    off = predict_warp(pair).field() - true.field()
    before = float(np.sqrt((true.field() ** 2).sum(-1).mean()))
    assert float(np.sqrt((off**2).sum(-1).mean())) < 0.6 * before


def test_composed_settings_are_refused_by_name() -> None:
    found = learned.points("warp", ["model=warp", "data=gentle", "seed=3"], multirun=False)
    assert found[0][1].data.largest_px == 4.0 and found[0][1].seed == 3  # type: ignore[attr-defined]
    for word, message in (("data.noice=1", "noice"), ("data.objects=cat", "object 'cat' is not known")):
        with pytest.raises(ConfigError, match=message):
            learned.points("warp", ["model=warp", word], multirun=False)
    with pytest.raises(ConfigError, match="above data.most_noise"):
        learned.points("warp", ["model=warp", "data.least_noise=0.5"], multirun=False)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    from ptycho.io.tensors import write_tensors

    path = tmp_path / "a.safetensors"
    write_tensors(path, {"slope": np.ones(3)}, {})
    with pytest.raises(BundleError, match="no weights of the warp network"):
        load_network(path)


@pytest.mark.onnx
def test_onnx_equals_torch_and_its_description_names_what_it_needs(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from ptycho.io.tensors import read_tensors
    from ptycho.models.warp_onnx import write_warp_onnx
    from ptycho.warp.formula import NAMES
    from ptycho_torch.warp.predict import SHIPPED

    weights = read_tensors(SHIPPED)[0]
    model, description = write_warp_onnx(weights, tmp_path)
    task = WarpTask(settings(tmp_path))
    images = task.batch(0, 0)["images"]
    session = onnxruntime.InferenceSession(model.read_bytes(), providers=["CPUExecutionProvider"])
    network = load_network()
    for given in (images, images[:1]):
        made = session.run(["values", "points"], {"images": given.numpy()})
        with torch.no_grad():
            wanted = network(given)
        for ours, theirs in zip(made, wanted, strict=True):
            assert np.abs(ours - theirs.numpy()).max() < 1e-5 and np.abs(ours).max() > 1e-3
    said = json.loads(description.read_text())
    assert list(said["values"]) == list(NAMES) and said["side_px"] == SIDE and said["channels"] == 48
    assert said["input"]["images"]["shape"][1:] == [4, SIDE, SIDE]
    assert write_warp_onnx(weights, tmp_path)[0].read_bytes() == model.read_bytes()


def test_an_export_holds_weights_onnx_and_description(tmp_path: Path) -> None:
    task = WarpTask(settings(tmp_path))
    names = [path.name for path in task.export(task.build(), tmp_path)]
    assert names == ["warp.safetensors", "warp.onnx", "warp.json"]

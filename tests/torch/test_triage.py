"""The network of triage: its pictures are the oracle's, ONNX gives its probabilities, files are checked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from ptycho.errors import BundleError
from ptycho.io.tensors import write_tensors
from ptycho.models.triage import USUAL, triage_weights
from ptycho.triage.batches import draw_frames
from ptycho.triage.features import NUMBERS, FrameInputs, images
from ptycho.triage.labels import FAULTS
from ptycho.triage.scans import Ranges
from ptycho_torch.triage.network import CUT, TriageNetwork, pictures
from ptycho_torch.triage.running import load_network, load_triage, network_of, probabilities, tensors

RANGES = Ranges((1e3, 1e6), (32, 64), (0.5, 0.5), (36, 36), 0.5)


@pytest.fixture(scope="module")
def frames():
    """Two scans of 36 frames with faults."""
    return draw_frames([(1, 0), (1, 1)], RANGES, (0.3,))


def test_pictures_are_those_of_numpy(frames):
    made = pictures(*tensors(*frames[:5])[:3], torch.from_numpy(frames.noise)).numpy()
    assert_allclose(made, images(*frames[:3], frames.noise), rtol=2e-5, atol=2e-5)


def test_the_seed_alone_draws_the_weights_and_no_global_generator_moves():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b, c = TriageNetwork(1), TriageNetwork(1), TriageNetwork(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(a.joined.weight, b.joined.weight) and not torch.equal(a.joined.weight, c.joined.weight)


def test_each_fault_has_an_output_of_its_own(frames):
    given = tensors(*frames[:5])
    network, bias = load_network()[0], torch.zeros(len(FAULTS))
    before = network(*given)
    bias[2] = 3.0
    with torch.no_grad():
        network.last.bias += bias
    moved = (network(*given) - before).detach().numpy()
    assert_allclose(np.delete(moved, 2, axis=1), 0, atol=1e-5)
    assert_allclose(moved[:, 2], 3, atol=1e-4)


def test_batches_do_not_change_a_frames_probability():
    made = draw_frames([(2, 0)], RANGES, (0.2,), gains=False)
    seen = FrameInputs(made.frames, made.around, made.usual[:1], made.numbers, float(made.noise[0, 0, 0]))
    network, _ = load_network()
    whole = probabilities(network, seen)
    alone = probabilities(
        network, seen._replace(frames=seen.frames[7:8], around=seen.around[7:8], numbers=seen.numbers[7:8])
    )
    assert_allclose(whole[7:8], alone, atol=1e-6)


@pytest.mark.onnx
def test_onnx_and_its_description(frames, tmp_path: Path):
    onnxruntime = pytest.importorskip("onnxruntime")
    from ptycho.models.triage_onnx import INPUTS, write_triage_onnx

    model, description = write_triage_onnx(triage_weights(), tmp_path, CUT)
    session = onnxruntime.InferenceSession(model.read_bytes(), providers=["CPUExecutionProvider"])
    given = {name: np.ascontiguousarray(a) for name, a in zip(INPUTS, frames[:5], strict=True)}
    (made,) = session.run(None, given)
    network, thresholds = load_network()
    wanted = torch.sigmoid(network(*tensors(*frames[:5]))).detach().numpy()
    assert_allclose(made, wanted, atol=1e-5)
    one_scan = frames.scan == 0
    shared = {
        **{k: v[one_scan] for k, v in given.items()},
        "usual": frames.usual[:1],
        "noise": frames.noise[:1],
    }
    assert_allclose(session.run(None, shared)[0], wanted[one_scan], atol=1e-5)
    said = json.loads(description.read_text())
    assert said["labels"] == list(FAULTS)
    assert said["normalisation"]["numbers"] == list(NUMBERS)
    assert_allclose(said["normalisation"]["mean"], network.mean.numpy())
    assert_allclose(list(said["thresholds"].values()), thresholds)
    assert_allclose(list(said["usual_tails"].values()), load_triage()[2])
    assert write_triage_onnx(triage_weights(), tmp_path, CUT)[0].read_bytes() == model.read_bytes()


def test_a_file_of_an_older_version_has_its_thresholds_alone(tmp_path: Path):
    weights = triage_weights()
    del weights[USUAL]
    write_tensors(tmp_path / "triage.safetensors", weights, {"tool": "triage"})
    network, thresholds, usual = load_triage(tmp_path / "triage.safetensors")
    assert usual is None
    assert_allclose(thresholds, load_network()[1])


def test_weights_that_do_not_fit_are_named():
    weights = triage_weights()
    weights["joined.weight"] = weights["joined.weight"][:, 1:]
    with pytest.raises(
        BundleError, match=r"mine: its weights are not those of this version's triage \(joined"
    ):
        network_of(weights, "mine")


def test_a_file_that_is_no_model_is_refused(tmp_path: Path):
    path = tmp_path / "triage.safetensors"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(BundleError, match="is damaged"):
        load_network(path)


def test_what_ships_finds_faults_it_never_saw():
    made = draw_frames([(977, k) for k in range(4)], RANGES._replace(photons=(1e4, 1e4)), (0.2,), gains=False)
    network, thresholds = load_network()
    with torch.inference_mode():
        called = torch.sigmoid(network(*tensors(*made[:5]))).numpy() >= thresholds
    bad = made.labels.any(axis=1)
    assert called[bad].any(axis=1).mean() > 0.7 and called[~bad].any(axis=1).mean() < 0.02

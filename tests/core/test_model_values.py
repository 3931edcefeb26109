"""What a bundle keeps and refuses, zipped or as a folder; several scans in one; batches of a served model."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ptycho.clients.prediction import predict_scaled
from ptycho.config.settings import ModelConfig, TrainingConfig
from ptycho.errors import BundleError, ConfigError, RunError
from ptycho.models.bundle import load_bundle, save_bundle
from ptycho.models.trained_state import TrainedState, load_trained_state
from ptycho.networks.graphs import describe, initial_weights, spec_from_config
from ptycho.scan.scan_set import KnownScan

WEIGHTS = {"a": np.arange(6.0, dtype=np.float32).reshape(2, 3), "z": np.array([1 + 2j, 3 - 4j])}


def save(path: Path, **changes) -> Path:
    given = {"weights": WEIGHTS, "config": {"lr": 1e-3}, "state": {"N": 32}, "backend": "pytorch",
             "extra_arrays": {"probe": np.full((4, 4), 1 - 1j, np.complex64)}}  # fmt: skip
    return save_bundle(path, **{**given, **changes})


def unpacked(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    return folder


def test_complex_numbers_keep_sign_and_precision(tmp_path):
    made = load_bundle(save(tmp_path))
    assert made.weights["z"].dtype == np.complex128 and (made.weights["z"] == WEIGHTS["z"]).all()
    assert made.extra_arrays["probe"].dtype == np.complex64 and (made.extra_arrays["probe"] == 1 - 1j).all()


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "arrays.safetensors", "config.json", "normalization.json"]
)
def test_a_changed_byte_in_a_folder_is_noticed(tmp_path, name):
    """In a folder no zip checksum helps: each file is held to the manifest."""
    folder = unpacked(save(tmp_path / "run"), tmp_path / "open")
    assert load_bundle(folder).backend == "pytorch"
    data = bytearray((folder / name).read_bytes())
    data[-3] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} does not match its checksum"):
        load_bundle(folder)


def rewritten(path: Path, **changes) -> Path:
    """The bundle with members replaced (None: left out), and a manifest that fits."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(contents["manifest.json"])
    manifest |= changes.pop("manifest", {})
    for name, data in changes.pop("members", {}).items():
        manifest["sha256"].pop(name, None)
        contents.pop(name, None)
        if data is not None:
            contents[name] = data
            manifest["sha256"][name] = hashlib.sha256(data).hexdigest()
    contents["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w", changes.pop("compression", zipfile.ZIP_STORED)) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
        for name, data in changes.pop("more", ()):
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("name", ["config.json", "normalization.json", "weights.safetensors"])
def test_every_needed_member_is_asked_for(tmp_path, name):
    path = rewritten(save(tmp_path), members={name: None})
    with pytest.raises(BundleError, match=f"manifest.json does not list {name}"):
        load_bundle(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_do_not_belong_are_refused(tmp_path):
    for number, (more, message) in enumerate(
        (
            ([("other.bin", b"x")], "not listed in manifest.json"),
            ([("a/..b", b"x")], "unsafe member name"),
            ([("a..b", b"x")], "unsafe member name"),
            ([("config.json", b"{}")], "holds config.json twice"),
        )
    ):
        path = rewritten(save(tmp_path / str(number)), more=more)
        with pytest.raises(BundleError, match=message):
            load_bundle(path)


def test_the_next_format_is_not_read(tmp_path):
    for version, message in ((2, "upgrade"), (0, "not a positive integer"), (True, "not a positive integer")):
        path = rewritten(save(tmp_path / str(version)), manifest={"format_version": version})
        with pytest.raises(BundleError, match=message):
            load_bundle(path)


def test_a_member_that_unfolds_a_thousand_times_is_refused(tmp_path):
    data = json.dumps({"a": " " * (4 << 20)}).encode()
    path = rewritten(save(tmp_path), members={"config.json": data}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(BundleError, match="oversized"):
        load_bundle(path)


def test_the_same_model_is_the_same_bytes_and_of_no_time(tmp_path):
    one, other = save(tmp_path / "a"), save(tmp_path / "b")
    assert one.read_bytes() == other.read_bytes()
    with zipfile.ZipFile(one) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    for bad in (np.nan, np.inf):
        with pytest.raises(RunError, match="1 value that is not finite"):
            save(tmp_path, weights={"a": np.array([1.0, bad])})


# several scans


@pytest.fixture
def state() -> TrainedState:
    rng = np.random.default_rng(0)

    def scan(number: int) -> KnownScan:
        modes = rng.standard_normal((1, 32, 32)) + 1j * rng.standard_normal((1, 32, 32))
        return KnownScan(
            probe=modes.astype(np.complex64), x_scale=1.0 + number, nphotons=10.0 * (number + 1),
            probe_factor=0.5 + number, bad_pixels=np.arange(32 * 32).reshape(32, 32) == number,
            guess=(modes * (2 + number) + 1).astype(np.complex64), log_scale=0.1 * number,
        )  # fmt: skip

    config = TrainingConfig(model=ModelConfig(N=32, n_filters_scale=1))
    spec = spec_from_config(config.model)
    weights = initial_weights(describe("swift", spec), spec, 0)
    return TrainedState(config, weights, tuple(scan(n) for n in range(3)))


def test_every_scan_of_a_bundle_comes_back(state, tmp_path):
    again, _ = load_trained_state(state.save(tmp_path, "pytorch"))
    for ours, theirs in zip(state.scans, again.scans, strict=True):
        for name in ("x_scale", "nphotons", "probe_factor", "log_scale"):
            assert getattr(theirs, name) == pytest.approx(getattr(ours, name))
        for name in ("probe", "guess", "bad_pixels"):
            assert (getattr(theirs, name) == getattr(ours, name)).all(), name
    assert again.intensity_scale == pytest.approx(2 * np.sqrt(10.0) / 32)


def test_the_scan_that_was_asked_for_is_taken(state, make_scan):
    for number in range(3):
        made = state.for_scan(number)
        assert len(made.scans) == 1 and made.scans[0].x_scale == 1.0 + number
    for number in (-1, 3):
        with pytest.raises(
            ConfigError, match=f"trained_scan = {number}: the model was trained on 3 scans, 0 to 2"
        ):
            state.for_scan(number)
    raw = make_scan(n_positions=9)
    raw.probeGuess = state.scans[1].guess[0]
    for wanted in (0, 1, 2):
        assert state.for_data(raw, wanted).scans[0].x_scale == 1.0 + wanted
    assert state.for_data(raw).scans[0].x_scale == 2.0


# a served model


def test_batches_of_a_served_model_are_unscaled_whole_and_merged_with_their_own_offsets():
    from ptycho.clients.group_merge import merge_groups

    rng = np.random.default_rng(1)
    model = ModelConfig(N=32, gridsize=2)
    scaled = rng.uniform(size=(5, 32, 32, 4)).astype(np.float32)
    seen = []

    def predict(x):
        seen.append(x)
        return (x * (1 + 1j)).astype(np.complex64)

    made = predict_scaled([scaled], model, 4.0, predict, 2)
    assert [len(x) for x in seen] == [2, 2, 1]
    assert made == pytest.approx(scaled / 4 * (1 + 1j))
    offsets, window = rng.uniform(-2, 2, (5, 1, 2, 4)), np.ones((32, 32))
    merged = predict_scaled([scaled, offsets], model, 4.0, predict, 2, window=window)
    wanted = merge_groups((np.moveaxis(scaled, -1, 1) / 4 * (1 + 1j)).astype(np.complex64), offsets, window)
    assert merged[..., 0] == pytest.approx(wanted, abs=1e-6)

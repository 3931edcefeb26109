"""The bundle keeps what was put in, says what is wrong with a bad file, and runs nothing that it holds."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho.errors import BundleError, RunError
from ptycho.models.bundle import BUNDLE_NAME, FORMAT_VERSION, load_bundle, save_bundle

CONFIG = {"model": {"N": 64, "gridsize": 1, "architecture": "cnn"}, "output_dir": Path("runs/a"), "lr": 1e-3}
STATE = {"x_scale": 0.1234567890123456, "intensity_scale": 988.2117688, "nphotons": 1e9, "N": 64}


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        "encoder.0.weight": rng.normal(size=(4, 1, 3, 3)).astype(np.float32),
        "encoder.0.bias": np.zeros(4, np.float32),
        "log_scale": np.float64(0.25).reshape(()),
        "steps": np.array([7], np.int64),
        "probe": (rng.normal(size=(2, 8, 8)) + 1j * rng.normal(size=(2, 8, 8))).astype(np.complex64),
        "field": (rng.normal(size=(3,)) + 1j).astype(np.complex128),
        "strided": np.arange(12, dtype=np.float32).reshape(3, 4).T,
        "empty": np.zeros((0, 3), np.float32),
    }


def save(path: Path, **changes: Any) -> Path:
    given: dict[str, Any] = {"weights": arrays(), "config": CONFIG, "state": STATE, "backend": "pytorch"}
    return save_bundle(path, **(given | changes))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return save(tmp_path / "run", extra_arrays={"probe_start": np.ones((8, 8), np.complex64)})


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path: Path, contents: dict[str, bytes], *, honest: bool = True) -> None:
    """Write the archive anew; `honest` makes the manifest's checksums fit, as an attacker would."""
    if honest and "manifest.json" in contents:
        manifest = json.loads(contents["manifest.json"])
        for name in manifest["sha256"]:
            if name in contents:
                manifest["sha256"][name] = hashlib.sha256(contents[name]).hexdigest()
        contents = {**contents, "manifest.json": json.dumps(manifest).encode()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)


def edit_manifest(path: Path, **changes: Any) -> None:
    contents = members(path)
    contents["manifest.json"] = json.dumps({**json.loads(contents["manifest.json"]), **changes}).encode()
    rewrite(path, contents, honest=False)


class TestRoundTrip:
    def test_every_array_comes_back_bit_for_bit(self, bundle: Path) -> None:
        loaded = load_bundle(bundle)
        assert list(loaded.weights) == sorted(arrays())
        for name, want in arrays().items():
            got = loaded.weights[name]
            assert got.dtype == want.dtype and got.shape == want.shape, name
            assert np.array_equal(got, want), name
            assert got.flags.writeable
        assert loaded.extra_arrays["probe_start"].dtype == np.complex64

    def test_configuration_scales_and_origin_come_back(self, bundle: Path) -> None:
        loaded = load_bundle(bundle)
        assert loaded.config == {**CONFIG, "output_dir": "runs/a"}
        assert loaded.state == STATE
        assert loaded.backend == "pytorch"
        assert loaded.format_version == FORMAT_VERSION
        assert loaded.versions["numpy"] == np.__version__
        assert loaded.path == bundle

    def test_numpy_scalars_and_small_arrays_are_stored_as_numbers(self, tmp_path: Path) -> None:
        state = {"x": np.float64(0.5), "N": np.int64(64), "big": np.bool_(True), "crop": np.array([1, 2])}
        want = {"x": 0.5, "N": 64, "big": True, "crop": [1, 2]}
        assert load_bundle(save(tmp_path, state=state)).state == want

    def test_the_same_content_is_the_same_bytes(self, tmp_path: Path) -> None:
        backwards = dict(reversed(arrays().items()))
        one, two = save(tmp_path / "a"), save(tmp_path / "b", weights=backwards)
        assert one.read_bytes() == two.read_bytes()

    @pytest.mark.parametrize("as_given", ["file", "folder", "unpacked", "renamed"])
    def test_every_accepted_form_opens(self, bundle: Path, tmp_path: Path, as_given: str) -> None:
        path = bundle
        if as_given == "folder":
            path = bundle.parent
        elif as_given == "unpacked":
            path = tmp_path / "unpacked"
            shutil.unpack_archive(bundle, path, "zip")
            (path / "notes.txt").write_text("a stranger's file beside the members")
        elif as_given == "renamed":
            path = Path(shutil.copy(bundle, tmp_path / "model.zip"))
        assert load_bundle(path).state == STATE

    def test_a_folder_is_made_and_a_zip_name_is_kept(self, tmp_path: Path) -> None:
        assert save(tmp_path / "new" / "run") == tmp_path / "new" / "run" / BUNDLE_NAME
        assert save(tmp_path / "model.zip") == tmp_path / "model.zip"


class TestSaving:
    def test_a_failed_save_leaves_the_old_bundle_whole(self, bundle: Path) -> None:
        before = bundle.read_bytes()
        with pytest.raises(RunError, match="object"):
            save(bundle.parent, weights={"bad": np.array([object()])})
        assert bundle.read_bytes() == before
        assert os.listdir(bundle.parent) == [BUNDLE_NAME]

    @pytest.mark.parametrize(
        "changes, message",
        [
            ({"state": {"x_scale": float("nan")}}, r"state.x_scale is nan"),
            ({"config": {"model": {"N": object()}}}, r"config.model.N .*object"),
            ({"weights": {}}, "no weights"),
            ({"weights": {"w": np.array([np.inf])}}, "w holds 1 value that is not finite"),
        ],
    )
    def test_what_cannot_be_stored_is_named(
        self, tmp_path: Path, changes: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(RunError, match=message):
            save(tmp_path, **changes)
        assert os.listdir(tmp_path) == []


def legacy(path: Path) -> None:
    rewrite(path, {"manifest.dill": b"\x80\x04", "autoencoder/model.dill": b"\x80\x04"})


def drop(name: str) -> Any:
    return lambda path: rewrite(path, {k: v for k, v in members(path).items() if k != name}, honest=False)


def replace(name: str, data: bytes, *, honest: bool = True) -> Any:
    return lambda path: rewrite(path, {**members(path), name: data}, honest=honest)


BAD = {
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-200]), "is truncated"),
    "empty file": (lambda p: p.write_bytes(b""), "is empty"),
    "not a zip": (lambda p: p.write_bytes(b"hello, world" * 100), "is not a zip archive"),
    "legacy": (legacy, "legacy bundle .*manifest.dill.* can run code"),
    "foreign zip": (lambda p: rewrite(p, {"a.txt": b"a"}), "has no manifest.json"),
    "foreign manifest": (lambda p: edit_manifest(p, format="other"), "format 'other'"),
    "newer": (lambda p: edit_manifest(p, format_version=2), "format 2, .* reads up to 1; upgrade"),
    "version is text": (lambda p: edit_manifest(p, format_version="1"), "format_version"),
    "manifest not json": (replace("manifest.json", b"{", honest=False), "manifest.json is not valid JSON"),
    "manifest a list": (replace("manifest.json", b"[]", honest=False), "manifest.json .* object"),
    "no backend": (lambda p: edit_manifest(p, backend=None), "backend"),
    "unlisted weights": (lambda p: edit_manifest(p, sha256={}), "does not list config.json"),
    "checksum": (replace("normalization.json", b'{"x_scale": 2.0}', honest=False), "json .*checksum"),
    "missing member": (drop("weights.safetensors"), "weights.safetensors is missing"),
    "missing scales": (drop("normalization.json"), "normalization.json is missing"),
    "scales not json": (replace("normalization.json", b"\xff"), "normalization.json is not valid JSON"),
    "scales not finite": (replace("normalization.json", b'{"x_scale": NaN}'), "NaN is not a number"),
    "weights not safetensors": (replace("weights.safetensors", b"PK" * 50), "safetensors cannot be read"),
    "zip slip": (replace("../../etc/evil", b"x", honest=False), r"unsafe member name '../../etc/evil'"),
    "absolute": (replace("/etc/evil", b"x", honest=False), "unsafe member name"),
    "backslash": (replace("..\\evil", b"x", honest=False), "unsafe member name"),
    "unlisted": (replace("payload.pkl", pickle.dumps(print), honest=False), "'payload.pkl'.*not listed"),
}


class TestBadBundles:
    @pytest.mark.parametrize("case", BAD, ids=lambda name: name.replace(" ", "-"))
    def test_says_which_file_and_what(self, bundle: Path, case: str) -> None:
        spoil, message = BAD[case]
        spoil(bundle)
        with pytest.raises(BundleError, match=message) as caught:
            load_bundle(bundle)
        assert str(bundle) in str(caught.value) and "\n" not in str(caught.value)

    def test_missing_file_and_folder_without_a_bundle(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match="does not exist"):
            load_bundle(tmp_path / "nowhere")
        with pytest.raises(BundleError, match=f"neither {BUNDLE_NAME} nor manifest.json"):
            load_bundle(tmp_path)

    def test_flipped_bit_in_the_weights(self, bundle: Path) -> None:
        data = bytearray(bundle.read_bytes())
        data[data.index(arrays()["encoder.0.weight"].tobytes()) + 5] ^= 1
        bundle.write_bytes(data)
        with pytest.raises(BundleError, match="weights.safetensors is damaged"):
            load_bundle(bundle)

    def test_same_name_twice(self, bundle: Path) -> None:
        with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(bundle, "a") as archive:
            archive.writestr("config.json", b"{}")
        with pytest.raises(BundleError, match="config.json twice"):
            load_bundle(bundle)

    def test_compression_bomb_is_refused_before_it_is_unpacked(self, bundle: Path) -> None:
        contents = {**members(bundle), "config.json": b" " * (64 << 20)}
        with zipfile.ZipFile(bundle, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in contents.items():
                archive.writestr(name, data)
        with pytest.raises(BundleError, match="config.json .*oversized"):
            load_bundle(bundle)

    def test_unpacked_member_cannot_lead_outside(self, bundle: Path, tmp_path: Path) -> None:
        unpacked = tmp_path / "unpacked"
        shutil.unpack_archive(bundle, unpacked, "zip")
        manifest = json.loads((unpacked / "manifest.json").read_text())
        manifest["sha256"]["../secret.json"] = "0" * 64
        (unpacked / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(BundleError, match="unsafe member name"):
            load_bundle(unpacked)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.mark, "ran"))


@pytest.mark.parametrize("name", ["weights.safetensors", "config.json", "arrays.safetensors", "model.pkl"])
def test_a_pickle_inside_is_never_loaded(bundle: Path, tmp_path: Path, name: str) -> None:
    mark = tmp_path / "ran"
    buffer = io.BytesIO()
    pickle.Pickler(buffer).dump(Bomb(mark))
    rewrite(bundle, {**members(bundle), name: buffer.getvalue()})
    with pytest.raises(BundleError):
        load_bundle(bundle)
    assert not mark.exists()
    pickle.loads(buffer.getvalue())
    assert mark.exists(), "the bomb itself works, so the silence above means something"

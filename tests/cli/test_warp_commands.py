"""`ptycho compare --warp` and `reconstruct --position_reference`: from files to numbers, end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ptycho.cli.main import main
from ptycho.simulation import Scenario, simulate
from ptycho.simulation.objects import lines
from ptycho.warp.distortions import drift_and_hysteresis
from ptycho.warp.prepare import make_pair, warp_image
from ptycho.warp.warp import identity

Capture = pytest.CaptureFixture[str]


def save(path: Path, obj: np.ndarray) -> Path:
    np.savez(path, object=obj.astype(np.complex64))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An object, the same rotated and scaled, a picture of its phase, and the object again."""
    folder = tmp_path_factory.mktemp("warp")
    whole = np.asarray(lines((112, 112), 3), np.complex128)
    pair = make_pair(whole, whole)
    turned = warp_image(whole, pair, identity((112, 112)).replaced(rotation=0.05, scale=0.03))
    inner = np.s_[10:-10, 10:-10]
    picture = np.angle(turned[inner])
    np.save(folder / "picture.npy", picture)
    from PIL import Image

    grey = np.round(255 * (picture - picture.min()) / np.ptp(picture)).astype(np.uint8)
    Image.fromarray(grey).save(folder / "picture.png")
    return {
        "moving": save(folder / "moving.npz", whole[inner]),
        "fixed": save(folder / "fixed.npz", turned[inner]),
        "npy": folder / "picture.npy",
        "png": folder / "picture.png",
    }


def test_a_warp_makes_two_images_alike(files: dict[str, Path], tmp_path: Path, capsys: Capture) -> None:
    read = {}
    for kind in ("none", "affine"):
        target = tmp_path / f"{kind}.json"
        words = ["compare", files["moving"], files["fixed"], "--warp", kind, "--json", target]
        if kind != "none":
            words += ["--warp_figure", tmp_path / "a.png", "--flow", tmp_path / "a.npz"]
        assert main([str(word) for word in words]) == 0
        read[kind] = json.loads(target.read_text())
    assert read["affine"]["nrmse"] < 0.3 * read["none"]["nrmse"]
    assert read["affine"]["warp"]["rotation"] == pytest.approx(0.05, abs=0.01)
    assert (tmp_path / "a.png").stat().st_size > 10_000
    with np.load(tmp_path / "a.npz") as made:
        assert made["displacement_xy_px"].shape == (*made["object"].shape, 2)
    said = capsys.readouterr().out
    assert "warp         affine" in said and "displaced" in said and "before" in said


@pytest.mark.parametrize("kind", ["npy", "png"])
def test_a_micrograph_serves_as_reference(files: dict[str, Path], tmp_path: Path, kind: str) -> None:
    target = tmp_path / "n.json"
    words = ["compare", files["moving"], files[kind], "--warp", "affine", "--json", target]
    assert main([str(word) for word in words]) == 0
    found = json.loads(target.read_text())
    assert found["warp"]["scale"] == pytest.approx(0.03, abs=0.01) and found["score_after"]["failures"] == []


def test_what_cannot_be_done_is_one_line(files: dict[str, Path], tmp_path: Path, capsys: Capture) -> None:
    a, b = str(files["moving"]), str(files["fixed"])
    flat = tmp_path / "flat.npy"
    np.save(flat, np.zeros((40, 40)))
    for words, message in (
        (["compare", a, b, "--flow", str(tmp_path / "x.npz")], "need a warp"),
        (["compare", a, str(files["npy"])], "is a micrograph; add --warp"),
        (
            ["compare", a, str(files["npy"]), "--warp", "lens", "-o", str(tmp_path / "x.png")],
            "use --warp_figure",
        ),
        (["compare", a, str(flat), "--warp", "lens"], "shows nothing"),
        (["compare", a, b, "--warp", "lens", "--flow", a], "the command reads it"),
    ):
        assert main(words) == 2, words
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_positions_are_corrected_not_made_worse(tmp_path: Path, capsys: Capture) -> None:
    """A scan that drifts, against the image of its object: the sign of every step is in this test."""
    made = simulate(
        Scenario(object="lines", N=32, n_positions=225, step_px=4.0, probe="disk", seed=4, photons=1e6)
    )
    true = made.raw.positions_px
    errors = drift_and_hysteresis(true, (2.0, 3.0), (-2.0, 0.0))
    scan, reference = tmp_path / "scan.npz", tmp_path / "truth.npz"
    made.raw.moved_to(true + errors).to_file(scan)
    np.savez(reference, object=made.object_true, origin_xy=np.zeros(2))
    out = tmp_path / "out"
    words = ["reconstruct", scan, "-o", out, "--sweeps", "6", "--position_reference", reference]
    assert main([str(word) for word in words]) == 0
    with np.load(out / "reconstruction.npz") as result:
        off = result["positions_px"] - true
    off -= off.mean(0)
    before, after = (float(np.sqrt((e**2).sum(1).mean())) for e in (errors, off))
    assert after < 0.1
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["reference_moves_rms_px"] == pytest.approx(before, rel=0.4)
    assert metrics["reference_fit_kept"] is True and metrics["reference_fit_gain"] > 4
    said = capsys.readouterr().out
    assert "positions    moved" in said and "and a fit to the patterns" in said
    missing = ["reconstruct", scan, "-o", tmp_path / "b", "--position_reference", tmp_path / "no.npz"]
    assert main([str(word) for word in missing]) == 2
    assert "does not exist" in capsys.readouterr().err

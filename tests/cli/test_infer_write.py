"""`ptycho infer --write`: every kind of file, from an imported scan in metres; and the measured star."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from ptycho.cli.main import main
from ptycho.config.settings import ModelConfig, TrainingConfig
from ptycho.io.images import read_image
from ptycho.io.ptychodus_product import read_product
from ptycho.models.trained_state import TrainedState
from ptycho.networks.graphs import describe, initial_weights, spec_from_config
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.raw_data import RawData
from ptycho.scan.scan_set import KnownScan

FILES = {
    "cxi": "reconstruction.cxi", "tiff": "reconstruction_phase.tif", "product": "product.h5",
    "ptyr": "reconstruction.ptyr",
}  # fmt: skip


def untrained(folder: Path, raw: RawData) -> Path:
    """A bundle whose network has its first weights: what is written does not depend on what it shows."""
    config = TrainingConfig(model=ModelConfig(N=raw.N, gridsize=1, n_filters_scale=1))
    spec = spec_from_config(config.model)
    container = PtychoDataContainer.from_raw(raw, 1)
    known = KnownScan.of(container, container.probe / np.abs(container.probe).max(), 1.0)
    weights = initial_weights(describe(config.model.architecture, spec), spec, 0)
    return TrainedState(config, weights, (known,)).save(folder, "pytorch").parent


@pytest.fixture
def scan(make_scan, tmp_path: Path) -> Path:
    """A scan of which all metres are known, through `ptycho import`."""
    raw = make_scan()
    raw.objectGuess = None
    raw.to_file(tmp_path / "plain.npz")
    words = ["energy_eV=8800", "distance_m=2.0", "detector_pixel_size_m=75e-6"]
    target = tmp_path / "scan.h5"
    assert main(["import", str(tmp_path / "plain.npz"), "-o", str(target), "--set", *words]) == 0
    return target


def test_every_kind_is_written_and_read_as_the_same_image(scan: Path, tmp_path: Path, capsys) -> None:
    pytest.importorskip("tifffile")
    raw = RawData.from_file(scan)
    size = raw.object_pixel_size_m
    assert size == pytest.approx(117.41e-9, rel=1e-4)
    model, out = untrained(tmp_path / "model", raw), tmp_path / "out"
    words = ["infer", "--model", str(model), "--data", str(scan), "-o", str(out)]
    assert main([*words, "--write", "npz,cxi,tiff,product,ptyr"]) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    plain = read_image(out / "reconstruction.npz")
    assert plain.object_pixel_size_m == size
    for kind, file in FILES.items():
        assert f"{kind:<12} " in shown
        again = read_image(out / file)
        np.testing.assert_allclose(again.object, plain.object, atol=2e-6 * np.abs(plain.object).max())
        assert again.object_pixel_size_m == pytest.approx(size, rel=1e-9)
        if kind != "tiff":
            assert again.probe is not None and plain.probe is not None
            ratio = np.abs(again.probe).sum() / np.abs(plain.probe).sum()
            np.testing.assert_allclose(again.probe, plain.probe * ratio, rtol=1e-4, atol=1e-6 * ratio)
    product = read_product(out / "product.h5")
    metres = np.stack([product.x_m, product.y_m], axis=1)
    steps = np.diff(raw.positions_px, axis=0) * size
    np.testing.assert_allclose(np.diff(metres, axis=0), steps, atol=1e-12)
    assert product.metadata.photon_energy_ev == pytest.approx(8800) and product.frame.pixel_xy_m[0] == size


@pytest.mark.parametrize("words, said", [
    ("gif", "--write gif: not known; known: npz, cxi, tiff, product, ptyr"),
    ("product", "needs energy_eV.*distance_m"), ("ptyr", "needs energy_eV.*distance_m"),
])  # fmt: skip
def test_what_cannot_be_written_is_said_first(words: str, said: str, scan: Path, tmp_path: Path, capsys):
    raw = RawData.from_file(tmp_path / "plain.npz")
    model = untrained(tmp_path / "model", raw)
    flags = ["--data", str(tmp_path / "plain.npz"), "-o", str(tmp_path / "out"), "--write", words]
    assert main(["infer", "--model", str(model), *flags]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()
    assert re.search(said, line), line


def test_the_measured_star_in_metres(shared_dir: Path, tmp_path: Path, capsys) -> None:
    """Its pixel size is not in the file. The distance is what 28 nm, 8.8 keV and 172 um pixels ask for."""
    star, target = shared_dir / "data" / "siemens_star_velociprobe.npz", tmp_path / "star.h5"
    known = [
        "energy_eV=8800",
        "object_pixel_size_m=28e-9",
        "detector_pixel_size_m=172e-6",
        "distance_m=4.375",
    ]
    assert main(["import", str(star), "-o", str(target), "--set", *known]) == 0
    assert "28 nm" in capsys.readouterr().out
    raw, plain = RawData.from_file(target), RawData.from_file(star)
    np.testing.assert_array_equal(np.diff(raw.positions_px, axis=0), np.diff(plain.positions_px, axis=0))
    assert raw.diffraction_unit == "amplitude" and raw.object_pixel_size_m == 28e-9
    model, out = untrained(tmp_path / "model", raw), tmp_path / "out"
    words = ["infer", "--model", str(model), "--data", str(target), "-o", str(out), "--n_subsample", "36"]
    assert main([*words, "--write", "product"]) == 0, capsys.readouterr().err
    product = read_product(out / "product.h5")
    metres = np.stack([product.x_m, product.y_m], axis=1)
    pixels = read_image(out / "reconstruction.npz").positions_px
    assert pixels is not None and product.frame.pixel_xy_m == (28e-9, 28e-9)
    np.testing.assert_allclose(np.diff(metres, axis=0), np.diff(pixels, axis=0) * 28e-9, atol=1e-13)
    assert read_image(out / "reconstruction.npz").object_pixel_size_m == 28e-9
    without = tmp_path / "without"
    words = ["infer", "--model", str(model), "--data", str(star), "-o", str(without), "--n_subsample", "36"]
    assert main(words) == 0
    pictures = [np.asarray(Picture.open(f / "reconstruction.png").convert("L")) for f in (out, without)]
    assert pictures[0].shape != pictures[1].shape or (pictures[0] != pictures[1]).any()

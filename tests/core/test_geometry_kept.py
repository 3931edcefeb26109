"""What a scan says of its metres goes with it: container, bundle, results, validation, report page, files."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from ptycho.cli.main import main
from ptycho.config.settings import ModelConfig, TrainingConfig
from ptycho.errors import BundleError, DataError
from ptycho.io.geometry import Geometry
from ptycho.models.trained_state import TrainedState, load_trained_state
from ptycho.networks.graphs import describe, initial_weights, spec_from_config
from ptycho.report.html import build_report, build_views
from ptycho.report.outputs import save_reconstruction
from ptycho.run.reconstruction import Predictor, reconstruct
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.raw_data import RawData
from ptycho.scan.report import describe_scan
from ptycho.scan.scan_set import KnownScan

PHOTONS = Geometry.of_settings({"energy_eV": 8800.0, "distance_m": 2.0, "detector_pixel_size_m": 75e-6})
ELECTRONS = Geometry.of_settings({"voltage_V": 80e3, "angular_pixel_size_rad": 0.9e-3, "rotation_deg": 30.0})
CAMERA = Geometry.of_settings({"voltage_V": 300e3, "camera_length_m": 0.2, "detector_pixel_size_m": 55e-6})


@pytest.fixture
def raw(make_scan) -> RawData:
    made = make_scan()
    made.geometry = PHOTONS
    return made


def state_of(*scans: Geometry) -> TrainedState:
    rng = np.random.default_rng(0)
    probe = (rng.standard_normal((1, 32, 32)) + 0j).astype(np.complex64)
    none = np.zeros((32, 32), bool)
    config = TrainingConfig(model=ModelConfig(N=32, n_filters_scale=1))
    spec = spec_from_config(config.model)
    known = tuple(KnownScan(probe, 1.0, 10.0, 0.5, none, probe, geometry=one) for one in scans)
    return TrainedState(config, initial_weights(describe("swift", spec), spec, 0), known)


@pytest.mark.parametrize("geometry", [PHOTONS, ELECTRONS, CAMERA, Geometry()])
@pytest.mark.parametrize("count", [1, 2])
def test_a_bundle_has_the_geometry_of_every_scan(geometry: Geometry, count: int, tmp_path: Path) -> None:
    again, _ = load_trained_state(state_of(*[geometry] * count).save(tmp_path, "pytorch"))
    assert [scan.geometry for scan in again.scans] == [geometry] * count


def test_a_bundle_says_its_geometry_and_an_older_one_has_none(tmp_path: Path, capsys) -> None:
    state_of(ELECTRONS).save(tmp_path, "pytorch")
    assert main(["info", str(tmp_path)]) == 0
    assert "'beam': 'electron'" in capsys.readouterr().out
    state_of(Geometry()).save(tmp_path / "old", "pytorch")
    assert main(["info", str(tmp_path / "old")]) == 0
    assert "geometry" not in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [{"wavelength_m": -1.0}, {"colour": 1.0}, {"distance_m": "far"}, [1]])
def test_a_geometry_that_cannot_be_is_refused(wrong: object, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(DataError):
        Geometry.of_dict(wrong)  # type: ignore[arg-type]
    monkeypatch.setattr(Geometry, "as_dict", lambda self: wrong)
    state_of(PHOTONS).save(tmp_path, "pytorch")
    monkeypatch.undo()
    with pytest.raises(BundleError, match=r"geometry|wavelength_m|distance_m"):
        load_trained_state(tmp_path)


def test_a_container_and_what_is_known_of_it(raw: RawData) -> None:
    container = PtychoDataContainer.from_raw(raw, 1)
    assert container.geometry == PHOTONS and container.select(np.arange(3)).geometry == PHOTONS
    assert KnownScan.of(container, container.probe, 1.0).geometry == PHOTONS
    for other in (raw.subsample(9), raw.moved_to(raw.positions_px + 1), raw.with_probe(raw.probe_modes)):
        assert other.geometry == PHOTONS


def test_a_result_knows_its_object_pixel(raw: RawData, tmp_path: Path) -> None:
    from ptycho.image.stitcher import Stitcher

    container = PtychoDataContainer.from_raw(raw, 1)
    seen = Predictor(
        TrainingConfig(model=ModelConfig(N=32)), container.x_scale, container.nphotons, container.probe, 0.0,
        lambda x: np.ones(x.shape, np.complex64), Stitcher, np.asarray,
    )  # fmt: skip
    made = reconstruct(seen, container)
    size = PHOTONS.require_object_pixel_size_m(32)
    assert made.geometry == PHOTONS and made.object_pixel_size_m == pytest.approx(size)
    assert dataclasses.replace(made, geometry=Geometry()).object_pixel_size_m is None
    save_reconstruction(made, tmp_path, backend="pytorch", object_pixel_size_m=made.object_pixel_size_m)
    view = build_views([tmp_path])[0]
    sizes = re.findall(r"([\d.]+) × ([\d.]+) µm \((\d+) × (\d+) px\)", view.hero[0].caption)
    (width, height, columns, rows) = map(float, sizes[0])
    assert (width, height) == pytest.approx((columns * size * 1e6, rows * size * 1e6), rel=5e-3)


def test_validation_and_the_page_say_it(raw: RawData, tmp_path: Path, capsys) -> None:
    raw.to_file(tmp_path / "scan.npz")
    report = describe_scan(raw)
    assert report.object_pixel_size_m == pytest.approx(PHOTONS.require_object_pixel_size_m(32))
    rows = dict(report.geometry)
    assert rows == {
        "energy": "8800 eV", "wavelength": "0.140891 nm", "distance": "2 m", "detector pixel": "75 um",
        "object pixel": "117.409 nm",
    }  # fmt: skip
    assert main(["validate", str(tmp_path / "scan.npz")]) == 0
    shown = capsys.readouterr().out
    assert all(value in shown for value in rows.values())
    assert main(["validate", str(tmp_path / "scan.npz"), "--json"]) == 0
    assert dict(json.loads(capsys.readouterr().out)["geometry"]) == rows
    run = tmp_path / "run"
    run.mkdir()
    (run / "history.json").write_text(json.dumps({"train_loss": [3.0, 2.0]}))
    page = build_report([run], data=tmp_path / "scan.npz")
    assert all(value in page for value in rows.values())


def test_electrons_in_their_own_units() -> None:
    assert dict(ELECTRONS.rows(100)) == {
        "beam": "electrons, 80 kV", "wavelength": "4.17572 pm", "angle of a pixel": "0.9 mrad",
        "rotation": "30 degrees", "object pixel": "0.0463968 nm",
    }  # fmt: skip
    assert dict(CAMERA.rows())["camera length"] == "0.2 m"
    for geometry in (ELECTRONS, CAMERA, PHOTONS):
        assert Geometry.of_dict(geometry.as_dict()) == geometry
        again = Geometry.of_settings(geometry.as_settings())
        assert again.object_pixel_size_m(64) == pytest.approx(geometry.object_pixel_size_m(64))


def test_nothing_is_said_where_nobody_said_it(make_scan, tmp_path: Path, capsys) -> None:
    raw = make_scan()
    report = describe_scan(raw)
    assert report.geometry == [] and report.object_pixel_size_m is None
    assert Geometry().rows(32) == [] and Geometry().as_dict() == {"beam": "photon"}

"""`import ptychopinn`: six names, light to import, and results that show themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import ptychopinn as pp
from ptycho.errors import ConfigError, InputError

SMALL = {"N": 32, "n_positions": 25, "step_px": 3.0}


def test_the_import_is_light_and_has_the_names() -> None:
    code = "import sys, ptychopinn; print(sorted({'torch', 'numpy', 'lightning', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
    assert set(pp.__all__) >= {"open", "simulate", "reconstruct", "train", "infer", "report"}
    assert all(callable(getattr(pp, name)) and getattr(pp, name).__doc__ for name in pp.__all__)
    with pytest.raises(AttributeError):
        _ = pp.nothing


def test_the_whole_way_shows_itself(tmp_path: Path) -> None:
    scan = pp.simulate(**SMALL)
    assert repr(pp.open(scan.save(tmp_path / "scan.npz"))) == repr(scan)
    image = pp.reconstruct(tmp_path / "scan.npz", sweeps=3, accelerator="cpu")
    assert image.r_factor is not None and 0 < image.r_factor < 1 and image.positions_px.shape == (25, 2)
    assert f"R {image.r_factor:.4f}" in repr(image)
    for thing in (scan, image):
        assert "<img" in thing._repr_html_() and isinstance(thing.plot(), Figure)
    page = pp.report(image.save(tmp_path / "image"), output=tmp_path / "r.html")
    assert page.stat().st_size > 1000
    with np.load(tmp_path / "image" / "reconstruction.npz") as product:
        assert np.array_equal(product["object"], image.object)


def test_train_once_infer_from_model_and_from_file(tmp_path: Path) -> None:
    scan = pp.simulate(**SMALL)
    model = pp.train(scan, epochs=1, probe_from="guess", accelerator="cpu")
    assert "after 1 epochs" in repr(model) and "<" in model._repr_html_()
    first = pp.infer(scan, model, accelerator="cpu")
    second = pp.infer(scan, model.save(tmp_path / "run"), accelerator="cpu")
    assert np.allclose(first.object, second.object, atol=1e-6)


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run to report on"):
        pp.report()
    with pytest.raises(ConfigError, match="nepoch"):
        pp.train(pp.simulate(**SMALL), nepoch=3)
    with pytest.raises(InputError):
        pp.open(tmp_path / "gone.npz")


def test_the_network_that_ships_needs_no_model():
    image = pp.infer(pp.simulate(N=64, n_positions=64, seed=4))
    assert image.object.dtype == np.complex64 and image.r_factor < 0.2

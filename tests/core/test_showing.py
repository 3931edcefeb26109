"""Scans, images and models show themselves: figures without pyplot, fragments of escaped HTML."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from ptycho.config.settings import TrainingConfig
from ptycho.errors import InputError
from ptycho.io.geometry import Geometry
from ptycho.report import showing
from ptycho.scan.raw_data import RawData
from ptycho.simulation import Scenario, simulate


@pytest.fixture(scope="module")
def scan():
    return simulate(Scenario(N=32, n_positions=49, step_px=3.0, photons=1e5, n_modes=2))


def sized(raw: RawData, size_m: float) -> RawData:
    return RawData(**{**raw.as_arrays(), "geometry": Geometry(measured_object_pixel_size_m=size_m)})


def test_a_scan_is_drawn_in_micrometres_where_they_are_known(scan) -> None:
    places = showing.draw_scan(scan.raw).axes[0]
    assert places.get_xlabel() == "x / px"
    known = showing.draw_scan(sized(scan.raw, 2e-8), "a title").axes[0]
    assert known.get_xlabel() == "x / µm"
    width = np.ptp(known.collections[0].get_offsets()[:, 0])
    assert np.isclose(width, np.ptp(scan.raw.xcoords) * 0.02)


def test_fragments_show_pictures_and_numbers(scan) -> None:
    text = showing.scan_html(sized(scan.raw, 2e-8), "<b>scan")
    assert text.count("<img") == 2 and "49 of 32 × 32 px" in text and "20 nm" in text
    assert "<b>scan" not in text and "&lt;b&gt;scan" in text
    image = showing.image_html(scan.object_true, numbers={"R": "<i>"}, pixel_size_m=2e-8)
    assert image.count("data:image/png;base64,") == 3 and "<i>" not in image and "µm" in image
    model = showing.model_html(
        TrainingConfig(), history={"train_loss": [2.0, 1.25]}, probe=np.ones((1, 64, 64))
    )
    assert "1.25 after 2 epochs" in model and model.count("<img") == 1
    for fragment in (text, image, model):
        assert "<script" not in fragment and "http" not in fragment


def test_a_picture_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="shape"):
        showing.image_html(np.ones((2, 3, 4)))


def test_results_show_themselves_without_pyplot() -> None:
    code = """
import sys
import numpy as np
from ptycho_torch.refine.result import RefineResult
made = RefineResult(
    np.exp(1j * np.linspace(0, 1, 1600)).reshape(40, 40).astype("c8"), np.ones((1, 16, 16), "c8"), (0, 0),
    np.zeros((4, 2)), np.ones((40, 40), "f4"), 0.03, np.zeros(4), [{"r": 0.1}], began="flat",
)
assert made.plot(2e-8).axes[0].get_xlabel() == "x / µm" and "0.0300" in made._repr_html_()
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdin=subprocess.DEVNULL)

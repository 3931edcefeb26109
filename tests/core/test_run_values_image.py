"""What a run tells after an epoch, its starting probe, its image and its records, against plain values."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

import numpy as np
import pytest

from ptycho.config.settings import ModelConfig, TrainingConfig
from ptycho.errors import DataError
from ptycho.image.canvas import Frame, Stitched, auto_window_side, window_weights
from ptycho.image.stitcher import Stitcher
from ptycho.run import provenance
from ptycho.run.history import append_row
from ptycho.run.image_quality import PSNR, SSIM, image_quality, mean_quality
from ptycho.run.reconstruction import Predictor, judged_by_data, reconstruct
from ptycho.run.starting_probe import MIN_POSITIONS, starting_probe
from ptycho.run.training_log import TrainingLog
from ptycho.scan.container import PtychoDataContainer
from ptycho.scan.normalization import normalize_probe
from ptycho.scan.probe import probe_mask
from ptycho.scan.raw_data import RawData
from ptycho.scan.scan_set import ScanSet

Make = Callable[..., RawData]
RNG = np.random.default_rng


def small(**changes) -> TrainingConfig:
    model = {"N": 32, "n_filters_scale": 1, **changes.pop("model", {})}
    return TrainingConfig(model=ModelConfig(**model), **changes)


# what is told after an epoch


def test_a_metric_that_was_away_keeps_its_epochs():
    epochs: dict[str, list[float]] = {}
    for row in ({"a": 1.0}, {"a": 2.0}, {"a": 3.0, "b": 7.0}, {"a": 4.0, "b": 8.0}):
        append_row(epochs, row)
    assert epochs["a"] == [1, 2, 3, 4] and epochs["b"][2:] == [7, 8] and np.isnan(epochs["b"][:2]).all()


def test_mean_quality_and_the_place_of_the_image():
    assert mean_quality([{"a": 1.0, "b": 5.0}, {"a": 4.0}, {}]) == {"a": 2.5, "b": 5.0}
    rng = RNG(0)
    from scipy.ndimage import gaussian_filter

    phase = gaussian_filter(rng.standard_normal((90, 90)), 3)
    truth = np.exp(1j * phase / np.abs(phase).max())
    cut = truth[25:80, 30:85].astype(np.complex64)
    coverage = np.ones((55, 55), np.float32)
    cut[:, :8], coverage[:, :8] = 5.0, 0.0
    found = image_quality(Stitched(cut, coverage, Frame((30.0, 25.0), (55, 55))), truth)
    assert found[PSNR] > 30 and found[SSIM] > 0.9
    assert image_quality(Stitched(cut, coverage, Frame((30.0, 25.0), (55, 55))), None) == {}


# the starting probe


def test_starting_probe_is_masked_smoothed_cut_and_normalised(make_scan):
    from scipy.ndimage import gaussian_filter

    raw = make_scan(n_positions=12)
    two = np.stack([raw.probeGuess, 0.5 * raw.probeGuess[::-1]])
    made = PtychoDataContainer.from_raw(RawData(**{**raw.as_arrays(), "probeGuess": two}), 1)

    def started(modes=None, **model):
        config = small(model=model, probe_from="guess", probe_modes=modes)
        return starting_probe(made, config, lambda *_: pytest.fail("refined"))

    assert started().modes == pytest.approx(normalize_probe(two, 4.0)[0])
    assert started(modes=1).modes == pytest.approx(normalize_probe(two[:1], 4.0)[0])
    mask = probe_mask(32, 2.0, 11.0)
    masked = started(probe_mask=True, probe_mask_sigma=2.0, probe_mask_diameter=11.0)
    assert masked.modes == pytest.approx(normalize_probe(two * mask, 4.0)[0])
    smooth = np.stack([gaussian_filter(m.real, 1.5) + 1j * gaussian_filter(m.imag, 1.5) for m in two])
    found = started(gaussian_smoothing_sigma=1.5, probe_scale=3.0)
    wanted, factor = normalize_probe(smooth, 3.0)
    assert np.abs(found.modes - wanted).max() < 1e-5 * np.abs(wanted).max()
    assert found.factor == pytest.approx(factor)
    with pytest.raises(DataError, match="probe_modes = 3"):
        started(modes=3)


def test_a_probe_is_refined_from_nine_positions_on(make_scan, caplog):
    asked = []

    def refine(container, modes, wanted, config, progress):
        asked.append((len(container.patterns), wanted))
        return np.repeat(modes, wanted, 0)

    for count in (MIN_POSITIONS - 1, MIN_POSITIONS):
        made = PtychoDataContainer.from_raw(make_scan(n_positions=count), 1)
        with caplog.at_level(logging.INFO):
            starting_probe(made, small(probe_from="refine", probe_modes=None), refine)
    assert MIN_POSITIONS == 9 and asked == [(9, 1)]


# stitching of a run


def image_of(container: PtychoDataContainer, **options):
    """The workflow's stitching of true patches; `options` are those of `reconstruct`."""

    def predict(patterns):
        asked.append(len(patterns))
        rows = [
            int(np.flatnonzero((container.patterns == p).all((1, 2)))[0])
            for p in patterns.reshape(-1, 32, 32)
        ]
        patches = container.pattern_labels(np.array(rows))
        return patches.reshape(patterns.shape)

    asked: list[int] = []
    return reconstruct(seen_by(container, predict), container, **options), asked


def seen_by(container: PtychoDataContainer, predict, shared: bool = False) -> Predictor:
    """A backend's prediction without a network: `predict` stands for it."""
    config = small(model={"gridsize": container.gridsize, "object_big": not shared})
    numbers = (container.x_scale, container.nphotons, container.probe, 0.0)
    return Predictor(config, *numbers, predict)


@pytest.fixture
def masked(make_scan) -> PtychoDataContainer:
    bad = np.zeros((32, 32), bool)
    bad[15:18, 16] = True
    return PtychoDataContainer.from_raw(make_scan(n_positions=25, bad_pixels=bad), 1)


def test_true_patches_give_the_object_back_whatever_the_options(masked):
    truth = masked.objectGuess
    made, asked = image_of(masked, batch_size=7, keep_patches=True)
    assert asked == [7, 7, 7, 4]
    x, y = (int(v) for v in made.image.frame.origin_xy)
    height, width = made.image.frame.shape
    seen = made.image.coverage > 0.05
    window = truth[y : y + height, x : x + width]
    assert np.abs(made.image.object - window)[seen].max() < 1e-4
    assert made.patches == pytest.approx(masked.pattern_labels(np.arange(25)))
    small_window, _ = image_of(masked, M=6)
    assert small_window.image.frame.shape[0] == height - (auto_window_side(masked.probe) - 6)
    flat, _ = image_of(masked, weighting="uniform")
    assert np.abs(flat.image.coverage - made.image.coverage).max() > 0.1
    assert window_weights(masked.probe, 16, "uniform").min() == 1
    placed, _ = image_of(masked, canvas_shape=truth.shape)
    assert placed.image.object.shape == truth.shape and placed.image.frame.origin_xy == (0.0, 0.0)
    for option, turn in (("flip_x", (-1, 1)), ("flip_y", (1, -1))):
        turned, _ = image_of(masked, **{option: True})
        assert (turned.positions_px == masked.positions_px * turn).all()
    swapped, _ = image_of(masked, transpose=True, coord_scale=2.0)
    assert (swapped.positions_px == 2 * masked.positions_px[:, ::-1]).all()


def test_r_of_a_run_leaves_bad_pixels_out_and_knows_the_canvas(masked):
    made, _ = image_of(masked)
    clean = judged_by_data(made, masked).agreement.whole
    dirty = masked.patterns.copy()
    dirty[:, masked.bad_pixels] *= 50
    from dataclasses import replace

    assert judged_by_data(made, replace(masked, patterns=dirty)).agreement.whole == pytest.approx(clean)
    assert (
        clean < 0.25 < judged_by_data(made, replace(masked, patterns=dirty, bad_pixels=None)).agreement.whole
    )


def test_one_patch_a_group_lies_at_the_mean_of_its_positions(make_scan, monkeypatch):
    made = PtychoDataContainer.from_raw(make_scan(n_positions=16), 2)
    places: list[np.ndarray] = []

    class Noting(Stitcher):
        def add(self, patches, positions_xy):
            places.append(positions_xy)
            super().add(patches, positions_xy)

    def predict(patterns):
        return np.ones((len(patterns), 1, 32, 32), np.complex64)

    monkeypatch.setattr("ptycho.run.reconstruction.Stitcher", Noting)
    reconstruct(seen_by(made, predict, shared=True), made)
    found = np.concatenate(places)
    assert sorted(map(tuple, found.round(6))) == sorted(map(tuple, ScanSet.of(made).centres_xy.round(6)))


# records


def test_text_log_goes_on_from_the_epoch_of_the_resume_and_ends_once(tmp_path):
    log = TrainingLog(tmp_path, {"seed": 3})
    log.begin(0)
    for epoch in range(3):
        log.epoch({"train_loss": 1.0 / (epoch + 1)}, epoch)
    log.begin(2)
    log.epoch({"train_loss": 0.25}, 2)
    log.end("done", 3)
    log.end("failed", 3)
    lines = log.path.read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines if " epoch " in line and "resumed" not in line] == [
        "epoch 0: train_loss 1", "epoch 1: train_loss 0.5", "epoch 2: train_loss 0.25"
    ]  # fmt: skip
    assert sum("end:" in line for line in lines) == 1 and lines[-1].endswith("end: done after 3 epochs")


def test_every_earlier_text_log_is_kept(tmp_path):
    for number in range(5):
        log = TrainingLog(tmp_path, {"seed": number})
        log.begin(0)
        log.end("done", 0)
    found = {path.name: path.read_text() for path in tmp_path.glob("training*.log")}
    assert sorted(found) == [
        "training.1.log",
        "training.2.log",
        "training.3.log",
        "training.4.log",
        "training.log",
    ]
    assert all(f"seed {n - 1}" in found[f"training.{n}.log"] for n in range(1, 5))
    (tmp_path / "training.1.log").unlink()  # a gap in the numbers overwrites nothing
    log = TrainingLog(tmp_path, {"seed": 9})
    log.begin(0)
    kept = {path.name: path.read_text() for path in tmp_path.glob("training.*.log")}
    assert all(found[name] in kept.values() for name in found if name != "training.1.log")


def test_only_the_process_that_began_a_record_ends_it(tmp_path):
    def begin():
        provenance.begin(tmp_path, command=["ptycho"], inputs={}, seeds={})

    begin()
    path = tmp_path / provenance.PROVENANCE_NAME
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "pid": record["pid"] + 1}))
    provenance.finish(tmp_path, "done")
    assert json.loads(path.read_text())["state"] == "running"
    for _ in range(25):
        begin()
        provenance.finish(tmp_path, "done")
    found = provenance.read(tmp_path)
    assert found["state"] == "done" and len(found["earlier"]) == 20
    provenance.begin(
        tmp_path, command=["ptycho", "--mlflow_uri", "http://me:secret@host/x"], inputs={}, seeds={}
    )
    assert provenance.read(tmp_path)["command"][-1] == "http://***@host/x"

"""Numbers of the report and of a comparison: verdicts, limits, tables, origins, charts, by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import poisson

from ptycho.errors import InputError
from ptycho.report.charts import line_chart, ticks
from ptycho.report.compare import compare
from ptycho.report.evidence import collect_evidence, poisson_misfit, r_limits
from ptycho.report.html import _render
from ptycho.report.pages import Number, side_by_side, view_of
from ptycho.report.panels import _shrunk
from ptycho.report.products import Product
from ptycho.report.run_panels import RunPanels
from ptycho.report.runs import find_runs
from ptycho.report.sweep import RunRecord, is_seed, summarise
from ptycho.report.verdict import explained_share, judge_run
from ptycho.run.provenance import begin, finish
from ptycho.simulation import OBJECTS


def test_share_explained_and_its_levels():
    assert explained_share(0.3, None, 0.5) == pytest.approx((0.25 - 0.09) / 0.25)
    assert explained_share(0.3, 0.2, 0.5) == pytest.approx((0.25 - 0.09) / (0.25 - 0.04))
    assert explained_share(0.1, 0.2, 0.5) == 1.0

    def level(share: float) -> str:
        return judge_run(r=math.sqrt(1 - share), flat=1.0).level

    assert [level(s) for s in (0.76, 0.74, 0.26, 0.24)] == ["good", "doubt", "doubt", "bad"]


def test_the_worst_of_several_judgements_counts():
    assert judge_run(r=0.1, flat=1.0, pearsons=(0.95, 0.3)).level == "bad"
    assert judge_run(r=0.1, flat=1.0, pearsons=(0.3, 0.95)).level == "bad"
    assert judge_run(r=0.1, flat=1.0, pearsons=(0.86, 0.95)).level == "good"
    assert judge_run(r=0.99, flat=1.0, pearsons=(0.95, 0.95)).level == "bad"


def test_misfit_of_photons_at_any_mean():
    """E (sqrt n - sqrt m)^2 of Poisson numbers, summed over the distribution."""
    means = np.array([0.01, 0.3, 2.0, 30.0, 100.0, 1000.0])
    for mean, found in zip(means, poisson_misfit(means), strict=True):
        n = np.arange(int(mean + 20 * math.sqrt(mean) + 40))
        wanted = (poisson.pmf(n, mean) * (np.sqrt(n) - math.sqrt(mean)) ** 2).sum()
        assert found == pytest.approx(wanted, rel=1e-3 if mean < 60 else 2e-4)


def test_limits_of_r_without_bad_pixels_and_with_a_partial_chunk(scan_arrays):
    amplitude = np.sqrt(np.tile(scan_arrays["diff3d"], (3, 1, 1))[:70].astype(np.float32))
    places = np.tile(np.stack([scan_arrays["xcoords"], scan_arrays["ycoords"]], 1), (3, 1))[:70]
    amplitude[66:] *= 3
    bad = np.zeros((32, 32), bool)
    bad[15:18, 15:18] = True
    probe = scan_arrays["probeGuess"].astype(complex)
    beam = np.abs(np.fft.fftshift(np.fft.fft2(probe, norm="ortho")))
    for mask in (None, bad):
        good = np.ones((32, 32)) if mask is None else ~mask
        a, b = amplitude * good, beam * good
        scale = (a * b).sum() / (70 * (b**2).sum())
        wanted = math.sqrt(((a - scale * b) ** 2).sum() / (a**2).sum())
        dirty = amplitude.copy()
        if mask is not None:
            dirty[:, mask] = 500.0
        found = r_limits(
            dirty, scan_arrays["objectGuess"], probe, places, (0.0, 0.0), counts_known=True, bad_pixels=mask
        )
        assert found.flat == pytest.approx(wanted, rel=1e-4)
        assert 0 < found.noise < found.flat


# tables


def number(key: str, value: float, better: str, form: str = "{:.2f}") -> Number:
    return Number(key, key, value, form, better)


class View:
    scan_id = "one"

    def __init__(self, *numbers: Number) -> None:
        self.numbers = list(numbers)


def test_the_best_of_each_row_is_marked_by_what_better_means():
    views = [
        View(
            number("r", 0.2, "low"),
            number("ssim", 0.7, "high"),
            number("same", 1.001, "low"),
            number("t", 3.0, ""),
        ),
        View(
            number("r", 0.1, "low"),
            number("ssim", 0.9, "high"),
            number("same", 1.002, "low"),
            number("t", 2.0, ""),
        ),
    ]
    made = dict(side_by_side(views).rows)
    assert [mark for _, mark in made["r"]] == [False, True] and [m for _, m in made["ssim"]] == [False, True]
    assert [m for _, m in made["same"]] == [False, False] and [m for _, m in made["t"]] == [False, False]


def test_metrics_on_the_page_are_better_in_the_right_direction():
    from ptycho.report.pages import _JUDGED

    assert {key: better for key, _, _, better, _ in _JUDGED} == {
        "nrmse": "low",
        "frc50": "high",
        "frc_half_bit": "high",
        "amplitude_psnr": "high",
        "amplitude_ssim": "high",
        "amplitude_ms_ssim": "high",
        "amplitude_pearson": "high",
        "phase_psnr": "high",
        "phase_ssim": "high",
        "phase_ms_ssim": "high",
        "phase_pearson": "high",
    }


def test_a_sweep_is_summed_over_its_seeds():
    records = [
        RunRecord("a", {"training.seed": "0", "batch_size": "8"}, {"nrmse": 0.1}),
        RunRecord("b", {"training.seed": "1", "batch_size": "8"}, {"nrmse": 0.4}),
        RunRecord("c", {"training.seed": "2", "batch_size": "8"}, {"nrmse": 9.0}, "failed"),
        RunRecord("d", {"training.seed": "0", "batch_size": "4"}, {"nrmse": 0.2}),
    ]
    first, second = summarise(records)
    assert (first.runs, first.failed, second.runs) == (2, 1, 1)
    assert first.mean["nrmse"] == pytest.approx(0.25)
    assert first.spread["nrmse"] == pytest.approx(math.sqrt(2 * 0.15**2))  # of a sample, not a population
    assert "nrmse" not in second.spread
    assert [is_seed(key) for key in ("seed", "subsample_seed", "scenario.seed", "seeds", "batch_size")] == [
        True,
        True,
        True,
        False,
        False,
    ]


# comparing


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return OBJECTS["two_photographs"]((120, 126)).astype(complex)


def test_images_are_laid_by_their_origins_and_coverages(truth):
    first = Product("a", truth[20:100, 12:110], origin_xy=(112.0, 220.0))
    second = Product("b", truth, origin_xy=(100.0, 200.0))
    made = compare(first, second)
    assert made.origin_known and made.evaluation.shift_px == pytest.approx((0, 0), abs=1e-3)
    assert made.evaluation.nrmse < 1e-3
    # where the reference was not reached, it may hold anything
    seen = np.ones(truth.shape)
    seen[:40] = 0
    holes = np.where(seen > 0, truth, 50.0)
    box = compare(first, second._replace(object=holes, coverage=seen)).evaluation
    assert box.roi[0] >= 40 and box.nrmse < 0.03
    own = np.ones(first.object.shape)
    own[:, :30] = 0
    left = compare(first._replace(coverage=own), second._replace(coverage=np.ones(truth.shape))).evaluation
    assert left.roi[2] >= 12 + 30


@pytest.mark.parametrize("sides", [((81, 97), (120, 126)), ((80, 98), (121, 125)), ((81, 98), (120, 125))])
def test_images_are_laid_by_their_centres_in_metres_whatever_the_sides(truth, sides):
    """A centre lies between pixels for an even side: half a pixel counts."""
    (h, w), (H, W) = sides
    size, x0, y0 = 5e-9, 7, 11
    wide = np.pad(truth, ((0, 2), (0, 2)), mode="edge")
    reference, part = wide[:H, :W], wide[y0 : y0 + h, x0 : x0 + w]
    middle = ((x0 + (w - 1) / 2 - (W - 1) / 2) * size, (y0 + (h - 1) / 2 - (H - 1) / 2) * size)
    first = Product("a", part, pixel_size_m=size, centre_m=middle)
    made = compare(first, Product("b", reference, pixel_size_m=size, centre_m=(0.0, 0.0)))
    from ptycho.report.compare import origin_of

    assert origin_of(made.first, made.second, size) == pytest.approx((x0, y0))
    assert made.evaluation.shift_px == pytest.approx((0, 0), abs=0.02)
    with pytest.raises(InputError, match="resample one of them first"):
        compare(first._replace(pixel_size_m=1.01 * size), made.second)


# charts and panels


def test_axes_are_divided_evenly():
    assert ticks(0.0, 5.2) == pytest.approx([0, 2, 4]) and ticks(0.0, 5.0) == pytest.approx(
        [0, 1, 2, 3, 4, 5]
    )
    assert ticks(0.0, 1.1) == pytest.approx([0, 0.5, 1.0])
    assert ticks(0.0, 1.0) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])


def test_a_long_curve_keeps_its_ends():
    x = np.arange(4001.0)
    y = np.zeros(4001)
    y[-1] = 1.0
    made = line_chart({"a": (x, y)}, "x", "y")
    first, last = (made.lines[0].pieces[0].split()[i] for i in (0, -1))
    assert float(first.split(",")[0]) == made.left and float(last.split(",")[0]) == made.right
    assert float(last.split(",")[1]) < made.top + 20


def test_a_large_panel_holds_means():
    image = np.arange(35.0).reshape(5, 7)
    made = _shrunk(image, 3)  # every third pixel: one row of two
    assert made.shape == (1, 2) and made[0, 0] == pytest.approx(image[:3, :3].mean())


def test_panels_are_due_from_the_first_epoch_on(make_scan, tmp_path):
    from ptycho.scan.container import PtychoDataContainer

    scan = PtychoDataContainer.from_raw(make_scan(n_positions=5), 1)
    made = RunPanels(scan, tmp_path, every=3, patches=2, stitch=False)
    assert [epoch for epoch in range(8) if made.due(epoch)] == [0, 3, 6]


# what a run says of itself


@pytest.fixture
def run_folder(tmp_path: Path, scan_arrays) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    bad = np.zeros((32, 32), bool)
    bad[16, 16] = True
    for name in ("scan", "train"):
        np.savez(tmp_path / f"{name}.npz", **scan_arrays, bad_pixels=bad)
    np.savez(
        folder / "reconstruction.npz",
        object=scan_arrays["objectGuess"],
        probe=scan_arrays["probeGuess"],
        origin_xy=np.zeros(2),
    )
    (folder / "history.json").write_text(
        json.dumps({"train_loss": [1.0, 0.5], "empty": [math.nan, math.nan]})
    )
    begin(
        folder,
        command=["ptycho"],
        inputs={"train": tmp_path / "train.npz", "scan": tmp_path / "scan.npz"},
        seeds={},
    )
    finish(folder, "done")
    return folder


def test_the_scan_that_was_reconstructed_is_shown_without_its_bad_pixels(run_folder, scan_arrays):
    (run,) = find_runs([run_folder])
    assert run.scan == run_folder.parent / "scan.npz" and list(run.history) == ["train_loss"]
    found = collect_evidence(run)
    mean = found.measured.mean_counts
    assert math.isnan(mean[16, 16]) and np.isfinite(mean).sum() == 32 * 32 - 1
    assert mean[3, 4] == pytest.approx(scan_arrays["diff3d"][:, 3, 4].mean(), rel=1e-5)
    assert not any("has changed" in note for note in found.notes)
    data = bytearray((run_folder.parent / "scan.npz").read_bytes())
    changed = scan_arrays["diff3d"].copy()
    changed[0, 0, 0] += 1
    np.savez(
        run_folder.parent / "scan.npz",
        **{**scan_arrays, "diff3d": changed},
        bad_pixels=np.zeros((32, 32), bool),
    )
    assert len((run_folder.parent / "scan.npz").read_bytes()) == len(data)  # the size alone would not tell
    assert any(
        "has changed since the run" in note for note in collect_evidence(find_runs([run_folder])[0]).notes
    )


def test_text_of_a_file_is_escaped_on_the_page(run_folder):
    (run,) = find_runs([run_folder])
    run.name = "<b>bold</b>"
    page = _render([view_of(collect_evidence(run), "run-1")])
    assert "<b>bold</b>" not in page and "&lt;b&gt;bold" in page

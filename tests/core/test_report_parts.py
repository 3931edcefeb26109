"""What the report page is made of, each part on its own: limits of R, verdicts, panels, axes."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ptycho.evaluation import r_factor
from ptycho.objectives import diagnostics
from ptycho.report.charts import line_chart, ticks
from ptycho.report.evidence import poisson_misfit, r_limits
from ptycho.report.pages import side_by_side
from ptycho.report.panels import panel
from ptycho.report.verdict import explained_share, judge_run
from ptycho.report.view import Number


def test_expected_misfit_of_poisson_noise() -> None:
    rng = np.random.default_rng(0)
    for mean in (0.01, 0.3, 1.0, 4.0, 30.0, 900.0):
        drawn = np.mean((np.sqrt(rng.poisson(mean, 400_000)) - np.sqrt(mean)) ** 2)
        assert poisson_misfit(np.array([mean]))[0] == pytest.approx(drawn, rel=0.02)
    assert poisson_misfit(np.array([0.0]))[0] == 0


def test_the_right_object_has_r_below_the_alarm_from_one_count_a_pixel_on() -> None:
    """R^2 of the right prediction is the mean misfit over the mean count, so at most the largest misfit."""
    worst = np.sqrt(poisson_misfit(np.geomspace(1e-4, 1e4, 5000)).max() / diagnostics._COUNTS_PER_PX)
    assert worst < 0.7 < diagnostics._NOTHING_EXPLAINED


def test_limits_of_r_bracket_truth_and_flat(scan_arrays: dict[str, np.ndarray]) -> None:
    obj, probe = scan_arrays["objectGuess"], scan_arrays["probeGuess"]
    x, y, counts = scan_arrays["xcoords"], scan_arrays["ycoords"], scan_arrays["diff3d"]
    amplitude = np.sqrt(counts.astype(np.float32))
    limits = r_limits(amplitude, obj, probe, np.stack([x, y], 1), (0.0, 0.0), counts_known=True)
    at_truth = r_factor(obj, probe, x, y, amplitude).whole
    flat = r_factor(np.ones_like(obj), probe, x, y, amplitude).whole
    assert limits.noise == pytest.approx(at_truth, rel=0.05)
    assert limits.flat == pytest.approx(flat, rel=1e-3)
    unknown = r_limits(amplitude, obj, probe, np.stack([x, y], 1), (0.0, 0.0), counts_known=False)
    assert unknown.noise is None


@pytest.mark.parametrize(
    "r, level", [(0.10, "good"), (0.14, "good"), (0.21, "doubt"), (0.245, "bad"), (0.4, "bad")]
)
def test_verdict_by_r(r: float, level: str) -> None:
    assert judge_run(r=r, noise=0.09, flat=0.25).level == level


def test_an_image_that_fits_the_noise_is_told_so_and_explains_no_more_than_all() -> None:
    assert explained_share(0.08, 0.09, 0.25) == 1
    assert "fits part of the noise" in judge_run(r=0.08, noise=0.09, flat=0.25).reason
    assert "fits" not in judge_run(r=0.0895, noise=0.09, flat=0.25).reason


def test_verdict_follows_the_truth_where_it_is_known() -> None:
    assert judge_run(r=0.1, noise=0.09, flat=0.25, pearsons=(0.9, 0.95)).level == "good"
    assert judge_run(r=0.1, noise=0.09, flat=0.25, pearsons=(0.9, 0.5)).level == "doubt"
    assert judge_run(r=0.1, noise=0.09, flat=0.25, pearsons=(0.0, 0.1)).level == "bad"
    assert judge_run(r=None).level == "none"


def test_the_best_of_a_row_is_marked_where_the_digits_differ() -> None:
    def view(r: float, speed: float) -> SimpleNamespace:
        numbers = [Number("r", "R", r, "{:.3f}", "low"), Number("s", "speed", speed, "{:.0f}", "high"),
                   Number("n", "epochs", r, "{:.3f}", "")]  # fmt: skip
        return SimpleNamespace(numbers=numbers, scan_id="one")

    table = side_by_side([view(0.1, 99.8), view(0.2, 100.1), view(float("nan"), 50)])  # type: ignore[list-item]
    assert dict(table.rows) == {
        "R": [("0.100", True), ("0.200", False), ("not a number", False)],
        "speed": [("100", True), ("100", True), ("50", False)],
        "epochs": [("0.100", False), ("0.200", False), ("not a number", False)],
    }


def test_panel_is_a_png_of_the_colours() -> None:
    import base64
    import io

    from PIL import Image

    values = np.array([[0.0, 1.0], [np.nan, 0.5]])
    made = panel(values, "x", "gray", limits=(0.0, 1.0))
    image = Image.open(io.BytesIO(base64.b64decode(made.uri.partition(",")[2]))).convert("RGBA")
    pixels = np.asarray(image)
    assert pixels.shape == (2, 2, 4) and pixels[1, 0, 3] == 0
    assert pixels[0, 0, :3].tolist() == [0, 0, 0] and pixels[0, 1, :3].tolist() == [255] * 3
    assert abs(int(pixels[1, 1, 0]) - 128) <= 2


def test_a_large_panel_is_made_small() -> None:
    made = panel(np.random.default_rng(0).random((3000, 1000)), "x", "viridis")
    assert max(made.width, made.height) <= 1024


@pytest.mark.parametrize(
    "low, high, log, wanted",
    [
        (0, 1, False, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (1, 1000, True, [1, 10, 100, 1000]),
        (0.4, 0.9, True, [0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
        (0.101, 0.104, True, [0.101, 0.102, 0.103, 0.104]),
    ],
)
def test_ticks(low: float, high: float, log: bool, wanted: list[float]) -> None:
    assert [t for t in ticks(low, high, log)] == pytest.approx(wanted)


def test_line_chart_breaks_at_gaps_and_survives_nothing() -> None:
    chart = line_chart({"a": ([1, 2, 3, 4, 5], [1.0, 2.0, float("nan"), 3.0, 4.0])}, "x", "y")
    assert chart is not None and len(chart.lines[0].pieces) == 2
    assert line_chart({"a": ([1, 2], [float("nan"), float("inf")])}, "x", "y") is None
    single = line_chart({"a": ([1], [2.0])}, "x", "y")
    assert single is not None and single.lines[0].dots


# --- in a browser -------------------------------------------------------------------------------------------

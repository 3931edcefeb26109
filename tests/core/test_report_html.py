"""The report page: complete, self-contained, honest about what is missing, safe against what files say."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from ptycho.errors import InputError, MissingFileError
from ptycho.evaluation import r_factor
from ptycho.report.html import build_report, write_report
from ptycho.report.runs import find_runs
from ptycho.run.provenance import begin, finish

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>'


class Page(HTMLParser):
    """Tags, attributes and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def save_run(folder: Path, arrays: dict[str, np.ndarray], obj: np.ndarray, scan: Path | None = None) -> Path:
    """A folder as `ptycho infer` and `ptycho train` leave it, with `obj` as the product."""
    folder.mkdir(parents=True)
    if scan is None:
        scan = folder.with_suffix(".npz")
        np.savez(scan, **arrays)
    r = r_factor(
        obj, arrays["probeGuess"], arrays["xcoords"], arrays["ycoords"], arrays["diff3d"], unit="counts"
    )
    positions = np.stack([arrays["xcoords"], arrays["ycoords"]], 1)
    np.savez(
        folder / "reconstruction.npz", object=obj, probe=arrays["probeGuess"], origin_xy=np.zeros(2),
        coverage=np.ones(obj.shape, np.float32), positions_px=positions, r_per_pattern=r.per_pattern,
    )  # fmt: skip
    history = {
        "train_loss": [3.0, 2.0, 1.5],
        "val_loss": [3.1, 2.2, 1.9],
        "learning_rate": [1e-3, 1e-3, 5e-4],
    }
    (folder / "history.json").write_text(json.dumps(history))
    (folder / "metrics.json").write_text(json.dumps({"r_factor": r.whole, "groups_per_s": 120.0}))
    (folder / "config.yaml").write_text(f"train_data_file: {scan}\nnepochs: 3  # passes\n")
    begin(folder, command=["ptycho", "infer"], inputs={"scan": scan}, seeds={"seed": 4})
    finish(folder, "done")
    return folder


@pytest.fixture
def good_run(tmp_path: Path, scan_arrays: dict[str, np.ndarray]) -> Path:
    return save_run(tmp_path / "good", scan_arrays, scan_arrays["objectGuess"])


@pytest.fixture
def flat_run(tmp_path: Path, scan_arrays: dict[str, np.ndarray]) -> Path:
    return save_run(tmp_path / "flat", scan_arrays, np.ones_like(scan_arrays["objectGuess"]))


def test_a_good_run_is_called_good_and_shows_everything(good_run: Path) -> None:
    page = Page(build_report([good_run]))
    assert "It worked" in page.text
    for heading in ("Measured", "Reconstructed", "Convergence", "Configuration", "Provenance"):
        assert heading in page.text
    for shown in ("30", "32 × 32", "nepochs: 3", "ptychopinn", "amplitude", "phase", "Coverage",
                  "R of every pattern", "Fourier ring correlation", "training loss", "learning rate",
                  "sha256"):  # fmt: skip
        assert shown in page.text, shown
    assert page.tags.count("img") >= 8 and page.tags.count("svg") >= 4


def test_a_flat_image_is_not_called_good(flat_run: Path) -> None:
    page = Page(build_report([flat_run]))
    assert "It did not work" in page.text and "It worked" not in page.text


def test_nothing_on_the_page_comes_from_elsewhere(good_run: Path) -> None:
    text = build_report([good_run])
    page = Page(text)
    assert page.tags.count("script") == 1 and not any(name.startswith("on") for name, _ in page.attributes)
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'\"" in text, "the policy allows this script and no other"
    assert not re.search(r"fetch|XMLHttp|WebSocket|import\(|eval|innerHTML|http", script[1])
    sources = [value for name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert sources and all(value.startswith(("data:image/png;base64,", "#")) for value in sources)
    assert "default-src 'none'" in text
    assert not re.search(r"@import|url\(", text)
    assert "prefers-color-scheme: dark" in text


def test_every_text_from_a_file_is_escaped(tmp_path: Path, scan_arrays: dict[str, np.ndarray]) -> None:
    name = "<b>scan & 'run'"
    run = save_run(tmp_path / name, scan_arrays, scan_arrays["objectGuess"])
    (run / "history.json").write_text(json.dumps({f"loss{EVIL}": [2.0, 1.0], EVIL: [1.0, 2.0]}))
    (run / "config.yaml").write_text(f"notes: '{EVIL}'\n")
    (run / "metrics.json").write_text(json.dumps({"r_factor": EVIL, EVIL: EVIL, "backend": EVIL}))
    record = json.loads((run / "provenance.json").read_text())
    record |= {
        "command": [EVIL],
        "error": EVIL,
        "seeds": {EVIL: EVIL},
        "versions": {EVIL: EVIL},
        "state": "failed",
    }
    record["inputs"][0]["sha256"] = EVIL
    (run / "provenance.json").write_text(json.dumps(record))
    text = build_report([run])
    page = Page(text)
    assert page.tags.count("script") == 1 and "b" not in page.tags
    assert "<b>scan" not in text and "onerror=alert(1)>" not in text.replace("&gt;", "")
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert name in page.text and "alert(" in page.text, "shown as text"


def test_what_is_missing_is_said_and_the_rest_is_shown(good_run: Path) -> None:
    for file in ("history.json", "config.yaml", "provenance.json", "metrics.json"):
        (good_run / file).unlink()
    good_run.with_suffix(".npz").unlink()
    page = Page(build_report([good_run]))
    for told in ("history.json is not there", "provenance.json is not there", "scan"):
        assert told in page.text
    assert "amplitude" in page.text and "R of every pattern" in page.text


def test_a_damaged_file_costs_only_its_own_part(good_run: Path) -> None:
    (good_run / "history.json").write_text("{")
    (good_run / "provenance.json").write_text("[]")
    page = Page(build_report([good_run]))
    assert "history.json is damaged" in page.text and "Reconstructed" in page.text
    (good_run / "reconstruction.npz").write_bytes(b"PK not a zip")
    assert "reconstruction.npz" in Page(build_report([good_run])).text


def test_a_training_without_an_image_says_what_comes_next(good_run: Path) -> None:
    (good_run / "reconstruction.npz").unlink()
    (good_run / "wts.h5.zip").write_bytes(b"PK")
    page = Page(build_report([good_run]))
    assert (
        "Trained" in page.text and f"ptycho infer SCAN --model {good_run}" in page.text and "1.5" in page.text
    )


@pytest.mark.parametrize("state", ["failed", "interrupted", "running"])
def test_a_run_that_did_not_end_well_says_so_first(good_run: Path, state: str) -> None:
    (good_run / "reconstruction.npz").unlink()
    record = json.loads((good_run / "provenance.json").read_text())
    record |= {"state": state, "error": None if state == "running" else "the disk is full"}
    (good_run / "provenance.json").write_text(json.dumps(record))
    text = Page(build_report([good_run])).text
    wanted = {"failed": "It failed", "interrupted": "Interrupted", "running": "Not finished"}[state]
    assert wanted in text
    assert ("the disk is full" in text) == (state != "running")


def test_an_image_shows_the_curves_of_its_model(good_run: Path, flat_run: Path) -> None:
    for name in ("history.json", "config.yaml"):
        (good_run / name).unlink()
    record = json.loads((good_run / "provenance.json").read_text())
    record["inputs"].append({"role": "model", "path": str(flat_run / "wts.h5.zip")})
    (good_run / "provenance.json").write_text(json.dumps(record))
    text = Page(build_report([good_run])).text
    assert f"Of the model, trained in {flat_run}" in text and "training loss" in text and "nepochs: 3" in text
    assert "is not there" not in text


def test_several_runs_stand_side_by_side(good_run: Path, flat_run: Path) -> None:
    page = Page(build_report([good_run, flat_run]))
    assert "Side by side" in page.text and "table" in page.tags
    assert page.text.index("Side by side") < page.text.index("Measured")
    assert "It worked" in page.text and "It did not work" in page.text
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_numbers_of_different_scans_are_not_compared(
    good_run: Path, tmp_path: Path, scan_arrays: dict[str, np.ndarray]
) -> None:
    other = {**scan_arrays, "diff3d": scan_arrays["diff3d"][::-1].copy()}
    run = save_run(tmp_path / "other", other, scan_arrays["objectGuess"])
    text = build_report([good_run, run])
    assert 'class="best"' not in text and "different scans" in Page(text).text
    assert "<select" not in text, "no slider between different objects"


def test_positions_that_moved_are_drawn(good_run: Path) -> None:
    assert "Positions moved" not in build_report([good_run])
    with np.load(good_run / "reconstruction.npz") as made:
        arrays = dict(made)
    arrays["positions_px"] = arrays["positions_px"] + np.random.default_rng(0).normal(0, 0.3, (30, 2))
    np.savez(good_run / "reconstruction.npz", **arrays)
    assert "Positions moved" in Page(build_report([good_run])).text


def test_pictures_have_scale_bars(good_run: Path) -> None:
    assert re.search(r'class="bar" style="width: [\d.]+%">\d+ px<', build_report([good_run]))
    assert re.search(
        r'class="bar" style="width: [\d.]+%">\d+ nm<', build_report([good_run], pixel_size_m=2e-9)
    )


def test_a_demo_folder_is_its_runs(tmp_path: Path, scan_arrays: dict[str, np.ndarray]) -> None:
    for name in ("trained_on", "unseen"):
        run = save_run(tmp_path / "demo" / name, scan_arrays, scan_arrays["objectGuess"])
        (run / "provenance.json").unlink()
        (run / "config.yaml").unlink()
    begin(tmp_path / "demo", command=["ptycho", "demo"], inputs={}, seeds={"seed": 0})
    found = find_runs([tmp_path / "demo"])
    assert [run.name for run in found] == ["demo/trained_on", "demo/unseen"]
    assert [run.scan for run in found] == [tmp_path / "demo" / f"{n}.npz" for n in ("trained_on", "unseen")]
    assert all(run.provenance and run.provenance["seeds"] == {"seed": 0} for run in found)


def test_the_other_scans_of_a_training_are_named(good_run: Path, scan_arrays: dict[str, np.ndarray]) -> None:
    first, other = good_run.with_suffix(".npz"), good_run.with_name("other.npz")
    np.savez(other, **scan_arrays)
    begin(good_run, command=["ptycho", "train"], inputs={"train": first, "train1": other}, seeds={"seed": 0})
    (run,) = find_runs([good_run])
    assert run.scan == first
    assert f"trained on 2 scans; the first is shown as measured, not {other}" in run.notes


def test_runs_of_one_name_are_told_apart(tmp_path: Path, scan_arrays: dict[str, np.ndarray]) -> None:
    folders = [tmp_path / name for name in ("monday/image", "tuesday/image", "other")]
    for folder in folders:
        save_run(folder, scan_arrays, scan_arrays["objectGuess"])
    assert [run.name for run in find_runs(folders)] == ["monday/image", "tuesday/image", "other"]
    far = tmp_path / "far" / "monday" / "image"
    save_run(far, scan_arrays, scan_arrays["objectGuess"])
    assert [run.name for run in find_runs([folders[0], far])] == [str(folders[0]), str(far)]


def test_folders_that_are_no_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="does not exist"):
        find_runs([tmp_path / "nowhere"])
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        find_runs([tmp_path / "file.txt"])
    with pytest.raises(InputError, match="holds nothing of a run.*reconstruction.npz"):
        find_runs([tmp_path])


def test_a_scan_that_changed_since_is_noticed(good_run: Path, scan_arrays: dict[str, np.ndarray]) -> None:
    np.savez(good_run.with_suffix(".npz"), **{**scan_arrays, "scan_index": np.ones(30, np.int64)})
    assert "has changed since" in Page(build_report([good_run])).text


def test_the_page_is_written_whole(good_run: Path, tmp_path: Path) -> None:
    path = write_report(tmp_path / "deep" / "report.html", [good_run])
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>") and text.rstrip().endswith("</html>")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_the_same_run_gives_the_same_page(good_run: Path) -> None:
    assert build_report([good_run]) == build_report([good_run])


# --- the numbers behind the verdict -------------------------------------------------------------------------


def test_many_modes_bad_pixels_and_a_part_of_the_scan(
    tmp_path: Path, scan_arrays: dict[str, np.ndarray]
) -> None:
    run = save_run(tmp_path / "run", scan_arrays, scan_arrays["objectGuess"])
    bad = np.zeros((32, 32), bool)
    bad[3, 4] = True
    np.savez(tmp_path / "run.npz", **{**scan_arrays, "bad_pixels": bad})
    with np.load(run / "reconstruction.npz") as made:
        arrays = dict(made)
    arrays["probe"] = np.stack([arrays["probe"] * 0.3**p for p in range(8)])
    for name in ("positions_px", "r_per_pattern"):
        arrays[name] = arrays[name][::3]
    np.savez(run / "reconstruction.npz", **arrays)
    text = Page(build_report([run])).text
    assert "the first 6 of 8 modes" in text and "10 positions" in text and "It worked" in text
    assert "do not fit together" not in text


# --- drawing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_renders_it(
    good_run: Path, flat_run: Path, tmp_path: Path, scheme: str, browser: str
) -> None:
    from PIL import Image

    page = write_report(tmp_path / "report.html", [good_run, flat_run])
    shot = tmp_path / "shot.png"
    done = subprocess.run(
        [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,800", "--force-device-scale-factor=1",
         "--enable-logging=stderr", f"--blink-settings=preferredColorScheme={int(scheme == 'light')}",
         f"--screenshot={shot}", page.as_uri()],
        capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert shot.is_file(), done.stderr
    assert "CONSOLE" not in done.stderr, "the page's own policy refused something"
    pixels = np.asarray(Image.open(shot).convert("L"), np.float64)
    assert (np.median(pixels) > 200) == (scheme == "light") and (np.median(pixels) < 60) == (scheme == "dark")
    assert pixels.std() > 10, "an empty page"

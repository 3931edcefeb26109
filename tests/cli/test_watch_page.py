"""`ptycho watch OUT --page`: the page follows a run that another process writes, and ends with it."""

from __future__ import annotations

import http.client
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from ptycho.cli import progress_of_sweeps
from ptycho.cli.main import main
from ptycho.run.provenance import begin, finish
from ptycho.viewer.live import live_routes, told
from ptycho.viewer.server import serving


@pytest.fixture
def running(tmp_path: Path) -> Path:
    """A reconstruction that goes on: R of three sweeps, a preview."""
    begin(tmp_path, command=["ptycho", "reconstruct"], inputs={}, seeds={})
    (tmp_path / "history.json").write_text(json.dumps({"r_factor": [0.4, 0.2, 0.1]}))
    made = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(made, format="PNG")
    (tmp_path / "preview.png").write_bytes(made.getvalue())
    return tmp_path


def ask(address: str, route: str) -> tuple[int, str, bytes]:
    parts = urlsplit(address)
    to = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=20)
    try:
        to.request("GET", parts.path + route)
        answer = to.getresponse()
        return answer.status, str(answer.getheader("Content-Type")), answer.read()
    finally:
        to.close()


def test_the_page_says_what_the_folder_says_now(running: Path) -> None:
    with serving(live_routes(running, 0.5)) as address:
        first = json.loads(ask(address, "now")[2])
        assert first["state"] == "running" and not first["ended"] and first["every_ms"] == 500
        assert first["curves"] == [{"label": "R", "points": [[1, 0.4], [2, 0.2], [3, 0.1]]}]
        status, kind, body = ask(address, "picture/7")
        assert (status, kind, body) == (200, "image/png", (running / "preview.png").read_bytes())
        (running / "history.json").write_text(json.dumps({"r_factor": [0.4, 0.2, 0.1, 0.05]}))
        (running / "preview.png").unlink()
        finish(running, "failed", error="no <memory>")
        second = json.loads(ask(address, "now")[2])
        assert second["ended"] and second["error"] == "no <memory>" and second["picture"] is None
        assert second["curves"][0]["points"][-1] == [4, 0.05]
        assert ask(address, "picture/7")[0] == 404
        assert [ask(address, route)[0] for route in ("picture/x", "history.json", "../x", "page.js")] == [
            404
        ] * 4


def test_long_curves_are_thinned_and_keep_their_end(tmp_path: Path) -> None:
    values = [1.0 / n for n in range(1, 2346)]
    (tmp_path / "history.json").write_text(json.dumps({"train_loss": [*values, float("nan"), 0.25]}))
    (curve,) = told(tmp_path, 1.0)["curves"]
    assert (
        len(curve["points"]) <= 501 and curve["points"][0] == (1, 1.0) and curve["points"][-1] == (2347, 0.25)
    )


def test_a_folder_that_goes_away_is_told(tmp_path: Path) -> None:
    assert "does not exist" in str(told(tmp_path / "gone", 1.0)["error"])


def test_the_command_prints_the_address_and_ends(running: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["watch", str(running), "--page", "--every", "0.05"]
    assert main([*words, "--seconds", "0.2"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"page +http://127\.0\.0\.1:\d+/\S+/", out) and "sweep 3" in out
    finish(running, "done")
    assert main(words) == 0
    assert main(["watch", str(running), "--open"]) == 2
    assert main(["watch", str(running / "none"), "--page"]) == 2
    assert main(["watch", str(running), "--page", "--port", "70000"]) == 2


def test_a_reconstruction_writes_r_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_of_sweeps, "_SO_FAR_S", 0.0)
    so_far = progress_of_sweeps.SoFar(tmp_path)
    for r in (0.4, 0.2):
        so_far(type("Now", (), {"r": r})())
        assert json.loads((tmp_path / "history.json").read_text())["r_factor"][-1] == r


@pytest.mark.parametrize("size", ["1280,900", "500,900"])
def test_a_browser_draws_curves_and_picture(
    running: Path, in_a_browser: Callable[..., str], size: str
) -> None:
    finish(running, "done")
    text = in_a_browser(live_routes(running, 0.2), size)
    assert 'data-state="done"' in text and "sweep 3: R 0.1" in text
    assert re.search(r'id="picture"[^>]*src="picture/\d+"', text) and "preview.png," in text

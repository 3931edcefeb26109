"""`ptycho view` and `ptycho watch`: what the page gets, what is refused, the mask it saves, how both end."""

from __future__ import annotations

import dataclasses
import http.client
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from ptycho.cli.main import main
from ptycho.errors import InputError, MissingFileError
from ptycho.evaluation import predicted_amplitudes, r_factor
from ptycho.io.masks import read_mask
from ptycho.run.provenance import begin, finish
from ptycho.simulation import Scenario, simulate
from ptycho.viewer.following import look, news
from ptycho.viewer.routes import routes_of
from ptycho.viewer.server import serving
from ptycho.viewer.shown import open_shown


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan, and a run folder whose image is its truth."""
    root = tmp_path_factory.mktemp("view")
    made = simulate(Scenario(N=32, n_positions=25, step_px=4.0, photons=1e5))
    made.to_npz(root / "scan.npz")
    raw = made.raw
    r = r_factor(made.object_true, made.probe_true, raw.xcoords, raw.ycoords, raw.amplitude())
    run = root / "run"
    run.mkdir()
    np.savez(
        run / "reconstruction.npz", object=made.object_true, probe=made.probe_true, origin_xy=np.zeros(2),
        coverage=np.ones(made.object_true.shape), positions_px=raw.positions_px, r_per_pattern=r.per_pattern,
        object_pixel_size_m=2e-8,
    )  # fmt: skip
    (run / "history.json").write_text(json.dumps({"r_loss": [0.4, 0.2, 0.1]}))
    begin(run, command=["ptycho", "reconstruct"], inputs={"scan": root / "scan.npz"}, seeds={})
    finish(run, "done")
    return root


class Client:
    """Requests to one served page."""

    def __init__(self, address: str) -> None:
        self.address = urlsplit(address)

    def ask(self, route: str, method: str = "GET", body: bytes | None = None, **headers: str):
        """Status, headers and body of one answer; route: after the secret, or from / on."""
        to = http.client.HTTPConnection("127.0.0.1", self.address.port, timeout=20)
        try:
            path = route if route.startswith("/") else self.address.path + route
            to.request(method, path, body, headers)
            answer = to.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            to.close()


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[Client]:
    with serving(routes_of(open_shown(folder / "run"), folder / "bad_pixels.npz")) as address:
        yield Client(address)


def test_the_page_comes_with_a_strict_policy(page: Client) -> None:
    status, headers, body = page.ask("")
    assert status == 200 and b"<canvas" in body and b"http" not in body
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff"
    assert page.ask("page.js")[1]["Content-Type"].startswith("text/javascript")


def test_the_arrays_are_those_of_the_files(page: Client, folder: Path) -> None:
    with np.load(folder / "scan.npz") as scan, np.load(folder / "run" / "reconstruction.npz") as made:
        counts, obj = scan["diff3d"].astype(float), made["object"]
        expected = predicted_amplitudes(obj, made["probe"], *made["positions_px"][7:8].T)[0] ** 2
    seen = np.frombuffer(page.ask("pattern/7")[2], "<f4").reshape(32, 32)
    assert np.allclose(seen, counts[7])
    assert np.allclose(np.frombuffer(page.ask("mean")[2], "<f4").reshape(32, 32), counts.mean(0), rtol=1e-5)
    model = np.frombuffer(page.ask("predicted/7")[2], "<f4").reshape(32, 32)
    assert np.corrcoef(model.ravel(), expected.ravel())[0, 1] > 0.9999
    told = json.loads(page.ask("about")[2])
    assert told["pixel_um"] == pytest.approx(0.02) and told["scan"]["count"] == 25
    assert len(told["positions"]) == len(told["image"]["r"]) == 25
    shape = (told["image"]["height"], told["image"]["width"])
    x, y = (int(v) for v in told["image"]["corner"])
    drawn = np.frombuffer(page.ask("amplitude")[2], "<f4").reshape(shape)
    assert np.allclose(drawn, np.abs(obj[y : y + shape[0], x : x + shape[1]]), rtol=1e-4)
    assert len(page.ask("complex")[2]) == 4 * shape[0] * shape[1]


@pytest.mark.parametrize(
    "route, headers, wanted",
    [
        ("/", {}, 403),
        ("/wrong-secret/about", {}, 403),
        ("/../../etc/passwd", {}, 403),
        ("about", {"Host": "evil.example"}, 403),
        ("about", {"Host": "127.0.0.1"}, 403),
        ("../about", {}, 404),
        ("pattern/../../scan.npz", {}, 404),
        ("pattern/25", {}, 404),
        ("pattern/-1", {}, 404),
        ("pattern/1e3", {}, 404),
        ("pattern/%D9%A3", {}, 404),
        ("nothing", {}, 404),
    ],
)
def test_what_is_not_a_route_is_refused(
    page: Client, route: str, headers: dict[str, str], wanted: int
) -> None:
    status, _, body = page.ask(route, **headers)
    assert status == wanted and len(body) < 100


def test_other_methods_and_bodies_are_refused(page: Client, folder: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    for method in ("PUT", "DELETE", "OPTIONS"):
        assert page.ask("mask", method)[0] in (400, 501)
    assert page.ask("mask", "POST", b"\1" * 10)[0] == 400
    assert page.ask("about", "POST", b"\1" * 1024)[0] == 404
    assert page.ask("mask", "POST", b"\1" * 1024, Origin="http://evil.example")[0] == 403
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_mask_is_saved_under_a_new_name_each_time(folder: Path, tmp_path: Path) -> None:
    drawn = np.zeros((32, 32), np.uint8)
    drawn[3:5, 7] = 1
    (tmp_path / "mask.npz").write_bytes(b"somebody's")
    with serving(routes_of(open_shown(folder / "scan.npz"), tmp_path / "mask.npz")) as address:
        made = [Client(address).ask("mask", "POST", drawn.tobytes()) for _ in range(2)]
    assert [json.loads(body)["path"] for _, _, body in made] == [
        str(tmp_path / name) for name in ("mask-2.npz", "mask-3.npz")
    ]
    assert (tmp_path / "mask.npz").read_bytes() == b"somebody's"
    assert np.array_equal(read_mask(tmp_path / "mask-2.npz"), drawn.astype(bool))


def test_a_scan_of_many_patterns_is_shown_without_being_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_a_browser: Callable[..., str]
) -> None:
    """2,000 positions: R is a picture, the mean is of some patterns, and the patterns stay in the file."""
    from ptycho.viewer import shown as module

    monkeypatch.setattr(module, "_MEAN_VALUES", 100 * 32 * 32)
    with np.load(folder / "scan.npz") as scan:
        counts, probe = scan["diff3d"], scan["probeGuess"]
    side = np.arange(2000)
    x, y = 4.0 * (side % 50) + 20, 4.0 * (side // 50) + 20
    np.savez(tmp_path / "many.npz", xcoords=x, ycoords=y, diff3d=counts[side % 25], probeGuess=probe)
    r = np.where(x > 120, 0.2, 0.1)
    np.savez(
        tmp_path / "image.npz", object=np.ones((200, 240), np.complex64), probe=probe, origin_xy=np.zeros(2),
        positions_px=np.stack([x, y], 1), r_per_pattern=r,
    )  # fmt: skip
    shown = open_shown(tmp_path / "image.npz", tmp_path / "many.npz")
    assert shown.scan is not None and not isinstance(shown.scan.diff3d, np.ndarray)
    rows = shown.mean_rows
    assert len(rows) == 100 and (rows[0], rows[-1]) == (0, 1999)
    assert np.allclose(shown.mean_counts(), counts[rows % 25].mean(0), rtol=1e-5)
    made = shown.r_map()
    assert made is not None and made.shape[0] / made.shape[1] == pytest.approx(200 / 240, rel=0.05)
    assert np.nanmax(np.abs(made[:, : made.shape[1] * 100 // 240] - 0.1)) < 1e-6
    assert np.nanmax(np.abs(made[:, made.shape[1] * 140 // 240 :] - 0.2)) < 1e-6
    text = in_a_browser(routes_of(shown, tmp_path / "m.npz"), "1400,1000")
    assert 'data-ready="yes"' in text and "mean is of 100 patterns" in text and "of 1999" in text


def test_nothing_is_left_running(folder: Path) -> None:
    before = threading.active_count()
    with serving(routes_of(open_shown(folder / "scan.npz"), folder / "m.npz")) as address:
        Client(address).ask("about")
    with pytest.raises(OSError, match="refused"):
        Client(address).ask("about")
    assert threading.active_count() <= before


def test_files_that_show_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        open_shown(tmp_path / "none.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        open_shown(tmp_path / "empty")


def test_the_command_ends_by_itself_and_by_ctrl_c(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", str(folder / "scan.npz"), "--seconds", "0.2"]) == 0
    assert "http://127.0.0.1:" in capsys.readouterr().out
    assert main(["view", str(folder / "scan.npz"), "--seconds", "0"]) == 2
    assert main(["view", str(folder / "scan.npz"), "--mask", "x.txt"]) == 2
    code = "from ptycho.cli.main import main; import sys; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "view", str(folder / "scan.npz")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None and "page" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[1] is not None and process.returncode == 130


def test_watching_ends_with_the_run(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(folder / "run")]) == 0
    out = capsys.readouterr().out
    assert "sweep 3" in out and "R 0.1" in out and "state      done" in out
    assert main(["watch", str(tmp_path / "none")]) == 2
    assert main(["watch", str(tmp_path), "--seconds", "0.1", "--every", "0.05"]) == 0


def test_a_run_that_goes_on_is_told_line_by_line(tmp_path: Path) -> None:
    begin(tmp_path, command=["ptycho", "train"], inputs={}, seeds={})
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "metrics.csv").write_text("epoch,step,train_loss,val_loss\n0,1,4.0,5.0\n")
    first = look(tmp_path)
    assert not first.ended and any("training 4" in line for line in news(None, first))
    (logs / "metrics.csv").write_text("epoch,step,train_loss,val_loss\n0,1,4.0,5.0\n1,2,2.0,3.0\n2,3,1.")
    (tmp_path / "preview.png").write_bytes(b"x")
    second = look(tmp_path)
    lines = list(news(first, second))
    assert lines[0].startswith("epoch 2") and "validation 3" in lines[0] and "preview.png" in lines[1]
    assert list(news(second, look(tmp_path))) == []
    finish(tmp_path, "failed", error="no <memory>")
    assert list(news(second, look(tmp_path))) == ["state      failed: no <memory>"]


#: what a user does once the page is ready: draw a bad pixel, save, zoom, draw a line, choose a pattern
USER = """
setTimeout(async () => {
  const act = (id, kind, x, y, more = {}) => {
    const canvas = byId(id), box = canvas.getBoundingClientRect();
    const at = { clientX: box.left + x * box.width, clientY: box.top + y * box.height, bubbles: true };
    canvas.dispatchEvent(new (kind === "wheel" ? WheelEvent : PointerEvent)(kind, { ...at, ...more }));
  };
  byId("radius").value = 0;
  act("mean", "pointerdown", 3.5 / 32, 9.5 / 32);
  byId("save").click();
  act("image", "wheel", 0.5, 0.5, { deltaY: -1 });
  act("image", "pointerdown", 0.3, 0.5, { shiftKey: true });
  act("image", "pointermove", 0.7, 0.5, { shiftKey: true });
  act("image", "pointerup", 0.7, 0.5, { shiftKey: true });
  act("image", "pointerdown", 0.5, 0.5);
  act("image", "pointerup", 0.5, 0.5);
  document.querySelector("[data-mode=phase]").click();
  document.body.dataset.phase = byId("profile-text").textContent;
  document.body.dataset.line = unwrapped([0, 3, -3, -1, NaN, 1, -3]).map((v) => v.toFixed(2)).join();
  document.querySelector("[data-mode=amplitude]").click();
}, 2500);
"""


def test_a_user_draws_a_mask_and_a_line(
    folder: Path, tmp_path: Path, in_a_browser: Callable[..., str]
) -> None:
    routes = routes_of(open_shown(folder / "run"), tmp_path / "m.npz")
    page_js = routes.get["page.js"]
    get = {**routes.get, "page.js": lambda: page_js()._replace(body=page_js().body + USER.encode())}
    text = in_a_browser(dataclasses.replace(routes, get=get), "1400,1000")
    mask = read_mask(tmp_path / "m.npz")
    assert mask.sum() == 1 and mask[9, 3]
    assert "1 bad pixels written to" in text
    length = re.search(r"amplitude over ([\d.]+) µm: ([\d.]+) to ([\d.]+)", text)
    assert length is not None and 0.2 < float(length[1]) < 1.0
    assert 'data-line="0.00,3.00,3.28,5.28,NaN,1.00,3.28"' in text
    assert re.search(r'data-phase="phase, unwrapped, / rad over [\d.]+ µm: ', text)
    chosen = re.search(r'id="row-text">(\d+) of 24', text)
    assert chosen is not None and 7 <= int(chosen[1]) <= 17, "a pattern of the middle"


@pytest.mark.parametrize("size", ["1400,1000", "500,900"])
def test_a_browser_draws_it(
    folder: Path, tmp_path: Path, in_a_browser: Callable[..., str], size: str
) -> None:
    text = in_a_browser(routes_of(open_shown(folder / "run"), tmp_path / "m.npz"), size)
    assert 'data-ready="yes"' in text and "µm" in text and "counts, brightest" in text

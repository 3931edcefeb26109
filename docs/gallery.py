"""Make the pictures of `docs/gallery.md` by the commands that the page shows, into `docs/images`.

Time: a minute on one core. Report and viewer are photographed by Chromium; without it their pictures stay.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from ptycho.cli.main import main as ptycho
from ptycho.report.showing import draw_scan
from ptycho.report.style import save
from ptycho.scan.raw_data import RawData
from ptycho.viewer.routes import routes_of
from ptycho.viewer.server import serving
from ptycho.viewer.shown import open_shown

IMAGES = Path(__file__).resolve().parent / "images"
COMMANDS = (
    "simulate --N 64 --n_positions 200 --n_modes 2 --photons 1e6 -o {0}/truth.npz",
    "import {0}/stage.npz --set object_pixel_size_m=2.2e-8 -o {0}/scan.h5",
    "reconstruct {0}/scan.h5 -o {0}/out --probe_modes 2 --positions free",
    "report {0}/out",
)


def shot(browser: str, address: str, target: Path, size: tuple[int, int], dark: bool, folder: Path) -> None:
    """A picture of a page, size in px."""
    from PIL import Image

    raw = folder / "shot.png"
    subprocess.run(
        [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--user-data-dir={folder / 'profile'}", f"--window-size={size[0]},{size[1]}",
         f"--blink-settings=preferredColorScheme={int(not dark)}", "--virtual-time-budget=6000",
         f"--screenshot={raw}", address],
        check=True, capture_output=True, timeout=120, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    Image.open(raw).convert("RGB").save(target, optimize=True)


def spoil(truth: Path, stage: Path) -> None:
    """The scan as a stage would have it, positions wrong by 0.7 px in each direction."""
    rng = np.random.default_rng(0)
    with np.load(truth) as file:
        scan = {name: file[name] for name in ("diff3d", "probeGuess")}
        scan |= {axis: file[axis] + rng.normal(0, 0.7, file[axis].shape) for axis in ("xcoords", "ycoords")}
    np.savez(stage, **scan)


def main() -> None:
    """Run the commands, copy the pictures, photograph the pages."""
    gallery = IMAGES / "gallery"
    gallery.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for number, command in enumerate(COMMANDS):
            if number == 1:
                spoil(folder / "truth.npz", folder / "stage.npz")
            if ptycho(shlex.split(command.format(folder))) != 0:
                raise SystemExit(f"ptycho {command} failed")
        save(draw_scan(RawData.from_file(folder / "scan.h5")), gallery / "scan.png")
        for name in ("reconstruction", "probe", "positions", "r_map", "history"):
            shutil.copyfile(folder / "out" / f"{name}.png", gallery / f"{name}.png")
        browser = (
            shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        )
        if browser is None:
            print("no Chromium here: the pictures of report and viewer stay as they are")
            return
        page = (folder / "out" / "report.html").as_uri()
        for name, dark in (("report_light", False), ("report_dark", True)):
            shot(browser, page, IMAGES / f"{name}.png", (1320, 1080), dark, folder)
        with serving(routes_of(open_shown(folder / "out"), folder / "mask.npz")) as address:
            shot(browser, address, gallery / "view.png", (1500, 1050), False, folder)


if __name__ == "__main__":
    main()

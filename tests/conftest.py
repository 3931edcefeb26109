"""Fixtures that many tests share: the measured data beside the checkout and scans small enough to read."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptycho.raw_data import RawData


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder `shared` beside the checkout, the measured data; skips where it is absent.

    In CI that is a failure, unless PTYCHO_SHARED=absent says that this machine has none.
    """
    folder = Path(__file__).resolve().parents[1].parent / "shared"
    if folder.is_dir():
        return folder
    message = "the folder 'shared' is not beside the checkout: measured data cannot be tested"
    in_ci = os.environ.get("CI", "").lower() in ("true", "1")
    if in_ci and os.environ.get("PTYCHO_SHARED") != "absent":
        pytest.fail(f"{message}; PTYCHO_SHARED=absent says that it is not there on purpose")
    pytest.skip(message)


@pytest.fixture(scope="session")
def browser() -> str:
    """A Chromium to look at pages with; skips where there is none.

    PTYCHO_BROWSER=required, as `.ci/run` sets it where it has one, makes that a failure.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is not None:
        return found
    message = "no Chromium here: apt-get install chromium"
    if os.environ.get("PTYCHO_BROWSER") == "required":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture
def in_a_browser(browser: str, tmp_path: Path) -> Callable[..., str]:
    """The page of some routes as Chromium has it after six seconds, without a complaint of the browser."""
    from ptycho.viewer.server import serving

    def look(routes: Any, size: str) -> str:
        with serving(routes) as address:
            done = subprocess.run(
                [browser, "--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={size}",
                 f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr",
                 "--virtual-time-budget=6000", "--dump-dom", address],
                capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        assert "CONSOLE" not in done.stderr, done.stderr
        return done.stdout

    return look


def simulate_counts(
    n_positions: int = 30, N: int = 32, photons: float = 1e4, seed: int = 0, curvature: float = 0.02
) -> dict[str, np.ndarray]:
    """A jittered raster over a smooth random object, whole-pixel patches, Poisson counts: the keys of a scan
    file."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(n_positions)))
    raster = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)[:n_positions] * 3.0
    positions = np.round(raster + rng.uniform(-1, 1, raster.shape)) + N // 2 + 2
    size = int(positions.max()) + N
    spectrum = np.exp(-0.5 * (np.hypot(*np.meshgrid(*[np.fft.fftfreq(size)] * 2)) * 12) ** 2)
    smooth = [np.fft.ifft2(np.fft.fft2(rng.standard_normal((size, size))) * spectrum).real for _ in range(2)]
    phase, amplitude = (image / np.abs(image).max() for image in smooth)
    obj = (0.85 + 0.15 * amplitude) * np.exp(1j * phase)
    radius = np.hypot(*np.meshgrid(np.arange(N) - N // 2, np.arange(N) - N // 2))
    probe = np.exp(-0.5 * (radius / (N / 8)) ** 2 + 1j * curvature * radius**2)
    probe *= np.sqrt(photons / np.sum(np.abs(probe) ** 2))
    counts = np.empty((n_positions, N, N), np.uint16)
    for m, (x, y) in enumerate(positions.astype(int)):
        patch = obj[y - N // 2 : y - N // 2 + N, x - N // 2 : x - N // 2 + N]
        field = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(patch * probe), norm="ortho"))
        counts[m] = rng.poisson(np.abs(field) ** 2)
    return {
        "xcoords": positions[:, 0],
        "ycoords": positions[:, 1],
        "diff3d": counts,
        "probeGuess": probe.astype(np.complex64),
        "objectGuess": obj.astype(np.complex64),
        "scan_index": np.zeros(n_positions, np.int64),
    }


@pytest.fixture
def scan_arrays() -> dict[str, np.ndarray]:
    """The arrays of a tiny scan of counts, M = 30, N = 32; a fresh copy for each test."""
    return simulate_counts()


@pytest.fixture
def make_scan() -> Callable[..., RawData]:
    """Builds a tiny RawData; keywords replace arrays, or set n_positions, N, photons, seed, curvature (of the
    probe, rad/px^2)."""

    def build(**changes: object) -> RawData:
        names = ("n_positions", "N", "photons", "seed", "curvature")
        size = {key: changes.pop(key) for key in names if key in changes}
        return RawData.from_coords_without_pc(**{**simulate_counts(**size), **changes})

    return build


@pytest.fixture
def second() -> dict[str, object]:
    """How the second scan of `pair` is simulated."""
    return {"n_positions": 24, "photons": 1e6, "seed": 3, "curvature": -0.05}


@pytest.fixture
def pair(make_scan: Callable[..., RawData], second: dict[str, object]) -> list[RawData]:
    """Two scans that differ in size, probe, dose and bad pixels."""
    bad = np.zeros((32, 32), bool)
    bad[3, 4:9] = True
    return [make_scan(n_positions=40), make_scan(**second, bad_pixels=bad)]


@pytest.fixture(autouse=True)
def legacy_dictionary_put_back():
    """Runs write the mirror for outside readers, as they should; one test must not see another's."""
    from ptycho.clients import params

    before = dict(params.cfg)
    yield
    params.cfg.clear()
    params.cfg.update(before)


#: what `make test-fast` runs, from `tests/`: no network is trained and hardly a program is started
FAST = (
    "core/test_*.py", "faults/test_*.py", "cli/test_command_values.py", "cli/test_view.py",
    "docs/test_specs.py",
    "parity/test_merging.py", "torch/test_batches.py", "torch/test_layers.py",
    "torch/test_refine_values*.py", "torch/test_refine_rules.py", "tf/test_optimizers.py",
    "torch/test_learned_parts.py", "torch/test_triage.py", "torch/test_shipped_training.py",
    "torch/test_positions_maps.py",
)  # fmt: skip
#: of these, what takes seconds: databases, files larger than the memory that is allowed, pictures
NOT_FAST = (
    "core/test_mlflow.py", "core/test_lazy_patterns.py", "core/test_figures.py", "core/test_light_imports.py",
    "core/test_import_command.py", "core/test_import_places.py",
)  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--fast`: every room of the code in under a minute; what is left out is not even imported."""
    parser.addoption("--fast", action="store_true", help="run the fast tier only")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave a test file out of the fast tier, unless it is in it."""
    if not config.getoption("--fast") or collection_path.suffix != ".py":
        return None
    name = collection_path.relative_to(Path(__file__).parent).as_posix()
    return not is_fast(name) or None


def is_fast(name: str) -> bool:
    """Whether a test file, named from `tests/`, is in the fast tier."""
    return any(fnmatch(name, form) for form in FAST) and name not in NOT_FAST

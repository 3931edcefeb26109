"""The whole way on measured data, as a scientist does it: three commands, each a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ptycho.evaluation import r_factor
from ptycho.scan.raw_data import RawData


def ptycho(*arguments: str, cwd: Path) -> str:
    """Run the command line; its stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "ptycho.cli", *arguments], cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "warning" not in done.stderr.lower(), done.stderr
    return done.stdout


@pytest.fixture
def corner_of_the_star(shared_dir, tmp_path) -> Path:
    """About 80 neighbouring positions of the measured Siemens star."""
    whole = RawData.from_file(shared_dir / "data" / "siemens_star_velociprobe.npz")
    distance = np.hypot(whole.xcoords - np.median(whole.xcoords), whole.ycoords - np.median(whole.ycoords))
    rows = np.sort(np.argsort(distance)[:80])
    part = RawData.from_coords_without_pc(
        whole.xcoords[rows],
        whole.ycoords[rows],
        whole.diff3d[rows],
        whole.probeGuess,
        diffraction_unit="amplitude",
        pattern_order="MNN",
    )
    part.to_file(tmp_path / "star.npz")
    return tmp_path / "star.npz"


class TestPyTorchIntegrationWorkflow:
    def test_pytorch_train_save_load_infer_cycle(self, corner_of_the_star, tmp_path):
        ptycho("validate", str(corner_of_the_star), cwd=tmp_path)
        settings = [
            "--nepochs",
            "6",
            "--scheduler",
            "WarmupCosine",
            "--probe_from",
            "refine",
            "--learning_rate",
            "2e-3",
        ]
        ptycho("train", "star.npz", "-o", "run", *settings, "--gradient_clip_val", "1", cwd=tmp_path)
        assert {"wts.h5.zip", "config.yaml", "history.json"} <= {
            path.name for path in (tmp_path / "run").iterdir()
        }
        ptycho("infer", "--model", "run", "--data", "star.npz", "-o", "image", cwd=tmp_path)
        metrics = json.loads((tmp_path / "image" / "metrics.json").read_text())

        raw = RawData.from_file(corner_of_the_star)
        with np.load(tmp_path / "image" / "reconstruction.npz") as product:
            obj, probe, origin = product["object"], product["probe"], tuple(product["origin_xy"])
        flat = r_factor(
            np.ones_like(obj), probe, raw.xcoords, raw.ycoords, raw.amplitude(), origin_xy=origin
        ).whole
        assert np.iscomplexobj(obj) and np.isfinite(obj).all()
        assert metrics["r_factor"] < 0.7 * flat
        assert (tmp_path / "image" / "reconstruction.png").stat().st_size > 10_000

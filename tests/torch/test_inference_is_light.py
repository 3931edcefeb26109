"""An inference needs torch alone: what trains a network is not loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ptycho.config.settings import ModelConfig, TrainingConfig
from ptycho.simulation import Scenario, simulate
from ptycho.workflows.trained import save_trained
from ptycho_torch.imaging import Imaging

_CODE = """
import sys
from ptycho.cli.main import main
assert main("infer scan.npz --model run -o out --accelerator cpu --quiet".split()) == 0
loaded = {name.partition(".")[0] for name in sys.modules}
print(sorted(loaded & {"lightning", "pytorch_lightning", "torchmetrics"}))
"""


def test_infer_loads_no_lightning(tmp_path: Path) -> None:
    made = simulate(Scenario(N=32, n_positions=25, step_px=3.0))
    made.to_npz(tmp_path / "scan.npz")
    scan = made.raw
    model = Imaging.of(TrainingConfig(model=ModelConfig(N=32)))
    model.attach_scan(scan.probeGuess[None], x_scale=1.0, nphotons=1e4, probe_factor=1.0)
    save_trained(model, tmp_path / "run")
    done = subprocess.run(
        [sys.executable, "-c", _CODE], cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr

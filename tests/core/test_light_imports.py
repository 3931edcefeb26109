"""What consumers import first is light: neither backend is loaded, and no device is touched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BACKENDS = {"torch", "lightning", "tensorflow", "keras"}
LIGHT = [
    "ptycho", "ptycho.config.config", "ptycho.params", "ptycho.raw_data", "ptycho.loader",
    "ptycho.models.bundle",
    "ptycho.probe", "ptycho.tf_helper", "ptycho.model", "ptycho.model_manager", "ptycho.evaluation",
    "ptycho.workflows.components", "ptycho.workflows.backend_selector", "ptycho_torch.config_params",
    "ptycho_torch.config_bridge",
]  # fmt: skip


def loaded_by(*words: str) -> set[str]:
    """Names of every module that a fresh interpreter imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words],
        capture_output=True, text=True, cwd=ROOT, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}


def test_neither_backend_is_loaded_by_what_is_light():
    """One interpreter for all: a module that loads a backend is then named by trying each alone."""
    found = loaded_by("-c", "import " + ", ".join(LIGHT))
    assert set(LIGHT) <= found
    if not BACKENDS & found:
        return
    guilty = {name: sorted(BACKENDS & loaded_by("-c", f"import {name}")) for name in LIGHT}
    pytest.fail(str({name: backends for name, backends in guilty.items() if backends}))


def test_configuration_and_help_load_hardly_anything_else_either():
    heavy = BACKENDS | {"scipy", "matplotlib", "skimage", "h5py"}
    assert not heavy & loaded_by("-c", "import ptycho.config.config")
    assert not (heavy | {"numpy"}) & loaded_by("-m", "ptycho.cli", "--help")


def test_torch_configurations_touch_no_device():
    """Whoever imports torch as well finds CUDA as it was: not asked for, not initialised."""
    code = (
        "import sys, ptycho_torch.config_params as c; c.TrainingConfig(); c.ModelConfig(); c.DataConfig();"
        "assert 'torch.cuda' not in sys.modules, 'torch.cuda was imported';"
        "import torch; assert not torch.cuda.is_initialized()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_nothing_happens_at_import():
    """Neither global randomness, nor threads, nor environment, nor warning filters change."""
    code = (
        "import os, random, warnings, numpy as np\n"
        "def state():\n"
        "    return (random.getstate(), np.random.get_state()[1].tolist(), dict(os.environ),\n"
        "            list(warnings.filters))\n"
        "before = state()\n"
        f"import {', '.join(LIGHT)}\n"
        "names = ('random', 'numpy', 'environment', 'warnings')\n"
        "changed = [name for name, a, b in zip(names, before, state()) if a != b]\n"
        "assert not changed, changed\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr

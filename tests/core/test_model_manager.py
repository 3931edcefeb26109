"""The model trained last is saved by whoever asks; without one the error says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ptycho.clients import model_manager
from ptycho.errors import RunError


@pytest.fixture(autouse=True)
def nothing_trained(monkeypatch):
    monkeypatch.setattr(model_manager, "_last", [])


def test_save_without_a_trained_model(tmp_path):
    with pytest.raises(RunError, match=f"{tmp_path}.*none was trained"):
        model_manager.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_last_one_is_saved(tmp_path):
    def saver(name: str):
        def write(folder: Path) -> Path:
            (folder / "wts.h5.zip").write_text(name)
            return folder / "wts.h5.zip"

        return write

    model_manager.remember(saver("first"))
    model_manager.remember(saver("second"))
    assert model_manager.save(str(tmp_path)) == tmp_path / "wts.h5.zip"
    assert (tmp_path / "wts.h5.zip").read_text() == "second"


def test_importing_it_loads_no_backend():
    code = "import sys, ptycho.model_manager; print(*{'torch', 'tensorflow', 'numpy'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == ""

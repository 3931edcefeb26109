"""The notebooks are what their sources say, and every one runs from its first cell to its last."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "notebooks"
SOURCES = sorted((FOLDER / "sources").glob("*.py"))


def builder():
    spec = importlib.util.spec_from_file_location("notebooks_of_docs", ROOT / "docs" / "notebooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_are_five() -> None:
    assert len(SOURCES) == 5
    assert [path.stem for path in sorted(FOLDER.glob("*.ipynb"))] == [path.stem for path in SOURCES]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_is_its_source_without_outputs(source: Path) -> None:
    text = (FOLDER / f"{source.stem}.ipynb").read_text(encoding="utf-8")
    assert text == builder().as_json(source.read_text(encoding="utf-8")), "run python docs/notebooks.py"
    assert not any(cell.get("outputs") for cell in json.loads(text)["cells"])


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_notebook_runs(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    # `!ptycho` is the one that is tested, also where its environment was not activated
    programs = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ.get('PATH', '')}")
    notebook = nbformat.read(FOLDER / f"{source.stem}.ipynb", as_version=4)
    # `!` does not fail by itself: what a command answers is looked at below
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output for output in outputs if "image/png" in output.get("data", {})]
    said = "".join(output.get("text", "") for output in outputs)
    assert shown, "no picture"
    assert "error:" not in said and "Traceback" not in said

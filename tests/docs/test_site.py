"""The site: every page of its menu is there, and mkdocs builds all of them without a warning."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def builder() -> Any:
    spec = importlib.util.spec_from_file_location("site_of_docs", ROOT / "docs" / "site.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages_of(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from pages_of(entry)


def test_the_menu_and_the_reference_name_what_is_there(tmp_path: Path) -> None:
    site = builder()
    site.lay_out(tmp_path / "site")
    absent = [page for page in pages_of(SETTINGS["nav"]) if not (tmp_path / "site" / page).is_file()]
    assert not absent
    for modules in site.REFERENCE.values():
        for module in modules:
            assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file(), module


def test_every_page_of_use_is_in_the_menu() -> None:
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert not pages - set(pages_of(SETTINGS["nav"]))


def test_it_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocstrings", reason="needs the extra ptychopinn[site]")
    pytest.importorskip("material", reason="needs the extra ptychopinn[site]")
    builder().lay_out(tmp_path / "site")
    settings = {**SETTINGS, "docs_dir": str(tmp_path / "site"), "site_dir": str(tmp_path / "html")}
    settings["plugins"][1]["mkdocstrings"]["handlers"]["python"]["paths"] = [str(ROOT)]
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-f", tmp_path / "mkdocs.yml"],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "html" / "reference" / "physics.html").read_text(encoding="utf-8")
    assert "poisson_nll" in reference

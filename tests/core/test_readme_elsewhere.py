"""README.md as a package index shows it: nothing points at a file that is not there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def setup_module_of_the_package() -> ModuleType:
    spec = importlib.util.spec_from_file_location("package_setup", ROOT / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def targets(text: str) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", text)


def test_without_a_repository_nothing_is_relative() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert any(not target.startswith("http") for target in targets(readme))
    shown = setup_module_of_the_package().shown_elsewhere(readme, None, "v1.0.0")
    assert all(target.startswith(("http", "#")) for target in targets(shown)) and "![" not in shown
    assert "CONTRIBUTING.md" in shown and "siemens.png" not in shown


def test_with_a_repository_every_link_is_an_address_of_a_file() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = setup_module_of_the_package().shown_elsewhere(readme, "https://forge.example/us/it", "v1.0.0")
    assert "phase](https://forge.example/us/it/raw/v1.0.0/docs/images/siemens.png)" in shown
    for target in targets(shown):
        head = "https://forge.example/us/it/"
        if target.startswith(head):
            kind, tag, path = target.removeprefix(head).split("/", 2)
            assert kind in ("raw", "blob") and tag == "v1.0.0" and (ROOT / path.partition("#")[0]).exists()
        else:
            assert target.startswith(("http", "#"))

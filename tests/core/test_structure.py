"""Rules of the tree that no linter checks: length of files, imports by string, private names of others."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ptycho", "ptycho_torch")


def files_in(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


CODE = files_in(*PACKAGES)
EVERY = files_in(*PACKAGES, "tests", "benchmarks", "docs")
LONGEST = 400
#: files that are longer, and why
LONGER: dict[str, str] = {}
#: private names that programs outside call, so that they cannot be renamed
KEPT_FOR_CLIENTS: set[str] = set()
#: the one place that imports a backend by its name
REGISTRY = "ptycho/backends.py"


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_file_is_longer_than_400_lines():
    lines = {name_of(path): lines_of(path) for path in EVERY}
    long = {name: count for name, count in lines.items() if count > LONGEST and name not in LONGER}
    assert not long, f"split these: {long}"


def test_the_list_of_longer_files_is_not_out_of_date():
    short = [
        name for name in LONGER if len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= LONGEST
    ]
    assert not short


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call in a file, by the last part of the name that is called."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
            yield node.func.id if isinstance(node.func, ast.Name) else node.func.attr, node


def test_only_the_registry_of_backends_imports_by_string():
    """The contracts of import-linter see import statements only. rosettasciio lists its readers by name."""
    by_string = {
        name_of(path) for path in CODE for name, _ in calls(path) if name in ("import_module", "__import__")
    }
    assert by_string <= {REGISTRY, "ptycho/io/formats/electron.py"}


def imports_of_this_project(path: Path) -> Iterator[tuple[str, ast.alias]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
            yield from ((node.module or "", alias) for alias in node.names)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_imports(path: Path) -> Iterator[str]:
    for module, alias in imports_of_this_project(path):
        if is_private(alias.name):
            yield f"{name_of(path)}: {module}.{alias.name}"


def private_attributes(path: Path) -> Iterator[str]:
    """Private names that are reached through an imported module of this project, as `figures._bar`."""
    imported = {alias.asname or alias.name for _, alias in imports_of_this_project(path)}
    modules = {name for name in imported if name.islower()}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
            continue
        if node.value.id in modules and is_private(node.attr):
            yield f"{name_of(path)}: {node.value.id}.{node.attr}"


@pytest.mark.parametrize("found_in", [private_imports, private_attributes])
def test_no_module_uses_a_private_name_of_another(found_in):
    uses = {use for path in CODE for use in found_in(path)}
    assert uses <= KEPT_FOR_CLIENTS

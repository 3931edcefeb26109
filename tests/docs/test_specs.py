"""The specifications say what the code does: constants, tables, signatures, error lines, list of tests."""

from __future__ import annotations

import ast
import inspect
import re
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from doc_pages import ROOT, pages, read

from ptycho.cli.main import COMMANDS, build_parser, load_command
from ptycho.networks.graphs import NetworkSpec, count_parameters, describe

#: pages for users; the others quote flags of other programs too
USER_PAGES = ["README", "quickstart", "concepts", "cookbook", "troubleshooting", "pytorch", "measured"]


@pytest.fixture(scope="module")
def build() -> ModuleType:
    """`docs/build.py`, which writes the generated parts."""
    spec = spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(text: str, width: int) -> list[list[str]]:
    """The rows of Markdown tables that have so many columns."""
    split = [re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in split if len(row) == width]


def test_constants_of_the_physics_are_the_code_s() -> None:
    section = read(Path("specs/physics.md")).split("## Constants")[1].split("\n## ")[0]
    found = [row for row in rows(section, 4) if row[0].startswith("`")]
    assert {row[0].strip("`") for row in found} >= {
        "MERGE_EPSILON", "RATE_EPSILON", "BACKPROJECT_DAMPING", "COVERAGE_FLOOR",
    }  # fmt: skip
    for name, value, module, _ in found:
        assert getattr(import_module(module.strip("`")), name.strip("`")) == float(value), name


def test_generated_parts_are_up_to_date(build: ModuleType) -> None:
    for page, generated in build.PAGES.items():
        text = page.read_text(encoding="utf-8")
        assert generated(text) == text, f"{page.relative_to(ROOT)}: run 'make docs'"


def test_the_index_lists_what_pytest_collects() -> None:
    index = read(Path("docs/development/TEST_SUITE_INDEX.md"))
    listed = re.findall(r"^\| `pytest (\S+)` \| .+ \|$", index, re.M)
    there = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py"))
    assert sorted(listed) == there, "run 'make docs'"


def test_weights_in_the_networks_page_add_up(build: ModuleType) -> None:
    text = read(Path("specs/architectures.md"))
    table = text.split("<!-- begin swift -->")[1].split("<!-- end swift -->")[0]
    total = sum(int(row[4].replace(",", "")) for row in rows(table, 6) if re.fullmatch(r"[\d,]+", row[4]))
    spec = NetworkSpec(N=64)
    assert total == count_parameters(describe("swift", spec), spec)
    assert f"| {total:,} |" in text.split("<!-- begin costs -->")[1].split("<!-- end costs -->")[0]


def test_signatures_of_the_pytorch_path() -> None:
    module = import_module("ptycho_torch.workflows.components")
    section = read(Path("specs/pytorch_path.md")).split("\n## Functions")[1].split("\n## ")[0]
    written = re.findall(r"^\| `(\w+)\((.*?)\)` \|", section, re.M)
    assert len(written) >= 10
    for name, parameters in written:
        tree = ast.parse(f"def f({parameters}): ...").body[0]
        assert isinstance(tree, ast.FunctionDef)
        actual = ast.parse(inspect.getsource(getattr(module, name)).lstrip()).body[0]
        assert isinstance(actual, ast.FunctionDef)
        for argument in ast.walk(actual.args):
            if isinstance(argument, ast.arg):
                argument.annotation = None
        assert ast.unparse(tree.args) == ast.unparse(actual.args), name


def test_every_flag_that_is_named_exists() -> None:
    known = {"--help", "--version", "--extra-index-url"}
    for name in COMMANDS:
        parser = build_parser(load_command(name), name)
        known |= {flag for action in parser._actions for flag in action.option_strings}
    for page in pages():
        if page.stem in USER_PAGES:
            named = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", read(page)))
            foreign = {flag for flag in named if flag.replace("--no-", "--") not in known}
            assert not foreign, f"{page}: {sorted(foreign)}"


def test_every_file_that_is_named_exists() -> None:
    for page in pages():
        if page.parts[0] not in ("docs", "specs") or page.name in (
            "fix_plan.md",
            "decisions.md",
            "findings.md",
        ):
            continue
        named = re.findall(r"`((?:ptycho|ptycho_torch|tests|docs|specs|benchmarks)/[\w/.]*)`", read(page))
        missing = [name for name in named if not (ROOT / name).exists()]
        assert not missing, f"{page}: {missing}"


def literals() -> list[str]:
    """Every text in the code, with a NUL where a value is put in."""
    found = []
    for package in ("ptycho", "ptycho_torch"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
                elif isinstance(node, ast.JoinedStr):
                    parts = [v.value if isinstance(v, ast.Constant) else "\0" for v in node.values]
                    found.append("".join(str(part) for part in parts))
    return found


def test_error_lines_of_troubleshooting_are_in_the_code() -> None:
    code = literals()
    lines = re.findall(r"^\| `(.+?)` \|", read(Path("docs/troubleshooting.md")), re.M)
    assert len(lines) > 40
    unknown = []
    for line in lines:
        wanted = re.compile(r"[^\n]*".join(re.escape(part.strip()) for part in line.split("...")))
        if not any(wanted.search(text) for text in code):
            unknown.append(line)
    assert not unknown, unknown

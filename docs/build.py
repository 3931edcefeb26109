"""Write the generated parts of the documentation: what the code knows better than a writer.

The tables of `specs/configuration.md` come from the fields, those of `specs/architectures.md` from the
graphs, the list of `docs/development/TEST_SUITE_INDEX.md` from the first lines of the test files.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable
from pathlib import Path

from ptycho.config import settings as config
from ptycho.config.fields import field_table
from ptycho.networks.graphs import (
    Graph,
    NetworkSpec,
    count_multiply_adds,
    count_parameters,
    describe,
    parameter_shapes,
    shapes,
)

ROOT = Path(__file__).resolve().parents[1]
CONFIGURATION = ROOT / "specs" / "configuration.md"
ARCHITECTURES = ROOT / "specs" / "architectures.md"
TEST_INDEX = ROOT / "docs" / "development" / "TEST_SUITE_INDEX.md"
CLASSES = (config.ModelConfig, config.TrainingConfig, config.InferenceConfig, config.PyTorchExecutionConfig)
SIDES = (64, 128, 256)


def with_tables(text: str) -> str:
    """The page with the table under each `### Class` heading replaced by that class's own."""
    for cls in CLASSES:
        table = re.compile(rf"(### {cls.__name__}\n(?:(?!###|\|).*\n)*)(?:\|.*\n)+")
        text, found = table.subn(lambda match, cls=cls: match.group(1) + field_table(cls), text)
        if found != 1:
            raise SystemExit(f"{CONFIGURATION}: expected one table under '### {cls.__name__}', found {found}")
    return text


def with_part(text: str, name: str, part: str) -> str:
    """The page with what stands between `<!-- begin NAME -->` and `<!-- end NAME -->` replaced."""
    begin, end = re.escape(f"<!-- begin {name} -->\n"), re.escape(f"<!-- end {name} -->")
    between = re.compile(f"({begin}).*?({end})", re.DOTALL)
    text, found = between.subn(lambda match: match.group(1) + part + match.group(2), text)
    if found != 1:
        raise SystemExit(f"expected one part 'begin {name}' ... 'end {name}', found {found}")
    return text


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [header, ("---",) * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def cost_table() -> str:
    """Weights and multiply-adds of every network at the tuned sides."""
    rows = []
    for name in ("swift", "cnn"):
        for channels in (1, 4):
            specs = [NetworkSpec(N=N, channels=channels) for N in SIDES]
            graphs = [describe(name, spec) for spec in specs]
            pairs = list(zip(graphs, specs, strict=True))
            weights = [f"{count_parameters(graph, spec):,}" for graph, spec in pairs]
            work = [f"{count_multiply_adds(graph, spec) / 1e6:,.1f}" for graph, spec in pairs]
            rows.append((f"`{name}`", str(channels), *weights, *work))
    sides = [f"N = {N}" for N in SIDES]
    header = ("network", "C", *(f"weights, {s}" for s in sides), *(f"multiply-adds, {s}, 1e6" for s in sides))
    return table(header, rows)


def graph_table(graph: Graph, spec: NetworkSpec) -> str:
    """Every node of a network in order: operation, inputs, shape, weights, multiply-adds."""
    known, trained = shapes(graph, spec), parameter_shapes(graph, spec)
    rows = []
    for node in graph.nodes:
        channels, height, width = known[node.name]
        own = {name: shape for name, shape in trained.items() if name.rpartition(".")[0] == node.name}
        work = 0
        if node.op == "conv":
            work = channels * height * width * known[node.inputs[0]][0] * node.options["kernel"] ** 2
        named = {key: value for key, value in node.options.items() if key not in ("filters", "bias", "init")}
        shown = ", ".join(f"{key} {value}" for key, value in named.items())
        if node.options.get("init") == "zeros":
            shown += ", starts at zero"
        count = sum(math.prod(shape) for shape in own.values())
        rows.append(
            (
                f"`{node.name}`",
                node.op + (f" ({shown})" if shown else ""),
                ", ".join(f"`{name}`" for name in node.inputs),
                f"{channels} x {height} x {width}",
                f"{count:,}" if count else "",
                f"{work:,}" if work else "",
            )
        )
    return table(("node", "operation", "inputs", "output", "weights", "multiply-adds"), rows)


def with_networks(text: str) -> str:
    """`specs/architectures.md` with its tables made from the graphs."""
    spec = NetworkSpec(N=64)
    text = with_part(text, "costs", cost_table())
    return with_part(text, "swift", graph_table(describe("swift", spec), spec))


def test_files() -> list[Path]:
    """What pytest collects: `test_*.py` and `*_test.py` under `tests/`, relative to the repository."""
    tests = ROOT / "tests"
    return sorted(path.relative_to(ROOT) for path in {*tests.rglob("test_*.py"), *tests.rglob("*_test.py")})


def with_test_files(text: str) -> str:
    """The index with a line for every test file: how to run it, and the first line of its docstring."""
    rows = []
    for path in test_files():
        said = ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8")))
        if not said:
            raise SystemExit(f"{path}: no docstring; its first line is the file's line in {TEST_INDEX.name}")
        first = " ".join(said.split("\n\n")[0].split())
        rows.append((f"`pytest {path.as_posix()}`", first.replace("|", r"\|")))
    return with_part(text, "files", table(("selector", "what it holds the code to"), rows))


PAGES: dict[Path, Callable[[str], str]] = {
    CONFIGURATION: with_tables,
    ARCHITECTURES: with_networks,
    TEST_INDEX: with_test_files,
}


if __name__ == "__main__":
    for page, generated in PAGES.items():
        page.write_text(generated(page.read_text(encoding="utf-8")), encoding="utf-8")
        print(f"wrote {page.relative_to(ROOT)}")

"""Write the notebooks of `docs/notebooks` from their sources, plain Python in `docs/notebooks/sources`.

A cell begins with `# %%`; with `[markdown]` its comment lines are text, with `[shell]` they are commands.
Outputs are not kept: who opens a notebook runs it, and `tests/docs/test_notebooks.py` does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "notebooks"
SOURCES = FOLDER / "sources"


def cells(text: str) -> list[tuple[str, str]]:
    """The cells of a source: kind ('code', 'markdown') and text."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("# %%"):
            found.append((line.removeprefix("# %%").strip(" []") or "code", []))
        elif found:
            found[-1][1].append(line)
    made = []
    for kind, lines in found:
        if kind != "code":
            lines = [line.removeprefix("#").removeprefix(" ") for line in lines]
        body = "\n".join(lines).strip("\n")
        if kind == "shell":
            body = "\n".join(f"!{line}" for line in body.splitlines())
        made.append(("markdown" if kind == "markdown" else "code", body))
    return made


def notebook(text: str) -> dict[str, Any]:
    """A source as a notebook of format 4.5, without outputs."""
    made: list[dict[str, Any]] = []
    for number, (kind, body) in enumerate(cells(text)):
        cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        made.append(cell | {"source": body.splitlines(keepends=True)})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def as_json(text: str) -> str:
    """The file of a notebook."""
    return json.dumps(notebook(text), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write every notebook."""
    for source in sorted(SOURCES.glob("*.py")):
        made = FOLDER / f"{source.stem}.ipynb"
        made.write_text(as_json(source.read_text(encoding="utf-8")), encoding="utf-8")
        print(made)


if __name__ == "__main__":
    main()

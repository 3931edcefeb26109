"""Print the lowest versions of the dependencies in pyproject.toml, as constraints for pip."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def lowest(name: str, version: str) -> str:
    """The constraint that keeps a package at its lowest version; a bound of two numbers takes any patch."""
    return f"{name}~={version}.0" if version.count(".") < 2 else f"{name}=={version}"


if __name__ == "__main__":
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = [re.fullmatch(r"([\w.-]+)>=([\d.]+)", one) for one in project["dependencies"]]
    sys.stdout.writelines(f"{lowest(one[1], one[2])}\n" for one in bounds if one)

"""Print the lowest versions of the dependencies in pyproject.toml, as constraints for pip.

Words: names of extras, whose bounds are printed too, and NAME=VERSION, which stands in for a bound.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def lowest(name: str, version: str) -> str:
    """The constraint that keeps a package at its lowest version; `X.Y` means X.Y.0."""
    return f"{name}=={version}" + ".0" * (2 - version.count("."))


if __name__ == "__main__":
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    instead = dict(word.split("=") for word in sys.argv[1:] if "=" in word)
    extras = [project["optional-dependencies"][word] for word in sys.argv[1:] if "=" not in word]
    bounds = [
        re.fullmatch(r"([\w.-]+)>=([\d.]+)", one)
        for group in (project["dependencies"], *extras)
        for one in group
    ]
    sys.stdout.writelines(f"{lowest(one[1], instead.get(one[1], one[2]))}\n" for one in bounds if one)

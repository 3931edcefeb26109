"""What a package index shows of README.md; everything else is declared in pyproject.toml.

An index has no files of the repository: links and pictures become addresses of the repository that
`[project.urls]` names, at the tag of the version. Where it names none, pictures go and links are text.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from setuptools import setup

_PICTURE = re.compile(r"!\[([^\]]*)\]\((?!https?:)([^)\s]+)\)")
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)\s]+)\)")


def shown_elsewhere(text: str, repository: str | None, tag: str) -> str:
    """The text of README.md as it is shown where no file lies beside it."""
    if repository is None:
        text = re.sub(rf"^{_PICTURE.pattern}\n+", "", text, flags=re.MULTILINE)
        return _LINK.sub(r"\1", _PICTURE.sub(r"\1", text))
    text = _PICTURE.sub(rf"![\1]({repository}/raw/{tag}/\2)", text)
    return _LINK.sub(rf"[\1]({repository}/blob/{tag}/\2)", text)


if __name__ == "__main__":
    root = Path(__file__).parent
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    readme = (root / "README.md").read_text(encoding="utf-8")
    repository = project.get("urls", {}).get("Repository")
    setup(
        long_description=shown_elsewhere(readme, repository, f"v{project['version']}"),
        long_description_content_type="text/markdown",
    )

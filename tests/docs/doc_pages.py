"""The pages of the documentation, cut into blocks of code that can be run, and links that can be followed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Block(NamedTuple):
    """One fenced block: its language, its text, the line on which the text starts."""

    language: str
    text: str
    line: int


def pages() -> list[Path]:
    """Every Markdown page that a reader is sent to, relative to the repository."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "specs").rglob("*.md")]
    return sorted(page.relative_to(ROOT) for page in found)


def read(page: Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(text: str) -> list[Block]:
    """Fenced blocks in order. A fence without a language counts as `bash`: plain text must say `text`."""
    fence = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [
        Block(match[1] or "bash", match[2], text.count("\n", 0, match.start()) + 2)
        for match in fence.finditer(text)
    ]


def without_code(text: str) -> str:
    """The page with code cut out, so that brackets in it are no links."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def links(text: str) -> list[str]:
    """Targets of links and images, web addresses left out."""
    targets = re.findall(r"\]\(([^)\s]+)\)", without_code(text))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings make, as GitHub and most renderers make them."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}

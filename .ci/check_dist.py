"""Whether the wheel and the source distribution in `dist` are complete: every module, and what tests need."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

PACKAGES = ("ptycho/", "ptycho_torch/", "ptychopinn/")
SOURCES = (
    *PACKAGES,
    "tests/",
    "docs/",
    "specs/",
    "benchmarks/",
    "constraints.txt",
    "Makefile",
    "CHANGELOG.md",
)


def missing(kept: list[str], held: set[str], prefixes: tuple[str, ...]) -> list[str]:
    """The files of the repository below `prefixes` that an archive lacks."""
    return [name for name in kept if name.startswith(prefixes) and name not in held]


def main() -> int:
    """0 where both are complete, else 1 and the first files that are missing."""
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout
    kept = [name for name in listed.split("\n") if name and Path(name).is_file()]
    (wheel,), (source,) = Path("dist").glob("*.whl"), Path("dist").glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as opened:
        gone = missing(kept, set(opened.namelist()), PACKAGES)
    with tarfile.open(source) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    gone += missing(kept, inside, SOURCES)
    sys.stdout.write(f"{wheel.name}, {source.name}: " + (f"missing {gone[:9]}\n" if gone else "complete\n"))
    return 1 if gone else 0


if __name__ == "__main__":
    sys.exit(main())

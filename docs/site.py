"""Lay out the pages of the repository for mkdocs-material: `make site`, settings in mkdocs.yml.

The folders stay as they are in the repository, so that every link between pages holds. Added: a page for each
part of the Python interface, whose text mkdocstrings takes from the docstrings. All of it in `build/site`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LAID = ROOT / "build" / "site"

#: page of the reference: what stands on it, modules in this order
REFERENCE = {
    "Six names": ("ptychopinn.calls", "ptychopinn.shown"),
    "Simulate": ("ptycho.simulation.scenario", "ptycho.simulation.objects", "ptycho.simulation.probes"),
    "Open a scan": ("ptycho.scan.raw_data", "ptycho.io.registry", "ptycho.io.geometry", "ptycho.io.masks"),
    "Reconstruct": (
        "ptycho_torch.refine.engine",
        "ptycho_torch.refine.options",
        "ptycho_torch.refine.result",
    ),
    "Train and infer": ("ptycho.workflows.train", "ptycho.workflows.infer", "ptycho.workflows.run"),
    "Judge": ("ptycho.evaluation.judge", "ptycho.evaluation.frc", "ptycho.evaluation.rfactor"),
    "Show": (
        "ptycho.report.showing",
        "ptycho.report.drawing",
        "ptycho.report.drawing_scan",
        "ptycho.report.html",
    ),
    "Settings": ("ptycho.config.settings",),
    "Physics": ("ptycho.physics",),
    "Errors": ("ptycho.errors",),
}


def lay_out(target: Path = LAID) -> list[Path]:
    """Copy the pages, what they show and what they link to, write the reference; the files written."""
    if target.exists():
        shutil.rmtree(target)
    kept = [*ROOT.glob("*.md"), ROOT / "LICENSE", ROOT / "CITATION.cff"]
    for folder in ("docs", "specs"):
        kept += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".md", ".png", ".ipynb")]
    made = []
    for path in sorted(kept):
        place = target / path.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
        made.append(place)
    for title, modules in REFERENCE.items():
        page = target / "reference" / f"{title.lower().replace(' ', '_')}.md"
        page.parent.mkdir(parents=True, exist_ok=True)
        parts = "\n\n".join(f"::: {module}" for module in modules)
        page.write_text(f"# {title}\n\n{parts}\n", encoding="utf-8")
        made.append(page)
    return made


def main() -> None:
    """Lay the site out for mkdocs."""
    print(f"{len(lay_out())} files in {LAID}")


if __name__ == "__main__":
    main()

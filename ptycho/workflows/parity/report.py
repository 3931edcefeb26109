"""What the comparison found, for a terminal, for a program, for a reader, and as a picture."""

from __future__ import annotations

import json
from pathlib import Path

from ptycho.io.atomic import atomic_write
from ptycho.workflows.parity.rows import Row
from ptycho.workflows.parity.run import Parity

JSON, MARKDOWN, FIGURE = "parity.json", "parity_summary.md", "parity.png"
#: below this an error is drawn as this
_FLOOR = 1e-17


def lines(parity: Parity) -> list[str]:
    """For a terminal: the worst row of every section and precision."""
    text = [f"{'section':<14}{'precision':<11}{'rows':>4}  {'difference':>10}  {'allowed':<8}{'':<9}worst"]
    for row in parity.worst():
        section, precision, rows, worst, difference, _, allowed = _cells(row, parity)
        numbers = f"{section:<14}{precision:<11}{rows:>4}  {difference:>10}  {allowed:<8}"
        text.append(f"{numbers}{'ok' if row.passed else 'TOO FAR':<9}{worst}")
    return text


def write(parity: Parity, folder: Path) -> list[Path]:
    """Write `parity.json` (every row), `parity_summary.md` and `parity.png`; each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "passed": parity.passed,
        "about": parity.about,
        "rows": [row.as_dict() for row in parity.rows],
    }
    for name, text in ((JSON, json.dumps(values, indent=1) + "\n"), (MARKDOWN, markdown(parity))):
        with atomic_write(folder / name) as temporary:
            temporary.write_text(text)
    return [folder / JSON, folder / MARKDOWN, figure(parity, folder / FIGURE)]


def markdown(parity: Parity) -> str:
    """The summary as a page: what was compared, the worst of each section, and every row that is too far."""
    about = parity.about
    model = about["model"]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    page = [
        "# Parity of the two backends",
        "",
        f"{'Equal within every tolerance.' if parity.passed else 'NOT equal: see below.'} "
        f"{len(parity.rows)} quantities on {about['positions']} patterns of {model['N']} px, "
        f"network {model['architecture']}, gridsize {model['gridsize']}, batches of {about['batch_size']}, "
        f"{about['optimizer']} at {about['learning_rate']:g}, seed {about['seed']}.",
        "",
        f"{versions}.",
        "",
        "Differences are relative to the largest magnitude of the quantity.",
        "",
        "| section | precision | rows | worst | difference | from NumPy | allowed | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in parity.worst():
        page.append("| " + " | ".join([*_cells(row, parity), "ok" if row.passed else "too far"]) + " |")
    failed = [row for row in parity.rows if not row.passed]
    if failed:
        page += ["", "## Too far", ""]
        page += ["| section | precision | quantity | difference | allowed |", "|---|---|---|---|---|"]
        page += [
            f"| {row.section} | {row.precision} | {row.quantity} | {row.error:.1e} | {row.tolerance:.0e} |"
            for row in failed
        ]
    return "\n".join(page) + "\n"


def _cells(row: Row, parity: Parity) -> list[str]:
    rows = sum(other.section == row.section and other.precision == row.precision for other in parity.rows)
    oracle = "" if row.oracle_error is None else f"{row.oracle_error:.1e}"
    return [
        row.section, row.precision, str(rows), row.quantity, f"{row.error:.1e}", oracle,
        f"{row.tolerance:.0e}" if row.tolerance else "equal",
    ]  # fmt: skip


def figure(parity: Parity, path: Path) -> Path:
    """Every row's error beside its tolerance, and both images with their difference."""
    from ptycho.report.parity_figure import parity_figure

    sections: dict[str, list[tuple[float, float]]] = {}
    for row in parity.rows:
        name = f"{row.section}, {row.precision}"
        sections.setdefault(name, []).append((max(row.error, _FLOOR), row.tolerance))
    return parity_figure(path, sections, parity.torch_image, parity.tf_image)

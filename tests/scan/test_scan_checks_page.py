"""docs/scan_checks.md lists each kind of bad scan that is tested, with what is found and what follows."""

from __future__ import annotations

import re
from pathlib import Path

from bad_scans import KINDS

from ptycho.report.verdict import judge_run

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scan_checks.md"


def test_the_table_is_that_of_the_tests() -> None:
    rows = re.findall(
        r"^\| ([^|`]+) \| (`?[\w ]+`?) \| (\d) \| ([^|]+) \|$",
        PAGE.read_text().split("## Every kind")[1],
        re.M,
    )
    listed = {name: (finding.strip("`"), int(code)) for name, finding, code, _ in rows}
    codes = {"error": 2, "problem": 0, "note": 0}
    assert listed == {
        name: (kind.finding or "refused when read", codes[kind.severity]) for name, kind in KINDS.items()
    }
    assert len(listed) >= 60


def test_a_problem_never_lets_it_work() -> None:
    """Whatever R is: the page's column of verdicts."""
    for r in (0.09, 0.1, 0.14):
        assert judge_run(r=r, noise=0.09, flat=0.25).level == "good"
        assert judge_run(r=r, noise=0.09, flat=0.25, problems=["a gap: mark it"]).level == "doubt"
        assert judge_run(r=r, noise=0.09, flat=0.25, overlap=0.2).level == "doubt"
        few = judge_run(r=r, noise=0.09, flat=0.25, n_patterns=2)
        assert few.level == "none" and "too few patterns" in few.word

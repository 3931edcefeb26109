"""Findings about a scan: each has an observation, a place, a severity and a remedy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Severity = Literal["error", "problem", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "problem", "note")
_MOST_NAMED = 4


@dataclass(frozen=True)
class Finding:
    """One finding about a scan.

    kind: a word for programs, such as `dead_pixels`; the table in docs/scan_checks.md lists all of them.
    severity: `error`, the scan cannot give an image as it is; `problem`, it may give an image, but check this
    before you trust it; `note`, useful to know, harmless. where: pixels, patterns, positions,
    or the key of the file. what: the observation. remedy: what to do about it, as an imperative.
    """

    kind: str
    severity: Severity
    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return " ".join(f"{self.what}: {self.remedy}".split())

    def as_dict(self) -> dict[str, str]:
        """Plain text by name, for JSON."""
        return asdict(self)


def errors(findings: Iterable[Finding]) -> list[Finding]:
    """The findings with which the scan cannot give an image."""
    return [found for found in findings if found.severity == "error"]


def doubts(findings: Iterable[Finding]) -> list[Finding]:
    """Errors and problems, errors first: check them before you trust an image."""
    open_ones = [found for found in findings if found.severity != "note"]
    return sorted(open_ones, key=lambda found: SEVERITIES.index(found.severity))


def name_pixels(mask: NDArray[np.bool_], ignored: NDArray[np.bool_] | None = None) -> str:
    """Where the True pixels of a map (N,N) are, in a few words: columns, rows, a block, or (row, column).

    `ignored` pixels count as part of a whole row or column, so that a gap that crosses masked pixels is
    still named as one.
    """
    whole = mask if ignored is None else mask | ignored
    rest = mask.copy()
    named = []
    for axis, word in ((0, "column"), (1, "row")):
        full = np.asarray(whole.all(axis=axis) & rest.any(axis=axis))
        if full.any():
            named.append(_runs(word, np.flatnonzero(full)))
            rest &= ~(full[None, :] if axis == 0 else full[:, None])
    if rest.any():
        named.append(_loose(rest))
    return " and ".join(named)


def name_numbers(word: str, numbers: Sequence[int] | NDArray[np.integer]) -> str:
    """`pattern 3`, `patterns 3, 7, 9` or `60 patterns, the first 3`."""
    some = [int(number) for number in numbers]
    if len(some) == 1:
        return f"{word} {some[0]}"
    if len(some) <= _MOST_NAMED:
        return f"{word}s {', '.join(map(str, some))}"
    return f"{len(some)} {word}s, the first {some[0]}"


def _runs(word: str, numbers: NDArray[np.integer]) -> str:
    parts = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    shown = [f"{part[0]}-{part[-1]}" if len(part) > 1 else f"{part[0]}" for part in parts[:_MOST_NAMED]]
    more = f" and {len(parts) - _MOST_NAMED} more" if len(parts) > _MOST_NAMED else ""
    return f"{word}{'s' if len(numbers) > 1 else ''} {', '.join(shown)}{more}"


def _loose(mask: NDArray[np.bool_]) -> str:
    rows, columns = np.nonzero(mask)
    if len(rows) <= _MOST_NAMED:
        places = ", ".join(f"({row}, {column})" for row, column in zip(rows, columns, strict=True))
        return f"pixel{'s' if len(rows) > 1 else ''} {places}"
    inside = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    if inside.mean() > 0.5:
        return f"rows {rows.min()}-{rows.max()}, columns {columns.min()}-{columns.max()} ({len(rows)} pixels)"
    return f"{len(rows)} pixels, the first ({rows[0]}, {columns[0]})"

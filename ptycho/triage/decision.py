"""Decides from probabilities which frames are bad; gives the result as text, findings and a record."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho.errors import DataError
from ptycho.scan.findings import Finding, name_numbers
from ptycho.triage.labels import DUPLICATED, EMPTY, FAULTS, MEANINGS

#: above this share of bad frames the scan has no typical frame for comparison
MOST_BAD = 0.5
#: share of a scan's frames below its tail; frames of more than `_CLEAR` log odds are no part of it: faults
_TAIL, _CLEAR = 0.85, 4.0
#: share of good scans whose tail is usual
_USUAL = 0.9
#: findings of `ptycho.scan.frames` about the same frames
_SAID_ALREADY = {"empty": "empty_patterns", "duplicated": "repeated_patterns"}


@dataclass(frozen=True, eq=False)
class Triage:
    """The labels of M frames.

    probability, called: (M, faults), in the order of `FAULTS`. thresholds: (faults,) probability from which a
    fault is called. numbers (M,) int64: the frames in their file.
    """

    probability: NDArray[np.float32]
    thresholds: NDArray[np.float32]
    called: NDArray[np.bool_]
    numbers: NDArray[np.int64]

    @property
    def bad(self) -> NDArray[np.bool_]:
        """Frames (M,) with at least one called fault."""
        return np.asarray(self.called.any(axis=1))

    @property
    def counts(self) -> dict[str, int]:
        """Number of frames for each fault; faults without frames are left out."""
        return {name: int(n) for name, n in zip(FAULTS, self.called.sum(axis=0), strict=True) if n}

    def reasons(self) -> dict[int, list[str]]:
        """The faults of each bad frame, by its number in the file."""
        rows = np.flatnonzero(self.bad)
        return {int(self.numbers[m]): [FAULTS[k] for k in np.flatnonzero(self.called[m])] for m in rows}

    def line(self) -> str:
        """One line: the number of bad frames and their faults."""
        return frames_line(len(self.called), int(self.bad.sum()), self.counts)

    def findings(self, known: Collection[str] = ()) -> list[Finding]:
        """A problem for each called fault, unless a finding of these kinds reports it already."""
        found = []
        for k, name in enumerate(FAULTS):
            frames = self.numbers[self.called[:, k]]
            if not len(frames) or _SAID_ALREADY.get(name) in known:
                continue
            found.append(
                Finding(
                    f"triage_{name}", "problem", name_numbers("frame", frames),
                    f"{name_numbers('frame', frames)} of {len(self.called)} called {name} ({MEANINGS[name]})",
                    "leave them out with --skip_bad, after a look at them",
                )
            )  # fmt: skip
        return found

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and text, for JSON: bad frames alone."""
        rows = np.flatnonzero(self.bad)
        return {
            "n_frames": len(self.called),
            "n_bad": len(rows),
            "counts": self.counts,
            "thresholds": {name: _short(t) for name, t in zip(FAULTS, self.thresholds, strict=True)},
            "frames": [
                {
                    "frame": int(self.numbers[m]),
                    "faults": [FAULTS[k] for k in np.flatnonzero(self.called[m])],
                    "probability": {
                        name: _short(p) for name, p in zip(FAULTS, self.probability[m], strict=True)
                    },
                }
                for m in rows
            ],
        }

    def check_few(self, what: str) -> None:
        """DataError, starting with `what`, if more than half of the frames are bad."""
        if float(self.bad.mean()) > MOST_BAD:
            raise DataError(
                f"{what}: {self.line()}; more than half is too many to leave out: ptycho validate --triage "
                "lists them, without --skip_bad all are used"
            )


def frames_line(n_frames: int, n_bad: int, counts: Mapping[str, int]) -> str:
    """One line: how many of a scan's frames are bad; counts: fault -> frames that have it.

    >>> frames_line(100, 3, {"empty": 1, "dim": 2})
    '3 of 100 frames look bad: 1 empty, 2 dim'
    """
    if not n_bad:
        return f"all {n_frames} frames look good"
    return f"{n_bad} of {n_frames} frames look bad: {', '.join(f'{n} {name}' for name, n in counts.items())}"


def decide(
    probability: NDArray[np.floating], thresholds: NDArray[np.floating], repeats: NDArray[np.int64],
    numbers: NDArray[np.int64] | None = None, usual: NDArray[np.floating] | None = None,
) -> Triage:  # fmt: skip
    """Call the faults of the frames of a scan from probabilities (M, faults) and thresholds (faults,).

    usual (faults,): the tail of usual scans, for `thresholds_in_scan`; None: the thresholds as they are.
    repeats (M,): the earlier frame that each frame repeats, -1 if none; it alone decides about duplicates,
    because it is exact. numbers (M,): those of the frames in their file, None: 0 to M - 1.
    """
    thresholds = thresholds_in_scan(probability, thresholds, usual)
    called = np.asarray(probability >= thresholds)
    called[:, DUPLICATED] = repeats >= 0
    known = np.arange(len(called)) if numbers is None else numbers
    return Triage(np.asarray(probability, np.float32), np.asarray(thresholds, np.float32), called, known)


def thresholds_in_scan(
    probability: NDArray[np.floating],
    thresholds: NDArray[np.floating],
    usual: NDArray[np.floating] | None,
) -> NDArray[np.float32]:
    """Thresholds (faults,) for one scan, from its probabilities (M, faults).

    Where many frames of a scan look a little like a fault, the scan is like that, not its frames. So the log
    odds of a threshold rise by as much as the scan's tail (`tails_of`) lies above the usual one.
    """
    if usual is None:
        return np.asarray(thresholds, np.float32)
    odds = _log_odds(thresholds) + np.maximum(tails_of(probability) - usual, 0.0)
    return np.asarray(1 / (1 + np.exp(-odds)), np.float32)


def tails_of(probability: NDArray[np.floating]) -> NDArray[np.float64]:
    """Log odds (faults,) that 85 % of a scan's frames (M, faults) do not exceed, clear faults left out."""
    odds = _log_odds(probability)
    columns = [column[column < _CLEAR] for column in odds.T]
    return np.array([np.quantile(column, _TAIL) if len(column) else -np.inf for column in columns])


def thresholds_of_scans(
    probability: Sequence[NDArray[np.floating]], labels: Sequence[NDArray[np.bool_]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(thresholds, usual tails), each (faults,), from scans: probabilities and truth (M, faults) of each.

    The thresholds lie half a unit of log odds above every good frame, what its own scan's tail exceeds taken
    off, and at 0.9 or more; for `empty`, which no good frame comes near, at 0.5.
    """
    tails = np.array([tails_of(one) for one in probability])
    usual = np.quantile(np.where(np.isfinite(tails), tails, 0.0), _USUAL, axis=0)
    excess = np.maximum(tails - usual, 0.0)
    freed = np.concatenate([_log_odds(p) - e for p, e in zip(probability, excess, strict=True)])
    least = np.where(np.arange(len(FAULTS)) == EMPTY, 0.5, 0.9)
    made = thresholds_of(1 / (1 + np.exp(-freed)), np.concatenate(list(labels)), least=least, margin=0.5)
    return made, np.asarray(usual, np.float32)


def thresholds_of(
    probability: NDArray[np.floating],
    labels: NDArray[np.bool_],
    *,
    least: ArrayLike = 0.5,
    margin: float = 1.0,
) -> NDArray[np.float32]:
    """Thresholds (faults,) above all good frames: `margin` in log odds above the highest good frame, and at
    least `least`, one number or (faults,).

    probability (M, faults) of frames whose truth is labels (M, faults) bool.
    """
    good = _log_odds(probability)[~labels.any(axis=1)]
    highest = good.max(axis=0) if len(good) else np.full(len(FAULTS), -np.inf)
    odds = np.maximum(highest + margin, _log_odds(np.asarray(least, np.float64)))
    return np.asarray(1 / (1 + np.exp(-odds)), np.float32)


def _log_odds(probability: NDArray[np.floating]) -> NDArray[np.float64]:
    p = np.clip(np.asarray(probability, np.float64), 1e-7, 1 - 1e-7)
    return np.asarray(np.log(p / (1 - p)))


def _short(value: float) -> float:
    return round(float(value), 4)

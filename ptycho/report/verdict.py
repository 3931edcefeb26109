"""Did the reconstruction work? One word and one sentence. The rules are few and stand in the documentation.

R is compared with two limits that come from the scan itself: R of the true object, which is due to counting
noise, and R of an object without structure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

#: share of the structure in the patterns that the image explains: above, it worked; below, it did not
WORKED, FAILED = 0.75, 0.25
#: the same for the correlation of amplitude and of phase with a known truth
WORKED_PEARSON, FAILED_PEARSON = 0.85, 0.4
#: below this ratio of R to the R of noise alone, the image has fitted noise
_BELOW_NOISE = 0.97
_LEVELS = ("good", "doubt", "bad")
_WORDS = {"good": "It worked", "doubt": "Look closer", "bad": "It did not work", "none": "No verdict"}


class Verdict(NamedTuple):
    """level good | doubt | bad | none; a word for it; the reason in a sentence or two."""

    level: str
    word: str
    reason: str


def explained_share(r: float, noise: float | None, flat: float) -> float:
    """(flat^2 - r^2) / (flat^2 - noise^2): the share of the structure that the image explains.

    0 for an image that explains nothing, 1 at the noise and below it.
    """
    floor = 0.0 if noise is None else min(noise, 0.98 * flat)
    return min(1.0, (flat**2 - r**2) / (flat**2 - floor**2))


def judge_run(
    *,
    r: float | None,
    noise: float | None = None,
    flat: float | None = None,
    pearsons: Sequence[float] = (),
    truth_name: str = "the truth",
) -> Verdict:
    """The verdict from R, its two limits, and the correlations with a truth (where the truth has structure).

    The worse of the two decides. Without the R of a flat object there is no scan to compare with, and R alone
    gives no verdict.
    """
    levels, reasons = [], []
    if r is not None and flat is not None and flat > 0:
        share = explained_share(r, noise, flat)
        levels.append("good" if share >= WORKED else "doubt" if share >= FAILED else "bad")
        beyond = " that is not noise" if noise is not None else ""
        reasons.append(
            f"The image explains {_percent(share)} of the structure in the patterns{beyond}."
            if share > 0
            else "The image explains the patterns no better than an object without any structure."
        )
        if noise is not None and r < _BELOW_NOISE * noise:
            reasons.append(f"It fits part of the noise too: noise alone leaves R {noise:.3f}.")
    elif r is not None:
        reasons.append(f"R is {r:.4f}; without the scan there is nothing to hold it against.")
    if pearsons:
        worst = min(pearsons)
        level = "good" if worst >= WORKED_PEARSON else "doubt" if worst >= FAILED_PEARSON else "bad"
        levels.append(level)
        what = "Amplitude and phase correlate" if len(pearsons) > 1 else "It correlates"
        reasons.append(f"{what} with {truth_name} at {worst:.2f}{' or more' if len(pearsons) > 1 else ''}.")
    if not levels:
        return Verdict(
            "none", _WORDS["none"], " ".join(reasons) or "There is neither R nor a truth to judge by."
        )
    level = max(levels, key=_LEVELS.index)
    return Verdict(level, _WORDS[level], " ".join(reasons))


def judge_unfinished(state: str | None, error: str | None) -> Verdict | None:
    """The verdict on a run whose record says that it did not end well; None for any other."""
    if state == "failed":
        return Verdict("bad", "It failed", f"{(error or 'no reason was recorded').rstrip('.')}.")
    if state == "interrupted":
        return Verdict("doubt", "Interrupted", f"{(error or 'it was stopped before its end').rstrip('.')}.")
    if state == "running":
        return Verdict("none", "Not finished", "The run is still going, or was killed without a word.")
    return None


def judge_training(history: Mapping[str, Sequence[float]], next_step: str | None) -> Verdict:
    """The verdict on a training that has made no image yet."""
    name = next((n for n in ("val_loss", "train_loss") if n in history), next(iter(history), None))
    if name is None:
        return Verdict(
            "none", "No image here", f"Next: {next_step}" if next_step else "Nothing was reconstructed."
        )
    values = list(history[name])
    if not math.isfinite(values[-1]):
        return Verdict("bad", "It diverged", f"{name} is not a number after {len(values)} epochs.")
    course = f"{name} went from {values[0]:.4g} to {values[-1]:.4g} in {len(values)} epochs"
    if len(values) > 1 and values[-1] >= values[0]:
        return Verdict("doubt", "Look closer", f"{course}: it did not fall.")
    return Verdict(
        "none", "Trained, no image yet", f"{course}." + (f" Next: {next_step}" if next_step else "")
    )


def _percent(share: float) -> str:
    return "all" if share >= 0.995 else f"{100 * share:.0f} %"

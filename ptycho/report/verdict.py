"""Did the reconstruction work? One word and one sentence. The rules are few and stand in the documentation.

R is put on a scale between two anchors that the scan itself gives: what the noise of the counts leaves even
to the true object, and what an image without any structure leaves. Patterns held out, open problems of the
scan
and too few patterns or photons can only lower the verdict, never raise it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ptycho.scan.positions import FEWEST_PATTERNS, MIN_OVERLAP

#: share of the structure in the patterns that the image explains: above, it worked; below, it did not
WORKED, FAILED = 0.75, 0.25
#: the same for the correlation of amplitude and of phase with a known truth
WORKED_PEARSON, FAILED_PEARSON = 0.85, 0.4
#: share of the structure in held-out patterns that a short reconstruction must predict
PREDICTED = 0.5
#: share that must be explained pixel by pixel, none of them counting for more than the brightest twentieth
EVEN = 0.5
#: standard errors by which structure must stand out of the photons' noise
_SEEN = 5.0
#: standard errors by which the far field must predict held-out patterns better than the near field
_FAR = 2.0
#: R over that of noise alone, below which noise must have been fitted
_BELOW_NOISE = 0.97
_LEVELS = ("good", "doubt", "bad")
_WORDS = {"good": "It worked", "doubt": "Look closer", "bad": "It did not work", "none": "No verdict"}


class Verdict(NamedTuple):
    """level good | doubt | bad | none; a word for it; the reason in a sentence or two."""

    level: str
    word: str
    reason: str


class HeldOut(NamedTuple):
    """R of patterns that a short reconstruction did not see, and its two anchors (noise None: not known).

    sigma: how far the prediction is ahead of the mean pattern, in standard errors. near_field: how far a
    near-field model is ahead of the far field (negative: behind); None where nothing speaks for one.
    elsewhere: R of held-out patterns with the axes turned, or paired anew, and as given, where the former is
    better.
    """

    r: float
    flat: float
    noise: float | None
    sigma: float
    near_field: float | None = None
    elsewhere: tuple[float, float] | None = None

    @property
    def share(self) -> float:
        """Share of their structure that was predicted; negative where worse than the mean pattern."""
        return explained_share(self.r, self.noise, self.flat)


def explained_share(r: float, noise: float | None, flat: float) -> float:
    """(flat^2 - r^2) / (flat^2 - noise^2): the share of the structure that the image explains.

    0 for an image that explains nothing, 1 at the noise and below it.
    """
    floor = 0.0 if noise is None else min(noise, 0.98 * flat)
    return min(1.0, (flat**2 - r**2) / (flat**2 - floor**2))


def judge_run(
    *,
    r: float | None,
    r_before_prior: float | None = None,
    noise: float | None = None,
    flat: float | None = None,
    pearsons: Sequence[float] = (),
    truth_name: str = "the truth",
    even_share: float | None = None,
    contrast_sigma: float | None = None,
    held_out: HeldOut | None = None,
    problems: Sequence[str] = (),
    overlap: float | None = None,
    n_patterns: int | None = None,
) -> Verdict:
    """The verdict from R, its two limits, and the correlations with a truth (where the truth has structure).

    The worse of the two decides. Without a flat R the scan is not there, and R alone is no verdict.
    r_before_prior: R of the image before a learned prior smoothed it, where one did: a smooth image leaves
    noise that other images fit, so this R tells whether patterns, positions and probe belong together.
    even_share: share explained pixel by pixel; contrast_sigma: by how many standard errors the two anchors
    lie
    apart; problems: open ones of the scan's checks; overlap and n_patterns of the scan. What is not known is
    None and does not count.
    """
    levels, reasons = [], []
    unseen = contrast_sigma is not None and contrast_sigma < _SEEN
    few = n_patterns is not None and n_patterns < FEWEST_PATTERNS
    if r is not None and flat is not None and flat > 0:
        smoothed = r_before_prior is not None and r_before_prior < r
        share = explained_share(r_before_prior if smoothed and r_before_prior else r, noise, flat)
        if not unseen:
            level = "good" if share >= WORKED else "doubt" if share >= FAILED else "bad"
            reasons.append(_explained(share, noise is not None, smoothed))
            caps = list(_caps(r, noise, even_share, held_out, problems, overlap))
            if level == "good" and caps:
                level = "doubt"
            if level == "bad" and held_out is not None and held_out.sigma > _SEEN:
                level, raised = _raised(share, held_out)
                reasons += raised
            levels.append(level)
            reasons += caps
        elif problems:
            reasons.append(f"The scan has an open problem: {_first(problems)}.")
    elif r is not None:
        reasons.append(f"R is {r:.4f}; without the scan there is nothing to hold it against.")
    if pearsons:
        worst = min(pearsons)
        level = "good" if worst >= WORKED_PEARSON else "doubt" if worst >= FAILED_PEARSON else "bad"
        levels.append(level)
        what = "Amplitude and phase correlate" if len(pearsons) > 1 else "It correlates"
        more = " or more" if len(pearsons) > 1 else ""
        reasons.append(f"{what} with {truth_name} at {_rounded(worst)}{more}.")
    elif unseen and not few:
        reason = (
            "Too few photons: an image without structure would explain the patterns as well as the true one,"
            " within the noise."
        )
        return Verdict("none", "No verdict: too few photons", " ".join([reason, *reasons]))
    if few and r is not None and flat is not None:
        only = "1 pattern is" if n_patterns == 1 else f"{n_patterns} patterns are"
        reasons.insert(0, f"{only[0].upper()}{only[1:]} too few to tell a right image from a wrong one.")
        if not pearsons:
            return Verdict("none", "No verdict: too few patterns", " ".join(reasons))
        levels.append("doubt")
    if not levels:
        return Verdict(
            "none", _WORDS["none"], " ".join(reasons) or "There is neither R nor a truth to judge by."
        )
    level = max(levels, key=_LEVELS.index)
    return Verdict(level, _WORDS[level], " ".join(reasons))


def _raised(share: float, held_out: HeldOut) -> tuple[str, list[str]]:
    """The level of an image that does not fit a scan whose patterns belong together, and why: it may be
    right, under a probe that is not."""
    if held_out.share >= PREDICTED:
        return "doubt", [
            f"A short reconstruction predicts {_percent(held_out.share)} of the structure in patterns that it"
            " did not see: the scan is sound, and image and probe do not fit it; the probe may be another"
            " scan's (let it be refined)."
        ]
    return ("doubt" if share > 0.1 else "bad"), []


def _explained(share: float, over_noise: bool, smoothed: bool) -> str:
    image = "Before the learned prior smoothed it, the image" if smoothed else "The image"
    beyond = " that is not noise" if over_noise else ""
    if share > 0:
        return f"{image} explains {_percent(share)} of the structure in the patterns{beyond}."
    return f"{image} explains the patterns no better than an object without any structure."


def _caps(
    r: float,
    noise: float | None,
    even_share: float | None,
    held_out: HeldOut | None,
    problems: Sequence[str],
    overlap: float | None,
) -> list[str]:
    """Why an image that explains its patterns need not be right, one sentence each."""
    caps = []
    if noise is not None and r < _BELOW_NOISE * noise:
        caps.append(f"It fits part of the noise too: noise alone leaves R {noise:.3f}.")
    if even_share is not None and even_share < EVEN:
        caps.append(
            f"Few bright pixels carry that: pixel by pixel it explains {_percent(max(even_share, 0.0))}."
        )
    if held_out is not None and held_out.share < PREDICTED:
        caps.append(
            f"A short reconstruction predicts only {_percent(max(held_out.share, 0.0))} of the structure"
            f" in patterns"
            " that it did not see: positions, orientation, probe or overlap may be wrong"
            " (ptycho validate --orientation tries the axes)."
        )
    if held_out is not None and held_out.elsewhere is not None:
        other, given = held_out.elsewhere
        caps.append(
            f"Patterns held out are predicted better at other positions (R {other:.3f}, as given"
            f" {given:.3f}): axes may be turned, or patterns and positions off by one;"
            " ptycho validate --orientation names it."
        )
    if held_out is not None and held_out.near_field is not None and held_out.near_field > -_FAR:
        caps.append(
            "A near-field model predicts such patterns as well, and the mean pattern looks like the beam's"
            " shadow rather than its diffraction: these may be near-field data, or the probe another scan's;"
            " the image would be out of focus."
        )
    if overlap is not None and overlap < MIN_OVERLAP:
        caps.append(f"The overlap is {overlap:.0%}: patches that hardly overlap fit whatever is wrong.")
    if problems:
        more = f" ({len(problems) - 1} more)" if len(problems) > 1 else ""
        caps.append(f"The scan has an open problem: {_first(problems)}{more}.")
    return caps


def _first(problems: Sequence[str]) -> str:
    return problems[0].rstrip(".")


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


def _rounded(value: float) -> str:
    """Two digits, rounded down: 0.849 is not 0.85."""
    return f"{math.floor(100 * value) / 100:.2f}"


def _percent(share: float) -> str:
    """Whole per cent, rounded down, so that words and limits agree."""
    return "all" if share >= 0.995 else f"{math.floor(100 * share):d} %"

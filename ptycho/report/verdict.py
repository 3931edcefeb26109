"""The verdict on a reconstruction: one word and one sentence. The documentation lists the rules.

R is rated between two anchors from the scan itself: R of the true object, which the noise of the counts
causes, and R of an image without structure. Held-out patterns, open problems of the scan and too few patterns
or photons can only lower the verdict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ptycho.scan.positions import FEWEST_PATTERNS, MIN_OVERLAP

#: limits for the explained share of the structure in the patterns: good above the first, bad below the second
WORKED, FAILED = 0.75, 0.25
#: the same for the correlation of amplitude and of phase with a known truth
WORKED_PEARSON, FAILED_PEARSON = 0.85, 0.4
#: share of the structure in held-out patterns that a short reconstruction must predict
PREDICTED = 0.5
#: share that must be explained by pixel, with weights limited to the 95th percentile
EVEN = 0.5
#: standard errors by which structure must exceed photon noise
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
    """R of patterns held out from a short reconstruction, and its two anchors (noise None: not known).

    sigma: standard errors by which the prediction is better than the mean pattern. near_field: standard
    errors by which a near-field model is better than the far field (negative: worse); None if there is no
    sign of a near field. elsewhere: R of held-out patterns with turned axes or another pairing, and as given,
    if the former is better.
    """

    r: float
    flat: float
    noise: float | None
    sigma: float
    near_field: float | None = None
    elsewhere: tuple[float, float] | None = None

    @property
    def share(self) -> float:
        """Predicted share of their structure; negative if worse than the mean pattern."""
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

    The worse of the two decides. Without a flat R the scan is missing, and R alone gives no verdict.
    r_before_prior: R of the image before a learned prior smoothed it, where one did: a smooth image leaves
    noise that other images fit, so this R tells whether patterns, positions and probe belong together.
    even_share: share explained pixel by pixel; contrast_sigma: by how many standard errors the two anchors
    lie
    apart; problems: open ones of the scan's checks; overlap and n_patterns of the scan. Unknown values are
    None and are ignored.
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
    """The level of an image that does not fit a consistent scan, and the reason: the image may be right but
    the probe wrong.
    """
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
    """Reasons why an image that explains its patterns may still be wrong, one sentence each."""
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
    """The verdict on a run that failed or was interrupted, by its record; None for other runs."""
    if state == "failed":
        return Verdict("bad", "It failed", f"{(error or 'no reason was recorded').rstrip('.')}.")
    if state == "interrupted":
        return Verdict("doubt", "Interrupted", f"{(error or 'it was stopped before its end').rstrip('.')}.")
    if state == "running":
        return Verdict("none", "Not finished", "The run is still going, or was killed without a word.")
    return None


def judge_training(history: Mapping[str, Sequence[float]], next_step: str | None) -> Verdict:
    """The verdict on a training without an image."""
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
    """Whole per cent, rounded down, so that text and limits agree."""
    return "all" if share >= 0.995 else f"{math.floor(100 * share):d} %"

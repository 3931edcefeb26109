"""Quality of scores for finding labels: average precision, precision and recall, confusion."""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptycho.triage.labels import FAULTS, LABELS

logger = logging.getLogger(__name__)


def average_precision(scores: ArrayLike, positive: ArrayLike) -> float:
    """Sum over falling thresholds of (recall - recall before) * precision; equal scores are one threshold.

    scores (M,), positive (M,) bool. Without positives, or with a score that is not finite, it is undefined:
    returns 0.0, with a warning. Source: Buckley and Voorhees, SIGIR (2000), 33; not interpolated.

    >>> average_precision([0.9, 0.8, 0.7], [True, False, True])
    0.8333333333333333
    """
    s, hit = np.asarray(scores, np.float64), np.asarray(positive, np.bool_)
    if s.shape != hit.shape or s.ndim != 1:
        raise ValueError(f"scores {s.shape} and labels {hit.shape} must be two equal vectors")
    if not hit.any() or not np.isfinite(s).all():
        why = "no frame has the label" if not hit.any() else "a score is not finite"
        logger.warning("average precision: %s; 0.0 is taken", why)
        return 0.0
    order = np.argsort(-s, kind="stable")
    s, hit = s[order], hit[order]
    last = np.append(np.flatnonzero(np.diff(s)), len(s) - 1)
    found = np.cumsum(hit)[last]
    recall = found / found[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * found / (last + 1)))


def goodness(probability: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probability (M,) that a frame has no fault, if faults are independent."""
    return np.asarray(np.prod(1.0 - probability.astype(np.float64), axis=1))


class Judged(NamedTuple):
    """For each of `LABELS`: average precision, and at the thresholds precision and recall (0 if none was
    called or none exists); their mean; and `confusion` (labels, labels): rows are the truth.
    """

    average_precision: dict[str, float]
    precision: dict[str, float]
    recall: dict[str, float]
    mean: float
    confusion: NDArray[np.int64]


def judge(
    probability: NDArray[np.floating], labels: NDArray[np.bool_], thresholds: ArrayLike = 0.5
) -> Judged:
    """Compare probabilities (M, faults) with the truth (M, faults) bool."""
    called = probability >= np.asarray(thresholds)
    truth = np.column_stack([~labels.any(axis=1), labels])
    said = np.column_stack([~called.any(axis=1), called])
    scores = np.column_stack([goodness(probability), probability])
    known = [average_precision(scores[:, k], truth[:, k]) for k in range(len(LABELS))]
    hits = (truth & said).sum(axis=0)
    precision = hits / np.maximum(said.sum(axis=0), 1)
    recall = hits / np.maximum(truth.sum(axis=0), 1)

    def named(values: ArrayLike) -> dict[str, float]:
        return {name: float(value) for name, value in zip(LABELS, np.asarray(values), strict=True)}

    return Judged(
        named(known),
        named(precision),
        named(recall),
        float(np.mean(known)),
        confusion(called, labels, probability),
    )


def confusion(
    called: NDArray[np.bool_], labels: NDArray[np.bool_], probability: NDArray[np.floating]
) -> NDArray[np.int64]:
    """Numbers of frames by true label (rows) and called label (columns), in the order of `LABELS`.

    A frame with several faults counts once in the row of each. Its column is that fault if it was called,
    else the most probable called fault, else `good`.
    """
    made = np.zeros((len(LABELS), len(LABELS)), np.int64)
    likeliest = np.where(called.any(axis=1), 1 + np.where(called, probability, -1.0).argmax(axis=1), 0)
    np.add.at(made[0], likeliest[~labels.any(axis=1)], 1)
    for k in range(len(FAULTS)):
        rows = labels[:, k]
        np.add.at(made[k + 1], np.where(called[rows, k], k + 1, likeliest[rows]), 1)
    return made


def lines_of(judged: Judged) -> list[str]:
    """The numbers as a table of text, a label a line, and the confusion matrix under it."""
    made = [f"{'label':<12}{'AP':>8}{'precision':>11}{'recall':>8}"]
    for name in LABELS:
        ap, p, r = judged.average_precision[name], judged.precision[name], judged.recall[name]
        made.append(f"{name:<12}{ap:>8.4f}{p:>11.4f}{r:>8.4f}")
    made += [
        f"{'mean':<12}{judged.mean:>8.4f}",
        f"{'is / called':<12}" + "".join(f"{n[:9]:>10}" for n in LABELS),
    ]
    made += [
        f"{name:<12}" + "".join(f"{n:>10d}" for n in row)
        for name, row in zip(LABELS, judged.confusion.tolist(), strict=True)
    ]
    return made

"""Chooses the faults of each frame of a scan and adds them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptycho.triage.faults import DETECTOR, OPTICAL, PAIRS, Counts, Floats, Setting
from ptycho.triage.labels import DUPLICATED, FAULTS, FEWEST_REPEATED

#: frequency of each fault among bad frames: higher for faults that are harder to see
SHARES: dict[str, float] = {
    "empty": 0.08, "dim": 0.18, "saturated": 0.16, "shifted": 0.18, "module": 0.16, "ring": 0.16,
    "duplicated": 0.08,
}  # fmt: skip
#: shares of the faults that come in pairs, that last for several frames, and that start at any frame
_PAIRED, _RUNS, _LONGEST_RUN = 0.15, 0.2, 5


def asked_faults(
    n_frames: int, bad_share: float, rng: np.random.Generator, faults: tuple[str, ...] = FAULTS
) -> list[tuple[str, ...]]:
    """Requested faults of each of n frames, mostly (); a fifth of the faults lasts for 2 to 5 frames.

    bad_share: requested share of bad frames. faults: those to choose from.
    """
    asked: list[tuple[str, ...]] = [()] * n_frames
    wanted = rng.binomial(n_frames, bad_share)
    weights = np.array([SHARES[name] for name in faults])
    pairs = [pair for pair in PAIRS if set(pair) <= set(faults)]
    while sum(map(bool, asked)) < wanted:
        begin = int(rng.integers(n_frames))
        if pairs and rng.random() < _PAIRED:
            chosen: tuple[str, ...] = pairs[int(rng.integers(len(pairs)))]
        else:
            chosen = (faults[int(rng.choice(len(faults), p=weights / weights.sum()))],)
        length = int(rng.integers(2, _LONGEST_RUN + 1)) if rng.random() < _RUNS else 1
        asked[begin : begin + length] = [chosen] * len(asked[begin : begin + length])
    return asked


class Damaged(NamedTuple):
    """Counts (M,N,N) int64 with faults in them, and which faults each frame has (M, faults) bool."""

    counts: Counts
    labels: NDArray[np.bool_]


def damage(
    counts: Counts,
    asked: list[tuple[str, ...]],
    rng: np.random.Generator,
    *,
    light: Floats | None = None,
    dark: float = 0.0,
    live: NDArray[np.bool_] | None = None,
    read_noise: float = 0.0,
) -> Damaged:
    """Add the requested faults to counts (M,N,N); the labels tell which could be added.

    light (M,N,N): expected counts; None: the counts themselves. dark: counts of a pixel without light. live
    (N,N): working pixels. read_noise: standard deviation, counts, of a detector that integrates; its counts
    are rounded and cut at 0. A duplicate repeats the frame before it, or one of the ten before, and has the
    faults of that too. Time and memory: those of the counts.
    """
    made = np.array(counts, np.int64)
    labels = np.zeros((len(made), len(FAULTS)), np.bool_)
    everywhere = np.ones(made.shape[1:], np.bool_) if live is None else live
    for number, names in enumerate(asked):
        if "duplicated" in names:
            source = number - (1 if rng.random() < 0.7 else int(rng.integers(1, 11)))
            if source >= 0 and made[source].sum() > FEWEST_REPEATED:
                made[number] = made[source]
                labels[number] = labels[source]
                labels[number, DUPLICATED] = True
                continue
        expected = made[number].astype(np.float64) if light is None else light[number]
        for stage in (OPTICAL, DETECTOR):
            for name, make in stage.items():
                if name not in names:
                    continue
                changed = make(Setting(made[number], expected, dark, everywhere), rng)
                if changed is not None:
                    made[number] = changed
                    expected = changed.astype(np.float64)
                    labels[number, FAULTS.index(name)] = True
            if stage is OPTICAL and read_noise > 0:
                noise = rng.normal(0.0, read_noise, made[number].shape)
                noisy = np.maximum(np.rint(made[number] + noise), 0)
                made[number] = np.where(everywhere, noisy, 0)
    return Damaged(made, labels)


def distribution(labels: NDArray[np.bool_]) -> dict[str, float]:
    """Share of frames with each label, `good` first, and the number of frames with more than one fault."""
    share = labels.mean(axis=0)
    return {
        "good": float((~labels.any(axis=1)).mean()),
        **{name: float(value) for name, value in zip(FAULTS, share, strict=True)},
        "several": float((labels.sum(axis=1) > 1).mean()),
    }

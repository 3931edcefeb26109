"""The labels of frames. Several faults may occur together; a frame without a fault is good."""

from __future__ import annotations

GOOD = "good"
#: each fault and its meaning; each has its own, independent output of the network
MEANINGS: dict[str, str] = {
    "empty": "no light: what the detector counts in the dark, or nothing",
    "dim": "the same pattern with at most half of the light that the scan's other frames there have",
    "saturated": "the brightest pixels stop at one value",
    "shifted": "the pattern lies elsewhere on the detector: the beam moved",
    "module": "a rectangle of the detector counts nothing, or counts without light",
    "ring": "a ring of other scattering lies over the pattern, such as ice or a parasitic ring",
    "duplicated": "the frame repeats an earlier one of the scan to the last count",
}
FAULTS: tuple[str, ...] = tuple(MEANINGS)
LABELS: tuple[str, ...] = (GOOD, *FAULTS)
DUPLICATED = FAULTS.index("duplicated")
EMPTY = FAULTS.index("empty")
#: a frame with fewer counts may repeat another one by chance; `ptycho.scan.frames` uses the same limit
FEWEST_REPEATED = 30

"""What a reconstruction says and writes while its sweeps go on, and the sentence at its end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho.cli.console import Console

if TYPE_CHECKING:
    from ptycho_torch.refine import IterationState, RefineResult

_SO_FAR_S = 2.0

_BEGAN = {
    "flat": "a flat object",
    "coarse": "low frequencies from counts and centres of mass",
    "coarse amplitude": "low frequencies of the amplitude, from counts",
    "as given": "the given image",
}


def in_words(result: RefineResult) -> str:
    """One sentence that summarises the run."""
    sweeps = len(result.history)
    parts = [f"start: {_BEGAN.get(result.began, result.began)}", f"{sweeps} sweep{'s' * (sweeps != 1)}"]
    if result.variation is not None:
        used = f"weight {result.variation:.2g}" if result.variation else "not used"
        parts.append(f"total variation by held-out patterns: {used}")
    if result.unsure is not None:
        parts.append(f"{int(result.unsure.sum())} of {len(result.unsure)} positions unsure")
    if result.learned is not None:
        used = f"{100 * result.learned:.0f} %" if result.learned else "not used"
        parts.append(f"learned prior by held-out patterns: {used}")
    return "; ".join(parts)


class Previews:
    """OUT/preview.png after 0, 1, 2, 4, 8, ... sweeps, and a line for each."""

    def __init__(self, path: Path, console: Console) -> None:
        self.path, self.console = path, console

    def __call__(self, scan: Any, state: Any, done: int) -> None:
        """Write the picture after 0, 1, 2, 4, ... sweeps."""
        if done & (done - 1):
            return
        from ptycho_torch.refine.preview import write_preview

        write_preview(self.path, scan, state)
        self.console.say(f"{self.path.name}: after {done} sweep{'s' * (done != 1)}")


class SoFar:
    """OUT/history.json with R of every sweep so far, at most once in two seconds, for `ptycho watch`."""

    def __init__(self, folder: Path) -> None:
        self._path, self._r, self._written = folder / "history.json", list[float](), time.monotonic()

    def __call__(self, now: IterationState) -> None:
        """Record a sweep; write the file if two seconds have passed."""
        self._r.append(now.r)
        if time.monotonic() - self._written < _SO_FAR_S:
            return
        from ptycho.cli.runs import write_json

        write_json(self._path, {"r_factor": self._r})
        self._written = time.monotonic()

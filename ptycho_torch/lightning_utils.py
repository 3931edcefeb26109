"""Which checkpoint of a run is the model."""

from __future__ import annotations

from pathlib import Path


def find_best_checkpoint(run_dir: str | Path) -> Path | None:
    """The best checkpoint under a run's folder, or None where there is none.

    The one that validated best; of several the newest; without one, the state after the last epoch.
    """
    folder = Path(run_dir)
    found = sorted(folder.rglob("*.ckpt"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    best = [path for path in found if path.name.startswith("best")]
    candidates = best or found
    return candidates[-1] if candidates else None

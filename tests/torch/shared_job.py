"""What each process of tests/torch/test_processes.py runs: small reconstructions, saved by the first."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from ptycho.simulation import Scenario, simulate
from ptycho_torch.processes import team_of_environment
from ptycho_torch.refine.engine import reconstruct
from ptycho_torch.refine.scan import make_scan

#: name -> options of a reconstruction; together they meet every sum that processes share
CASES = {
    "rpie": dict(epochs=4, levels=1),
    "lsqml": dict(rule="lsqml", epochs=3, levels=1),
    "raar": dict(rule="raar", epochs=4, levels=1),
    "raar with all": dict(rule="raar", epochs=3, levels=1, modes=2, background=True, intensity=True),
    "raar in search": dict(rule="raar", epochs=6, positions="free", position_search_px=1.0, levels=1),
    "adam": dict(rule="adam", epochs=3, levels=1, prior="none"),
    "two modes": dict(epochs=3, modes=2, background=True, levels=1),
    "intensity": dict(epochs=3, intensity=True, levels=1),
    "small batches": dict(epochs=2, batch_size=3, levels=1),
    "search": dict(epochs=14, positions="affine", position_search_px=2.0, position_decode="none", levels=1),
    "decode": dict(epochs=14, positions="free", position_search_px=2.0, position_belief="formula", levels=1),
    "network": dict(epochs=14, positions="free", position_search_px=2.0, position_belief="network", levels=1),
    "two levels": dict(epochs=4, levels=2, start="flat"),
}
#: cases that are stopped after two of four sweeps; a state is in single precision
RESUMED = ("rpie", "raar")


def scan_of(name: str, dtype=torch.complex128):
    """A scan of 40 patterns of 32 x 32."""
    raw = simulate(Scenario(N=32, n_positions=40, step_px=3.0, seed=3, photons=2e4)).raw
    places = np.stack([raw.xcoords, raw.ycoords], -1)
    if "search" in name or name in ("decode", "network"):
        places = places + np.random.default_rng(1).normal(0, 0.7, places.shape)
    return make_scan(raw.diff3d, places, raw.probeGuess, unit="counts", dtype=dtype)


def solve(name: str, team=None, dtype=torch.complex128, **more):
    """The reconstruction of a case."""
    return reconstruct(scan_of(name, dtype), seed=5, team=team, **(CASES[name] | more))


def save(made, path: Path) -> None:
    """What the tests compare."""
    np.savez(path, object=made.object, probe=made.probe, positions=made.positions_xy, r=made.r_map)


def stop(name: str, state: Path, team=None) -> None:
    """A run that stops after two sweeps and leaves its state."""
    solve(name, team, torch.complex64, checkpoint=state, callbacks=(lambda now: now.epoch == 2,))


def going_on(state: Path) -> dict[str, object]:
    """What `solve` takes to go on from a state."""
    return dict(dtype=torch.complex64, checkpoint=state, resume=True)


def main(folder: Path, *resumed: str) -> None:
    """Every case, then runs that stop after two sweeps and leave their states; or go on from such a state."""
    torch.set_num_threads(1)
    with team_of_environment() as team:
        last = team.rank == team.size - 1
        for name in resumed or CASES:
            made = solve(name, team, **(going_on(folder / f"{name}.safetensors") if resumed else {}))
            if last:
                save(made, folder / f"{name}.npz")
        for name in () if resumed else RESUMED:
            stop(name, folder / f"{name}.safetensors", team)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])

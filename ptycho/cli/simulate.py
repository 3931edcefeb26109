"""Simulate a scan with known truth: object, probe, positions, photons, Poisson noise, detector.

The file holds the scan (counts, positions, a wrong probe guess) and the truth (object_true, probe_true, roi).
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ptycho.cli.console import Console
from ptycho.cli.parser import Parser
from ptycho.cli.runs import add_overwrite, file_target

USAGE = "%(prog)s -o FILE [flags]"
HELP = "make a scan whose answer is known"

# Field of Scenario: its meaning. Names of objects, probes and scans are added from their registries.
MEANINGS = {
    "object": "what is imaged",
    "probe": "what illuminates it",
    "scan": "where the beam goes",
    "N": "side of a pattern, px, even",
    "n_positions": "number of patterns",
    "step_px": "side of the square that each position has on average, px",
    "jitter_px": "largest displacement of the jittered raster",
    "aspect": "width over height of the scan",
    "photons": "incident photons per pattern",
    "n_modes": "incoherent probe modes",
    "mode_decay": "power of a mode over that of the one before",
    "dead_fraction": "share of detector pixels that count nothing",
    "probe_error": "relative error of the probe guess",
    "amp_range": "lowest and highest amplitude of the object",
    "phase_range_rad": "lowest and highest phase of the object",
    "object_shape": "rows and columns of the object; default: what the scan needs",
    "seed": "of everything random",
}
_PAIRS: dict[str, type] = {"amp_range": float, "phase_range_rad": float, "object_shape": int}


def add_arguments(parser: Parser) -> None:
    """`-o FILE` and a flag for every field of Scenario."""
    from ptycho.simulation.objects import OBJECTS
    from ptycho.simulation.probes import PROBES
    from ptycho.simulation.scans import SCANS
    from ptycho.simulation.scenario import Scenario

    names: dict[str, Iterable[str]] = {"object": OBJECTS, "probe": PROBES, "scan": SCANS}
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE", help="scan to make")
    add_overwrite(parser)
    group = parser.add_argument_group("Scenario")
    for field in dataclasses.fields(Scenario):
        known = f": {', '.join(names[field.name])}" if field.name in names else ""
        pair = field.name in _PAIRS
        group.add_argument(
            f"--{field.name}",
            type=_PAIRS.get(field.name, type(field.default)),
            nargs=2 if pair else None,
            metavar=("A", "B") if pair else type(field.default).__name__.upper(),
            help=f"{MEANINGS[field.name]}{known} (default {field.default})",
        )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Simulate and write."""
    from ptycho.simulation.scenario import Scenario, simulate

    typed = {name: value for name, value in vars(arguments).items() if name in MEANINGS}
    chosen: dict[str, Any] = {name: tuple(v) if name in _PAIRS else v for name, v in typed.items()}
    scenario = Scenario(**chosen)
    scenario.validate()
    target = file_target(arguments.output, (".npz",), arguments)
    with console.progress("simulating") as progress:
        simulated = simulate(scenario, progress)
    simulated.to_npz(target)
    counts = float(simulated.raw.diff3d.sum(dtype=float)) / scenario.n_positions
    height, width = simulated.object_true.shape
    console.say(
        f"{target}: {scenario.n_positions} patterns of {scenario.N} x {scenario.N}, "
        f"{counts:.4g} counts each, object {height} x {width}"
    )
    return 0

"""Follow a run while it goes on: its state, the last losses, and the last picture.

OUT is the output folder of ptycho train, reconstruct, infer or demo, as another process writes it. A line is
printed whenever something new is there. It ends with the run, at Ctrl-C, or after --seconds; the run itself
is not touched.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from ptycho.cli.console import Console
from ptycho.cli.parser import Parser
from ptycho.errors import InputError

USAGE = "%(prog)s OUT [--every S] [--seconds S]"
HELP = "follow a run while it goes on"


def add_arguments(parser: Parser) -> None:
    """`OUT`, `--every`, `--seconds`."""
    add = parser.add_argument
    add("output", type=Path, metavar="OUT", help="output folder of the run")
    add("--every", type=float, default=1.0, metavar="S", help="look again after so long (default 1)")
    add("--seconds", type=float, metavar="S", help="end after so long (default: with the run)")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print what is new until the run ends; 1 where the run failed."""
    limits = {"--every": arguments.every, "--seconds": vars(arguments).get("seconds")}
    for flag, value in limits.items():
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"{flag} {value}: must be a number > 0")
    from ptycho.viewer.following import look, news

    seconds = limits["--seconds"]
    end = None if seconds is None else time.monotonic() + seconds
    seen = None
    while True:
        now = look(arguments.output)
        for line in news(seen, now):
            console.say(line)
        seen = now
        if now.ended or (end is not None and time.monotonic() >= end):
            return 1 if now.state == "failed" else 0
        console.stop.check()
        time.sleep(
            arguments.every if end is None else min(arguments.every, max(end - time.monotonic(), 0.01))
        )

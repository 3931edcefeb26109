"""Follow a run: its state, the last losses, and the last picture.

OUT is the output folder of ptycho train, reconstruct, infer or demo, while another process writes it. A line
is printed for each new result. --page also shows the curves and the newest picture on a local page; only this
machine can open it, with the full printed address. The command ends with the run, at Ctrl-C, or after
--seconds; it does not affect the run.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from ptycho.cli.console import Console
from ptycho.cli.parser import Parser
from ptycho.errors import InputError

USAGE = "%(prog)s OUT [--page] [--port N] [--open] [--every S] [--seconds S]"
HELP = "follow a run while it goes on"

_LAST_LOOK_S = 5.0


def add_arguments(parser: Parser) -> None:
    """`OUT`, `--page`, `--port`, `--open`, `--every`, `--seconds`."""
    add = parser.add_argument
    add("output", type=Path, metavar="OUT", help="output folder of the run")
    add("--page", action="store_true", default=False, help="show it on a local page too")
    add("--port", type=int, default=0, metavar="N", help="port of the page (default: any that is free)")
    add("--open", action="store_true", default=False, help="open the page in a browser")
    add("--every", type=float, default=1.0, metavar="S", help="look again after so long (default 1)")
    add("--seconds", type=float, metavar="S", help="end after so long (default: with the run)")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Print what is new until the run ends; 1 where the run failed."""
    limits = {"--every": arguments.every, "--seconds": vars(arguments).get("seconds")}
    for flag, value in limits.items():
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"{flag} {value}: must be a number > 0")
    if (arguments.port or arguments.open) and not arguments.page:
        raise InputError("--port and --open belong to the page; add --page")
    if not arguments.page:
        return _follow(arguments, console)
    from ptycho.cli.view import open_page
    from ptycho.viewer.following import look
    from ptycho.viewer.live import live_routes

    look(arguments.output)  # raises for a path that is not a folder, before an address is printed
    with open_page(live_routes(arguments.output, arguments.every), arguments, console):
        code = _follow(arguments, console)
        # the page keeps its contents and asks again later
        _wait(min(2 * arguments.every, _LAST_LOOK_S), console)
        return code


def _follow(arguments: argparse.Namespace, console: Console) -> int:
    from ptycho.viewer.following import look, news

    seconds: float | None = vars(arguments).get("seconds")
    end = None if seconds is None else time.monotonic() + seconds
    seen = None
    while True:
        now = look(arguments.output)
        for line in news(seen, now):
            console.say(line)
        seen = now
        if now.ended or (end is not None and time.monotonic() >= end):
            return 1 if now.state == "failed" else 0
        _wait(
            arguments.every if end is None else min(arguments.every, max(end - time.monotonic(), 0.01)),
            console,
        )


def _wait(seconds: float, console: Console) -> None:
    """Sleep; Ctrl-C ends it within a tenth of a second."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        console.stop.check()
        time.sleep(min(left, 0.1))

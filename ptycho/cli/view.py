"""Show a scan and its image on a local page.

WHAT is the output folder of a run, a scan file, or an image file. The page shows patterns beside their
positions, the mean pattern, on which bad pixels can be drawn and saved, and the image: zoom, values along a
line, amplitude, phase, both as one colour, R of every pattern, and a pattern where you click, measured and
predicted.

Only this machine can open the page, and only with the whole address that is printed. It lasts until Ctrl-C,
or for --seconds. From another machine: ssh -L PORT:127.0.0.1:PORT HOST, with --port PORT.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ptycho.cli.console import Console
from ptycho.cli.parser import Parser
from ptycho.errors import InputError

if TYPE_CHECKING:
    from ptycho.viewer.server import Routes

USAGE = "%(prog)s WHAT [--data SCAN] [--mask FILE] [--port N] [--seconds S] [--open]"
HELP = "look at a scan and its image on a local page"


def add_arguments(parser: Parser) -> None:
    """`WHAT`, `--data`, `--mask`, `--port`, `--seconds`, `--open`."""
    add = parser.add_argument
    add("what", type=Path, metavar="WHAT", help="output folder of a run, scan file or image file")
    add("--data", type=Path, metavar="SCAN", help="scan of the run or image, where none is named")
    add(
        "--mask",
        type=Path,
        default=Path("bad_pixels.npz"),
        metavar="FILE",
        help="where drawn bad pixels are saved; a new name where it exists (default bad_pixels.npz)",
    )
    add("--port", type=int, default=0, metavar="N", help="port of the page (default: any that is free)")
    add("--seconds", type=float, metavar="S", help="end by itself after so long (default: at Ctrl-C)")
    add("--open", action="store_true", default=False, help="open the page in a browser")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Serve the page until Ctrl-C or the time limit."""
    seconds: float | None = vars(arguments).get("seconds")
    if seconds is not None and not 0 < seconds < float("inf"):
        raise InputError(f"--seconds {seconds}: must be a number > 0")
    from ptycho.io.masks import check_mask_target
    from ptycho.viewer.routes import routes_of
    from ptycho.viewer.shown import open_shown

    _check_port(arguments.port)
    check_mask_target(arguments.mask, overwrite=True)  # an existing file is kept: the mask gets a new name
    shown = open_shown(arguments.what, vars(arguments).get("data"))
    for note in shown.notes:
        console.warn(note)
    for line in shown.frame_lines():
        console.say(f"frames     {line}")
    with open_page(routes_of(shown, arguments.mask), arguments, console):
        if seconds is None:
            console.say("Ctrl-C ends it")
        end = None if seconds is None else time.monotonic() + seconds
        while end is None or time.monotonic() < end:
            console.stop.check()
            time.sleep(0.1)
    return 0


@contextmanager
def open_page(routes: Routes, arguments: argparse.Namespace, console: Console) -> Iterator[None]:
    """Serve these routes for the time of a `with` on `arguments.port`, say the address, `arguments.open` it.

    InputError if the port is in use or not a valid number.
    """
    from ptycho.viewer.server import serving

    _check_port(arguments.port)
    with ExitStack() as stack:
        try:
            address = stack.enter_context(serving(routes, arguments.port))
        except OSError as error:
            raise InputError(
                f"port {arguments.port} cannot be used: {error.strerror}; leave --port out"
            ) from None
        console.say(f"page       {address}")
        if arguments.open:
            import webbrowser

            webbrowser.open(address)
        yield


def _check_port(port: int) -> None:
    if not 0 <= port < 65536:
        raise InputError(f"--port {port}: must lie between 0 and 65535; 0: any that is free")

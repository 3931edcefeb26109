"""`ptycho_experiment`: the older name of `ptycho sweep`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ptycho.cli.main import run_command
from ptycho.cli.threads import settle_threads

PROG = "ptycho_experiment"


def main(argv: Sequence[str] | None = None) -> int:
    """`ptycho_experiment`: the same as `ptycho sweep`."""
    return run_command("sweep", list(sys.argv[1:] if argv is None else argv), prog=PROG)


def console_main() -> None:
    """Entry point of the installed `ptycho_experiment`."""
    settle_threads(os.environ)
    sys.exit(main())

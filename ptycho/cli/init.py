"""Write a commented YAML file of the main settings, with values for a scan; or a schema for editors.

FILE is the scan that the settings are for; without one the values are the defaults.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ptycho.cli.console import Console
from ptycho.cli.parser import Parser
from ptycho.errors import InputError

USAGE = "%(prog)s [FILE] [-o SETTINGS.yaml] [--schema]"
HELP = "write a commented settings file for a scan"


def add_arguments(parser: Parser) -> None:
    """The scan, the file to write, `--schema`."""
    parser.add_argument("file", nargs="?", type=Path, default=None, metavar="FILE", help="scan file")
    parser.add_argument(
        "-o", "--output", type=Path, default=None, metavar="SETTINGS.yaml",
        help="file to write (default: print it)",
    )  # fmt: skip
    parser.add_argument(
        "--schema", action="store_true", default=False, help="write a JSON schema of every key instead"
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Read the scan; write or print the settings."""
    from ptycho.config.template import ScanFacts, json_schema, template
    from ptycho.io.targets import check_new

    target: Path | None = arguments.output
    if target is not None:
        check_new(target)
        if not target.parent.is_dir():
            raise InputError(f"{target}: the folder {target.parent} does not exist; make it first")
    if arguments.schema:
        text = json.dumps(json_schema(), indent=1) + "\n"
    elif arguments.file is None:
        text = template()
    else:
        from ptycho.cli.runs import read_scan

        raw = read_scan(arguments.file, None)
        text = template(
            ScanFacts(
                arguments.file, raw.N, raw.n_positions, str(raw.diffraction_unit), raw.object_pixel_size_m
            )
        )
    if target is None:
        console.say(text.rstrip("\n"))
        return 0
    from ptycho.io.atomic import atomic_write

    with atomic_write(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    console.say(f"{target}: next: ptycho train --config {target}")
    return 0

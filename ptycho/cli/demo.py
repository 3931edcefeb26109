"""Run the whole workflow in minutes: simulate two scans, make three images of each, judge them, show them.

The three: the iterative engine, the network as it ships, and a network trained here on the diffraction of
the first scan. It has never seen the second. methods.png shows the images beside the truth; demo.json has the
numbers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ptycho.cli import infer, reconstruct
from ptycho.cli.console import Console
from ptycho.cli.parser import Parser, build_parser
from ptycho.cli.recording import begin_record, open_output, recorded
from ptycho.cli.runs import add_overwrite, quiet_tensorflow
from ptycho.config.settings import BACKENDS
from ptycho.errors import InputError

HELP = "simulate, train, reconstruct and judge, in minutes"

_INNER = {"reconstruct": reconstruct, "infer": infer}


def add_arguments(parser: Parser) -> None:
    """`--output_dir`, `--seed`, `--backend`, `--quick`."""
    parser.add_argument(
        "-o", "--output_dir", type=Path, default=Path("demo_out"), help="folder to write (default demo_out)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="INT", help="of everything random (default 0)")
    parser.add_argument(
        "--backend", choices=BACKENDS, default="pytorch", help="what runs the network (default pytorch)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        default=False,
        help="a smaller scan; two epochs from the network that ships",
    )
    add_overwrite(parser)


@recorded
def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run the demonstration and print its figures."""
    if arguments.seed < 0:
        raise InputError(f"--seed {arguments.seed}: must be an integer >= 0")
    output = open_output(console, arguments, arguments.output_dir, "demo", inputs=())
    begin_record(console, arguments, inputs={}, seeds={"seed": arguments.seed})

    if arguments.backend == "tensorflow":
        quiet_tensorflow()

    from ptycho.workflows.demo import SCANS, compare_methods, run_demo

    with console.phases("simulating") as phase:
        run_demo(
            output,
            seed=arguments.seed,
            quick=arguments.quick,
            backend=arguments.backend,
            phase=phase,
        )
        for scan in SCANS:
            for words in _others(arguments, output, scan):
                phase(f"ptycho {words[0]} on {scan.replace('_', ' ')}")
                if code := _run_inner(words, console):
                    return code
    judged = compare_methods(output)
    for scan, methods in judged.items():
        console.say(f"{scan.replace('_', ' '):<22}  cNRMSE   FRC50")
        for method, one in methods.items():
            console.say(f"  {method:<20}  {one.nrmse:.4f}   {one.frc50:.3f}")
    console.say(f"pictures   {output / 'methods.png'}")
    return 0


def _others(arguments: argparse.Namespace, output: Path, scan: str) -> list[list[str]]:
    """The commands, as a user types them, that make the images of the engine and of the shipped network."""
    file, again = str(output / f"{scan}.npz"), ["--overwrite"] if arguments.overwrite else []
    engine = ["reconstruct", file, "-o", str(output / f"{scan}_engine"), *again]
    ships = ["infer", file, "-o", str(output / f"{scan}_shipped"), "--backend", arguments.backend, *again]
    return [engine, ships]


def _run_inner(words: list[str], console: Console) -> int:
    """Run another command inside this one, without its lines; its folder has its own record and page."""
    command = _INNER[words[0]]
    inner = Console(f"ptycho {words[0]}", quiet=True, debug=console.debug)
    inner.words, inner.inner, inner.stop = words, True, console.stop
    return int(command.run(build_parser(command, inner.prog).read(words[1:]), inner) or 0)

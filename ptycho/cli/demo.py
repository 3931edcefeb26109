"""Run the whole workflow in minutes: simulate a scan, train on its diffraction alone, reconstruct, judge,
show.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ptycho.cli.console import Console
from ptycho.cli.judging import judged_lines
from ptycho.cli.parser import Parser
from ptycho.cli.recording import begin_record, open_output, recorded
from ptycho.cli.runs import add_overwrite, quiet_tensorflow
from ptycho.config.settings import BACKENDS
from ptycho.errors import InputError

HELP = "simulate, train, reconstruct and judge, in minutes"


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

    from ptycho.workflows.demo import run_demo

    with console.phases("simulating") as phase:
        metrics = run_demo(
            output,
            seed=arguments.seed,
            quick=arguments.quick,
            backend=arguments.backend,
            phase=phase,
        )
    for name, numbers in metrics.items():
        if isinstance(numbers, dict):
            console.say(name.replace("_", " "))
            for line in judged_lines(numbers):
                console.say(f"  {line}")
    console.say(f"pictures   {output}")
    return 0

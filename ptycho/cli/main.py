"""Selects the command and the exit code.

0 done; 1 the run failed; 2 the command line or the input cannot be used; 130 interrupted by Ctrl-C, 143 by
SIGTERM.  A command is a module with `HELP`, `add_arguments(parser)`, `run(arguments, console)` and, if the
usage of argparse would be too long, `USAGE`. It is imported to build its flags. It imports computing modules
only inside `run`, so that `--help` stays fast.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from types import ModuleType

from ptycho.cli import (
    batch,
    compare,
    compress,
    demo,
    evaluate,
    export,
    import_scan,
    infer,
    info,
    init,
    parity,
    reconstruct,
    report,
    simulate,
    sweep,
    train,
    validate,
    view,
    watch,
)
from ptycho.cli.console import Console
from ptycho.cli.failures import end_of
from ptycho.cli.parser import ALIKE, UsageError, build_parser
from ptycho.cli.processes import first_process_ends, rank
from ptycho.cli.signals import stoppable
from ptycho.cli.threads import settle_threads

#: the commands, in the order in which a user needs them
COMMANDS: dict[str, ModuleType] = {
    "demo": demo, "simulate": simulate,
    "import": import_scan, "validate": validate, "compress": compress,
    "init": init, "train": train, "infer": infer,
    "reconstruct": reconstruct, "batch": batch, "evaluate": evaluate, "compare": compare, "report": report,
    "view": view, "watch": watch, "sweep": sweep,
    "parity": parity, "export": export, "info": info,
}  # fmt: skip

DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run `ptycho COMMAND ...` and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if not words or words[0] in ("-h", "--help"):
            print(overview())
            return DONE if words else REFUSED
        if words[0] == "--version":
            from ptycho import __version__

            print(f"ptychopinn {__version__}")
            return DONE
        if words[0] == "--print-completion":
            from ptycho.cli.completion import script

            print(script(words[1:], {name: load_command(name) for name in COMMANDS}))
            return DONE
        if words[0] not in COMMANDS:
            near = get_close_matches(words[0], COMMANDS, n=1, cutoff=ALIKE)
            kind = "flag" if words[0].startswith("-") else "command"
            nearest = f"; nearest command: {near[0]}" if near else ""
            raise UsageError(f"unknown {kind} {words[0]!r}{nearest}; see ptycho --help")
    except UsageError as error:
        Console("ptycho").error(str(error))
        return REFUSED
    return run_command(words[0], words[1:], prog=f"ptycho {words[0]}")


def train_main(argv: Sequence[str] | None = None) -> int:
    """`ptycho_train`: the same as `ptycho train`."""
    return run_command("train", list(sys.argv[1:] if argv is None else argv), prog="ptycho_train")


def inference_main(argv: Sequence[str] | None = None) -> int:
    """`ptycho_inference`: the same as `ptycho infer`."""
    return run_command("infer", list(sys.argv[1:] if argv is None else argv), prog="ptycho_inference")


def run_command(name: str, argv: Sequence[str], *, prog: str) -> int:
    """Parse and run one command; every failure becomes one line on stderr and an exit code."""
    # Read from the raw words: with --debug a command line that does not parse must give a traceback too.
    console = Console(prog, quiet="--quiet" in argv or rank() > 0, debug="--debug" in argv)
    console.words = [name, *argv]
    with stoppable() as stop:
        console.stop = stop
        try:
            with console.speaking():
                command = load_command(name)
                arguments = build_parser(command, prog).read(argv)
                console.debug = getattr(arguments, "debug", False)
                code = int(command.run(arguments, console) or DONE)
            if code == INTERRUPTED:
                return stop.exit_code
            return code or _heard(console)
        except KeyboardInterrupt:
            if rank() == 0:
                console.interrupted()
            return stop.exit_code
        except SystemExit as end:
            # Lightning turns Ctrl-C into an exit of its own.
            if isinstance(end.__context__, KeyboardInterrupt):
                if rank() == 0:
                    console.interrupted()
                return stop.exit_code
            return end.code if isinstance(end.code, int) else DONE
        except Exception as error:
            return _fail(console, *end_of(error, debug=console.debug))


def _heard(console: Console) -> int:
    """The exit code of a finished command. Its files are written, but printed lines may be lost."""
    if console.lost is None or console.output is not None:
        return DONE
    # The reader of the output has ended (`| head`): no message can reach it.
    if not isinstance(console.lost, BrokenPipeError):
        reason = getattr(console.lost, "strerror", None) or str(console.lost)
        console.error(f"cannot write the result to stdout: {reason}; send it to another place")
    return FAILED


def _fail(console: Console, message: str, code: int) -> int:
    if console.debug:
        traceback.print_exc()
    # an error that all processes raise is printed by the first one only
    if code != REFUSED or not first_process_ends():
        console.error(message)
    return code


def load_command(name: str) -> ModuleType:
    """The module of a command."""
    return COMMANDS[name]


_MORE = (
    "ptycho COMMAND --help shows the everyday flags, --help-all every flag; ptycho --version the version.",
    "ptycho --print-completion bash|zsh prints what makes the shell complete commands and flags.",
)


def overview() -> str:
    """The page of `ptycho --help`."""
    lines = ["usage: ptycho COMMAND [...]", "", "Ptychography with physics-informed networks.", ""]
    lines += [f"  {name:<12} {load_command(name).HELP}" for name in COMMANDS]
    return "\n".join([*lines, "", *_MORE])


def console_main() -> None:
    """Entry point of the installed `ptycho`."""
    settle_threads(os.environ)
    sys.exit(main())


def console_train() -> None:
    """Entry point of the installed `ptycho_train`."""
    settle_threads(os.environ)
    sys.exit(train_main())


def console_inference() -> None:
    """Entry point of the installed `ptycho_inference`."""
    settle_threads(os.environ)
    sys.exit(inference_main())

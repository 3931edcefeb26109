"""The record `provenance.json` of every command with an output folder, and the page of a finished run.

A `recorded` command calls `open_output` after all checks, and then `begin_record`. Its end is always
recorded, also after an error. If a command is refused later, the folder keeps its earlier contents.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho.cli.console import Console
from ptycho.cli.processes import rank
from ptycho.cli.runs import prepare_folder
from ptycho.cli.signals import Terminated
from ptycho.errors import InputError, PtychoError, RunError

if TYPE_CHECKING:
    from ptycho.scan.findings import Finding

Command = Callable[[argparse.Namespace, Console], int]
REPORT = "report.html"
_INTERRUPTED = 130
_JUDGED = ("good", "doubt", "bad", "none")


def recorded(run: Command) -> Command:
    """Complete the record of a command in console.output, and draw the page of a run that is done."""

    @wraps(run)
    def recording(arguments: argparse.Namespace, console: Console) -> int:
        try:
            code = run(arguments, console)
        except BaseException as error:
            _finish(console, *end_of(error))
            if console.folder is not None and isinstance(error, InputError):
                console.folder.refused()
                console.output = None
            raise
        else:
            states = {0: "done", _INTERRUPTED: "interrupted"}
            if _finish(console, states.get(code or 0, "failed"), None) and not code:
                _draw(console)
            if not code and _is_gone(console):
                raise RunError(f"{console.output} was removed while the command ran; run it again")
            return code
        finally:
            if console.folder is not None:
                console.folder.close()
                console.folder = None

    return recording


def open_output(
    console: Console,
    arguments: argparse.Namespace,
    folder: Path,
    kind: str,
    *,
    inputs: Iterable[Path | None],
    resumes: bool = False,
) -> Path:
    """Make, lock and clear the output folder of a command, `console.output` from now on.

    See `ptycho.run.folder`. Of several processes of one run only the first does more than make it. Raises
    InputError.
    """
    from ptycho.run.folder import OutputFolder

    if rank() == 0:
        overwrite = bool(vars(arguments).get("overwrite"))
        console.folder = OutputFolder(folder, kind, inputs=inputs, overwrite=overwrite, resumes=resumes)
    else:
        prepare_folder(folder)
    console.output, console.kind = folder, kind
    return folder


def begin_record(
    console: Console,
    arguments: argparse.Namespace,
    *,
    inputs: Mapping[str, Path | None],
    seeds: Mapping[str, int | None],
    device: str | None = None,
    findings: Sequence[Finding] = (),
    settings: Mapping[str, Any] | None = None,
    skipped: Mapping[str, Any] | None = None,
) -> None:
    """Write the record of a run into console.output, state `running`.

    findings: what the checks of the scans found. settings: what the weights of a training depend on.
    skipped: scan file -> the frames that were left out. inputs: role -> file, the scan of the product as
    `scan` (or `test`, `train`); a model's folder stands for the bundle in it.
    """
    from ptycho.models.bundle import BUNDLE_NAME
    from ptycho.run.provenance import begin

    assert console.output is not None, "the output folder must stand before its record"
    if rank():
        return
    files = {role: _bundle_in(path, BUNDLE_NAME) for role, path in inputs.items()}
    # `python -m ptycho.cli` leaves the name of a file in argv[0] that nobody typed.
    typed = sys.orig_argv if Path(sys.argv[0]).name == "__main__.py" else sys.argv
    if console.inner:
        typed = ["ptycho", *console.words]
    begin(
        console.output,
        command=typed,
        inputs=files,
        seeds=seeds,
        device=device,
        arguments=vars(arguments),
        kind=console.kind,
        findings=[found.as_dict() for found in findings],
        settings=settings,
        skipped=skipped,
    )


def _bundle_in(path: Path | None, name: str) -> Path | None:
    return path / name if path is not None and (path / name).is_file() else path


def end_of(error: BaseException) -> tuple[str, str | None]:
    """State and message after an exception; Lightning turns Ctrl-C into SystemExit."""
    if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
        # Lightning's exit has no message; the exception that caused it has one.
        cause = error if isinstance(error, KeyboardInterrupt) else error.__context__
        return "interrupted", f"stopped by {cause}" if isinstance(cause, Terminated) else None
    if isinstance(error, SystemExit) and not error.code:
        return "done", None
    if isinstance(error, PtychoError):
        return "failed", str(error)
    return "failed", f"{type(error).__name__}: {error}".rstrip(": ")


@contextmanager
def on_record(folder: Path, **begun: Any) -> Iterator[None]:
    """The record of a run in this folder, for the time of a `with`: begun, and completed whatever the end is.

    For commands of several runs; `recorded` serves those of one. begun: as `ptycho.run.provenance.begin`.
    """
    from ptycho.run import provenance

    provenance.begin(folder, **begun)
    try:
        yield
    except BaseException as error:
        state, message = end_of(error)
        provenance.finish(folder, state, error=message)
        raise
    provenance.finish(folder, "done")


def _is_gone(console: Console) -> bool:
    """Whether the record of this command was deleted from the folder, perhaps together with its products."""
    from ptycho.run.provenance import PROVENANCE_NAME

    if console.folder is None or console.output is None:
        return False
    return not (console.output / PROVENANCE_NAME).is_file()


def _finish(console: Console, state: str, error: str | None) -> bool:
    """Complete the record; False if there is none. A full disk must not hide the result of the run itself."""
    from ptycho.run.provenance import finish, read

    if rank() or console.output is None or not console.output.is_dir():
        return False
    try:
        finish(console.output, state, error=error)
        return read(console.output) is not None
    except (PtychoError, OSError) as trouble:
        console.warn(f"provenance.json was not completed: {trouble}")
        return False


def _draw(console: Console) -> None:
    from ptycho.report.html import build_views, write_page

    assert console.output is not None
    # The run has already printed the findings about the scan.
    logger = logging.getLogger("ptycho")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        views = build_views([console.output], described=console.described)
        write_page(console.output / REPORT, views)
        if views[0].verdict.level in _JUDGED:
            console.say(f"verdict      {views[0].verdict.word}. {views[0].verdict.reason}")
    except Exception as error:
        # The run is complete. A failed page is reported; `ptycho report` can draw it later.
        console.warn(f"{REPORT} was not written: {error}; try ptycho report {console.output}")
    finally:
        logger.setLevel(level)

"""Everything a command shows: results on stdout, progress, warnings and the log on stderr."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho.cli.signals import Stop

if TYPE_CHECKING:
    from ptycho.run.folder import OutputFolder

# (done, total), and for a training the epoch's metrics by name, which are shown beside the bar.
Progress = Callable[..., None]

LAST_CHECKPOINTS = (Path("checkpoints") / "last.ckpt", Path("checkpoints") / "last.safetensors")
_OWN_LOGGERS = ("ptycho", "ptycho_torch")
_CHATTY_LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric", "pytorch_lightning")


class Console:
    """One command's voice; `quiet` silences all but errors, `debug` adds the debug log and tracebacks.

    `output` is the folder a command writes to, so that an interrupted one can say what it leaves there.
    """

    def __init__(self, prog: str, *, quiet: bool = False, debug: bool = False) -> None:
        self.prog = prog
        self.quiet = quiet
        self.debug = debug
        #: the command and its words, as typed
        self.words: list[str] = []
        self.output: Path | None = None
        self.kind: str | None = None
        self.folder: OutputFolder | None = None
        self.stop = Stop()
        #: why a line of the result could not be printed
        self.lost: Exception | None = None

    def say(self, text: str = "") -> None:
        """A line of the result, exactly as given."""
        if not self.quiet:
            self._put(text)

    def show(self, renderable: Any) -> None:
        """A rich table or panel."""
        if not self.quiet:
            from rich.console import Console as RichConsole

            drawn, terminal = io.StringIO(), sys.stdout is not None and sys.stdout.isatty()
            width = shutil.get_terminal_size().columns
            rich = RichConsole(
                file=drawn, width=width, force_terminal=terminal, highlight=False, soft_wrap=False
            )
            rich.print(renderable)
            self._put(drawn.getvalue().rstrip("\n"))

    def _put(self, text: str) -> None:
        """A line on stdout. Where it cannot be written, what was measured is still on disk: the run goes on,
        and `lost` says why."""
        if sys.stdout is None:
            self.lost = OSError("stdout is closed")
            return
        try:
            print(_printable(text, sys.stdout), flush=True)
        except (OSError, ValueError) as error:
            self.lost = error
            # what waits in the buffer must not fail once more when Python ends
            with contextlib.suppress(OSError, ValueError, AttributeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _tell(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            if sys.stderr is not None:
                print(_printable(text, sys.stderr), file=sys.stderr)

    def warn(self, text: str) -> None:
        """One line on stderr, unless quiet."""
        if not self.quiet:
            self._tell(f"{self.prog}: warning: {_one_line(text)}")

    def error(self, text: str) -> None:
        """One line on stderr, always."""
        self._tell(f"{self.prog}: error: {_one_line(text)}")

    def interrupted(self) -> None:
        """The line after Ctrl-C or SIGTERM: what is on disk, and how a training goes on."""
        output = self.output
        found = output.iterdir() if output and output.is_dir() else ()
        names = sorted(path.name for path in found if not path.name.startswith("."))
        kept = f"{output} keeps {', '.join(names)}" if names else "nothing was written"
        last = [output / name for name in LAST_CHECKPOINTS] if output else []
        command = "ptycho train " if self.prog == "ptycho_experiment" else ""
        more = f"; go on with {command}--resume {output}" if any(map(_is_file, last)) else ""
        self._tell(f"\n{self.prog}: interrupted; {kept}{more}")

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        """A bar on stderr, for the time of a `with`; without a terminal, or quiet, nothing is drawn."""
        if self.quiet or sys.stderr is None or not sys.stderr.isatty():
            yield lambda done, total, metrics=None: self.stop.check()
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        shown = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        columns = (*shown, TextColumn("{task.fields[note]}"))
        with RichProgress(*columns, console=RichConsole(stderr=True), transient=True) as bar:
            task = bar.add_task(title, total=None, note="")

            def update(done: int, total: int, metrics: Mapping[str, float] | None = None) -> None:
                note = "  ".join(f"{name} {value:.4g}" for name, value in (metrics or {}).items())
                self.stop.check()
                bar.update(task, completed=done, total=total, note=note)

            yield update

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Let the library's log and warnings through this console; everything is put back afterwards."""
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(f"{self.prog}: %(message)s"))
        level = logging.DEBUG if self.debug else logging.ERROR if self.quiet else logging.INFO
        own = [logging.getLogger(name) for name in _OWN_LOGGERS]
        chatty = [] if self.debug else [logging.getLogger(name) for name in _CHATTY_LOGGERS]
        before = [(logger, logger.level) for logger in (*own, *chatty)]
        for logger in own:
            logger.addHandler(handler)
            logger.setLevel(level)
        for logger in chatty:
            logger.setLevel(logging.ERROR)
        try:
            with warnings.catch_warnings():
                if not self.debug:
                    warnings.filterwarnings("ignore", module=r"(lightning|torch)(\.|$)")
                    warnings.showwarning = lambda message, *_, **__: self.warn(str(message))
                yield
        finally:
            for logger, old in before:
                logger.setLevel(old)
            for logger in own:
                logger.removeHandler(handler)


def _is_file(path: Path) -> bool:
    return path.is_file()


def _printable(text: str, stream: Any) -> str:
    """The text as the stream can show it: a name that is no valid text gets its odd bytes spelled."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding, "replace")


def _one_line(text: str) -> str:
    """Without line breaks; a name of thousands of letters without its middle."""
    return " ".join(word if len(word) <= 400 else f"{word[:90]}...{word[-90:]}" for word in text.split())

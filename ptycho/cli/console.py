"""Everything a command shows: results on stdout, progress, warnings and the log on stderr."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho.cli import bars
from ptycho.cli.bars import Phase, Progress
from ptycho.cli.signals import Stop

if TYPE_CHECKING:
    from ptycho.run.folder import OutputFolder
    from ptycho.scan.report import ScanReport

LAST_CHECKPOINTS = (Path("checkpoints") / "last.ckpt", Path("checkpoints") / "last.safetensors")
_OWN_LOGGERS = ("ptycho", "ptycho_torch")
_FOR_THE_FILE = ("ptycho.run.objective_log", "ptycho.run.observers")
_CHATTY_LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric", "pytorch_lightning")


class Console:
    """The output of one command; `quiet` hides all but errors, `debug` adds the debug log and tracebacks.

    `output` is the folder a command writes to, so that an interrupted one can say what it leaves there.
    """

    def __init__(self, prog: str, *, quiet: bool = False, debug: bool = False) -> None:
        self.prog = prog
        self.quiet = quiet
        self.debug = debug
        #: the command and its words, as typed
        self.words: list[str] = []
        #: whether another command runs this one: its words were not typed
        self.inner = False
        self.output: Path | None = None
        self.kind: str | None = None
        #: how an interrupted run goes on, where that is not `ptycho train --resume`
        self.goes_on: str | None = None
        self.folder: OutputFolder | None = None
        self.stop = Stop()
        #: results of the checks of the scans, by the full path of the file
        self.described: dict[Path, ScanReport] = {}
        #: why a line of the result could not be printed
        self.lost: Exception | None = None
        self._rich: Any = None

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
        """Write a line to stdout. If this fails, the results are still on disk: the run continues, and `lost`
        gives the reason.
        """
        if sys.stdout is None:
            self.lost = OSError("stdout is closed")
            return
        try:
            print(_printable(text, sys.stdout), flush=True)
        except (OSError, ValueError) as error:
            self.lost = error
            # the text left in the buffer must not fail again when Python ends
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
        """Print the line after Ctrl-C or SIGTERM: what is on disk, and how to continue a training."""
        output = self.output
        found = output.iterdir() if output and output.is_dir() else ()
        names = sorted(path.name for path in found if not path.name.startswith("."))
        kept = f"{output} keeps {', '.join(names)}" if names else "nothing was written"
        last = [output / name for name in LAST_CHECKPOINTS] if output else []
        command = "ptycho train " if self.prog in ("ptycho_experiment", "ptycho sweep") else ""
        how = self.goes_on or f"go on with {command}--resume {output}"
        more = f"; {how}" if any(map(_is_file, last)) else ""
        self._tell(f"\n{self.prog}: interrupted; {kept}{more}")

    @property
    def on_terminal(self) -> bool:
        """Whether stderr is a terminal."""
        return sys.stderr is not None and sys.stderr.isatty()

    @property
    def rich(self) -> Any:
        """The one rich console of stderr, on which bars and log lines share the screen."""
        if self._rich is None:
            from rich.console import Console as RichConsole

            self._rich = RichConsole(stderr=True, highlight=False)
        return self._rich

    @contextmanager
    def phases(self, first: str = "preparing") -> Iterator[Phase]:
        """Progress bars on stderr by phase, inside a `with` block; the phase reported last is shown.

        Without a terminal: one line per minute. With `quiet`: nothing.
        """
        if self.quiet:
            chosen = bars.no_output(self.stop.check)
        elif self.on_terminal:
            chosen = bars.terminal_bars(self.rich, self.stop.check)
        else:
            chosen = bars.text_lines(lambda text: self._tell(f"{self.prog}: {text}"), self.stop.check)
        with chosen as phase:
            phase(first)
            yield phase

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        """As `phases`, for one phase."""
        with self.phases(title) as phase:
            yield phase(title)

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Send the library's log and warnings to this console; restore the earlier settings afterwards."""
        handler = _Lines(self)
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


class _Lines(logging.Handler):
    """Log lines on stderr: above the bar on a terminal; elsewhere warnings only, unless debug was asked for.

    The line that names the objective goes to the log file only.
    """

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._by_rich: Any = None

    def emit(self, record: logging.LogRecord) -> None:
        """Show the record above the bar or on stderr."""
        console = self._console
        told = record.levelno >= logging.WARNING or console.debug
        if not told and (record.name in _FOR_THE_FILE or not console.on_terminal):
            return
        if not console.on_terminal:
            console._tell(f"{console.prog}: {record.getMessage()}")
            return
        if self._by_rich is None:
            from rich.logging import RichHandler

            self._by_rich = RichHandler(
                console=console.rich, show_time=False, show_level=False, show_path=False, markup=False
            )
            self._by_rich.setFormatter(logging.Formatter(f"{console.prog}: %(message)s"))
        self._by_rich.emit(record)


def _is_file(path: Path) -> bool:
    return path.is_file()


def _printable(text: str, stream: Any) -> str:
    """The text as the stream can show it: bytes that are not valid text are written as escapes."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding, "replace")


def _one_line(text: str) -> str:
    """The text without line breaks; a very long text loses its middle."""
    return " ".join(word if len(word) <= 400 else f"{word[:90]}...{word[-90:]}" for word in text.split())

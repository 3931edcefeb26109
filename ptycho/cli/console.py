"""Everything a command shows: results on stdout, progress, warnings and the log on stderr."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# (done, total), and for a training the epoch's metrics by name, which are shown beside the bar.
Progress = Callable[..., None]

LAST_CHECKPOINT = Path("checkpoints") / "last.ckpt"
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
        self.output: Path | None = None

    def say(self, text: str = "") -> None:
        """A line of the result, exactly as given."""
        if not self.quiet:
            print(text)

    def show(self, renderable: Any) -> None:
        """A rich table or panel."""
        if not self.quiet:
            from rich.console import Console as RichConsole

            RichConsole(highlight=False, soft_wrap=False).print(renderable)

    def warn(self, text: str) -> None:
        """One line on stderr, unless quiet."""
        if not self.quiet:
            print(f"{self.prog}: warning: {_one_line(text)}", file=sys.stderr)

    def error(self, text: str) -> None:
        """One line on stderr, always."""
        print(f"{self.prog}: error: {_one_line(text)}", file=sys.stderr)

    def interrupted(self) -> None:
        """The line after Ctrl-C: what is on disk, and how a training goes on."""
        output = self.output
        names = sorted(path.name for path in output.iterdir()) if output and output.is_dir() else []
        kept = f"{output} keeps {', '.join(names)}" if names else "nothing was written"
        last = output / LAST_CHECKPOINT if output else None
        more = f"; go on with --resume {output}" if last and last.is_file() else ""
        print(f"\n{self.prog}: interrupted; {kept}{more}", file=sys.stderr)

    @contextmanager
    def progress(self, title: str) -> Iterator[Progress]:
        """A bar on stderr, for the time of a `with`; without a terminal, or quiet, nothing is drawn."""
        if self.quiet or not sys.stderr.isatty():
            yield lambda done, total, metrics=None: None
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


def _one_line(text: str) -> str:
    return " ".join(text.split())

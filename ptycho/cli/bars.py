"""Progress bars of named phases on a terminal; without a terminal, one line per minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

# (done, total) and, for a training, the epoch's metrics by name; one of them is shown beside the bar
Progress = Callable[..., None]
Phase = Callable[[str], Progress]

#: seconds between two lines of a run without a terminal
HEARTBEAT_S = 60.0


class Best:
    """The numbers of an update as text: val_loss alone, else all; it says whether the first is the best so
    far.
    """

    def __init__(self) -> None:
        self._best = float("inf")

    def words(self, metrics: Mapping[str, float] | None) -> str:
        """'val_loss 3.1, better' or 'val_loss 3.4 (best 3.1)'; nothing where there is no number.

        >>> best = Best()
        >>> best.words({"R": 0.2}), best.words({"R": 0.1}), best.words({"R": 0.15}), best.words(None)
        ('R 0.2', 'R 0.1, better', 'R 0.15 (best 0.1)', '')
        """
        if not metrics:
            return ""
        name = "val_loss" if "val_loss" in metrics else next(iter(metrics))
        value = metrics[name]
        first, better = self._best == float("inf"), value < self._best
        self._best = min(self._best, value)
        more = "" if first else ", better" if better else f" (best {self._best:.4g})"
        others = [] if name == "val_loss" else [f", {n} {v:.4g}" for n, v in metrics.items() if n != name]
        return f"{name} {value:.4g}{more}{''.join(others)}"


@contextmanager
def terminal_bars(console: Any, check: Callable[[], None]) -> Iterator[Phase]:
    """Bars on a rich console: only the phase reported last has a bar, with its remaining time."""
    from rich.progress import BarColumn, ProgressColumn, TextColumn
    from rich.progress import Progress as RichProgress
    from rich.text import Text

    class ToGo(ProgressColumn):
        def render(self, task: Any) -> Text:
            left = task.time_remaining
            return Text("" if not left else f"{duration(left)} to go")

    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[count]}"),
        ToGo(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    # text that is printed in the meantime appears above the bar; a file gets it unchanged
    both = sys.stdout is not None and sys.stdout.isatty()
    with RichProgress(*columns, console=console, transient=True, redirect_stdout=both) as bar:

        def phase(title: str) -> Progress:
            best = Best()
            task = bar.add_task(title, total=None, count="", note="", visible=not bar.tasks)
            (shown,) = (one for one in bar.tasks if one.id == task)

            def update(done: int, total: int | None, metrics: Mapping[str, float] | None = None) -> None:
                check()
                for other in bar.tasks:
                    if other.id != task and other.visible:
                        bar.update(other.id, visible=False)
                count = f"{done} of {total}" if total else ""
                note: dict[str, Any] = {"note": best.words(metrics)} if metrics else {}
                if not shown.visible:
                    bar.reset(task, visible=True)
                bar.update(task, completed=done, total=total, description=title, count=count, **note)
                # the next phase has not reported yet: a full bar that does not move would mislead
                if total and done >= total:
                    shown.total = None
                    bar.update(task, description=f"{title}: done", count="")

            return update

        yield phase


@contextmanager
def text_lines(tell: Callable[[str], None], check: Callable[[], None]) -> Iterator[Phase]:
    """A line every HEARTBEAT_S seconds: phase, progress, the number, the remaining time."""
    begun: dict[str, float] = {}
    last = [time.monotonic()]

    def phase(title: str) -> Progress:
        best = Best()

        def update(done: int, total: int | None, metrics: Mapping[str, float] | None = None) -> None:
            check()
            now = time.monotonic()
            start = begun.setdefault(title, now)
            number = best.words(metrics)
            if now - last[0] < HEARTBEAT_S:
                return
            last[0] = now
            count = f"{done} of {total}" if total else ""
            left = (now - start) / done * (total - done) if total and done else None
            parts = (f"{title} {count}".strip(), number, "" if left is None else f"{duration(left)} to go")
            tell(", ".join(part for part in parts if part))

        return update

    yield phase


@contextmanager
def no_output(check: Callable[[], None]) -> Iterator[Phase]:
    """Show nothing; a signal still stops the run."""
    yield lambda title: lambda done, total, metrics=None: check()


def duration(seconds: float) -> str:
    """A time in its largest unit.

    >>> duration(8.2), duration(100), duration(8000)
    ('8 s', '2 min', '2.2 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

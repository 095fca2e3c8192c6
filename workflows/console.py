"""What the user sees: notes, tables and progress on standard error; the closing summary on standard output."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

# Without a terminal a plain line is written this often, so that a log of a night's run stays readable.
_EVERY_SECONDS = 10.0


_LOG_WIDTH = 160


class _Rate(ProgressColumn):
    """Units per second, with a prefix that keeps the figure short."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{quantity(speed)}{task.fields['unit']}/s")


def quantity(value: float) -> str:
    """Return a figure with three digits and a prefix: 1.23 M, 45.6 k, 7.0."""
    for factor, prefix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= factor:
            return f"{value / factor:.3g}{prefix}"
    return f"{value:.3g} "


def duration(seconds: float) -> str:
    """Return a time span in words: 42 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class Console:
    """The one place that writes to the user.

    Parameters
    ----------
    quiet : bool
        Write nothing but errors.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._err = RichConsole(stderr=True, highlight=False, quiet=quiet)
        if not self._err.is_terminal:
            # A log has no edge at which tables would have to be cut.
            self._err = RichConsole(stderr=True, highlight=False, quiet=quiet, width=_LOG_WIDTH)
        self._out = RichConsole(highlight=False, quiet=quiet)

    def stage(self, title: str) -> None:
        """Announce a stage of the run."""
        self._err.print(Text(title, style="bold"))

    def note(self, text: str) -> None:
        """Say something that was decided or found."""
        self._err.print(Text(f"  {text}"), soft_wrap=True)

    def notes(self, texts: Sequence[str]) -> None:
        """Say several things."""
        for text in texts:
            self.note(text)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Print a table; the first column and columns of words are set to the left, columns with figures to the right."""
        # A title of the table's own would be folded to the table's width.
        if title:
            self._err.print(title, highlight=False, markup=False)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for i, column in enumerate(columns):
            # A column without a heading holds facts of all kinds.
            words = not column or all(_cell(row[i])[:1].isalpha() for row in rows)
            table.add_column(
                column, justify="left" if i == 0 or words else "right", style="" if i else "bold", overflow="fold"
            )
        for row in rows:
            table.add_row(*(Text(_cell(v)) for v in row))
        self._err.print(table)

    def picture(self, renderable: Any) -> None:
        """Print a picture made of characters."""
        self._err.print(renderable)

    def summary(self, title: str, paths: Sequence[tuple[str, Path]]) -> None:
        """Print, on standard output, what was made and where."""
        self._out.print(Text(title, style="bold"))
        width = max([14, *(len(what) for what, _ in paths)])
        for what, path in paths:
            self._out.print(Text(f"  {what:<{width}} {path}"), soft_wrap=True)

    @contextlib.contextmanager
    def progress(self, title: str, total: int, unit: str = "") -> Iterator[Callable[[int, int], None]]:
        """Yield ``tell(done, total)``; shows a bar with rate and time left, or plain lines where there is no terminal."""
        if self.quiet:
            yield lambda *_: None
        elif self._err.is_terminal:
            columns = (
                TextColumn("  {task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
                _Rate(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            with Progress(*columns, console=self._err, transient=True) as bar:
                task = bar.add_task(title, total=total, unit=unit)
                yield lambda done, total: bar.update(task, completed=done, total=total)
        else:
            yield self._lines(title, unit)

    def _lines(self, title: str, unit: str) -> Callable[[int, int], None]:
        start = last = time.monotonic()

        def tell(done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _EVERY_SECONDS and 0 < done < total:
                last = now
                rate = done / (now - start)
                left = duration((total - done) / rate)
                self.note(f"{title}: {100 * done / total:.0f} %, {quantity(rate)}{unit.strip()}/s, {left} left")

        return tell


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def error(text: str) -> None:
    """Print an error message on standard error, whatever ``--quiet`` says."""
    RichConsole(stderr=True, highlight=False).print(Text.assemble(("error: ", "bold red"), text), soft_wrap=True)

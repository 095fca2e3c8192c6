"""Work that is stopped from outside: by Ctrl-C, or by SIGTERM."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import typer.core


class Interrupted(Exception):  # noqa: N818 - no error: somebody asked for it
    """The work was stopped from outside."""


class Commands(typer.core.TyperGroup):
    """Commands whose interruption reaches `workflows.cli.main`: typer would say no more than that they were aborted."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise Interrupted(str(stop)) from stop


@contextlib.contextmanager
def ended_tidily() -> Iterator[None]:
    """Let SIGTERM end the work as Ctrl-C does: what is done is kept, workers are sent home, the folder is free."""

    def end(*_: object) -> None:
        # Once is enough: a second one must not break into the tidying up.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt("stopped by SIGTERM; what is done is kept: the same command goes on from there")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

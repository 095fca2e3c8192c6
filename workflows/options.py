"""Arguments and options that commands share, and what is opened by them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from workflows.console import Console
    from workflows.context import Context

JobFile = Annotated[Path, typer.Argument(metavar="JOB", help="The job file.", show_default=False)]
Rasters = Annotated[list[str], typer.Argument(metavar="RASTER...", help="Imagery: files or globs.", show_default=False)]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a field of the job, such as training.epochs=5."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Make again what was made from other inputs, instead of refusing.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything and print the plan; write nothing.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Labels = Annotated[str, typer.Option("--labels", metavar="FILE", help="Vector file, CSV of points, or label raster.")]
FieldName = Annotated[str | None, typer.Option("--field", metavar="NAME", help="Field of the labels with the class.")]


def opened_console(quiet: bool) -> Console:
    """Return where the user is spoken to."""
    from workflows.console import Console

    return Console(quiet=quiet)


def opened_context(job: Path, overrides: list[str] | None, overwrite: bool, quiet: bool) -> Context:
    """Load the job and return its run."""
    from workflows.context import Context
    from workflows.load import load_job

    return Context(load_job(job, overrides or ()), opened_console(quiet), overwrite=overwrite)

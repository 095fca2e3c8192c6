"""The command table. Nothing heavy is imported before a command is known: help answers at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

if TYPE_CHECKING:
    from workflows.console import Console
    from workflows.context import Context


class _Interrupted(Exception):  # noqa: N818 - no error: somebody asked for it
    """The work was stopped from outside."""


class _Commands(typer.core.TyperGroup):
    """Commands whose interruption reaches `main`: typer would say no more than that they were aborted."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise _Interrupted(str(stop)) from stop


app = typer.Typer(
    name="landweave",
    cls=_Commands,
    help="Land-cover maps without seams from satellite rasters and a handful of labelled polygons.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

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


def _console(quiet: bool) -> Console:
    from workflows.console import Console

    return Console(quiet=quiet)


def _context(job: Path, overrides: list[str] | None, overwrite: bool, quiet: bool) -> Context:
    from workflows.context import Context
    from workflows.load import load_job

    return Context(load_job(job, overrides or ()), _console(quiet), overwrite=overwrite)


def _stages(context: Context, stages: tuple[str, ...], dry_run: bool) -> None:
    from workflows.check import check
    from workflows.run import run

    if dry_run:
        check(context)
        return
    made = run(context, stages)
    context.console.summary(f"{context.job.name}: done", made)


def _stage_command(name: str, stages: tuple[str, ...], text: str) -> Callable[..., None]:
    def command(
        job: JobFile, set_: Set = None, overwrite: Overwrite = False, dry_run: DryRun = False, quiet: Quiet = False
    ) -> None:
        _stages(_context(job, set_, overwrite, quiet), stages, dry_run)

    command.__name__ = name
    command.__doc__ = text
    return command


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to put it.")] = Path("demo"),
    set_: Set = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    side: Annotated[int, typer.Option(min=128, help="Side of the scene in pixels.")] = 1024,
) -> None:
    """Make a realistic scene, train, map, explain and report: the whole job in a few minutes on two cores."""
    from workflows.demo import demo as work

    console = _console(quiet)
    made = work(folder, console, overrides=tuple(set_ or ()), overwrite=overwrite, side=side)
    console.summary("demo: done", made)


@app.command()
def init(
    rasters: Rasters,
    labels: Labels,
    field: FieldName = None,
    job: Annotated[Path, typer.Option("-o", "--job", metavar="JOB", help="Job file to write.")] = Path("job.yaml"),
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Write a commented job file from what the data say."""
    from workflows.init import init as work

    console = _console(quiet)
    work(rasters, labels, field, job, console, overrides=tuple(set_ or ()))
    console.summary("init: done; read it, change what you like, then: landweave run " + str(job), [("job file", job)])


@app.command()
def check(job: JobFile, set_: Set = None, quiet: Quiet = False) -> None:
    """Open everything, print grid, bands, dates, labels, folds, blocks, memory and disk; find what would fail."""
    _stages(_context(job, set_, False, quiet), (), dry_run=True)


for _name, _these, _text in (
    ("prepare", ("prepare",), "Cut training samples: imagery and labels to the chip store."),
    ("train", ("train",), "Train the network, and cut its samples first where that is not done."),
    ("predict", ("predict",), "Map the whole grid with the trained network."),
    ("evaluate", ("evaluate",), "Measure accuracy on the test fold, and areas of the map."),
    ("report", ("report",), "Write the report page from what was measured."),
    (
        "run",
        ("prepare", "train", "predict", "evaluate", "report"),
        "Run all stages; skip what is up to date, resume what is not.",
    ),
):
    app.command(_name)(_stage_command(_name, _these, _text))


@app.command()
def explain(
    job: JobFile,
    area: Annotated[
        Path | None, typer.Option("--area", metavar="FILE", help="Polygons; only inside them is explained.")
    ] = None,
    at: Annotated[
        Path | None,
        typer.Option("--at", metavar="FILE", help="Points: what decided their very pixels, in tables and pictures."),
    ] = None,
    sanity: Annotated[
        bool, typer.Option("--sanity", help="Whether explanations of this model can be trusted.")
    ] = False,
    set_: Set = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Explain a finished map: make its saliency layers, without making the map again."""
    from workflows.explain import explain as work

    if area is not None and (at is not None or sanity):
        raise typer.BadParameter("is for layers of a map; leave out --at and --sanity", param_hint="--area")
    context = _context(job, set_, overwrite, quiet)
    made = work(context, area=area, at=at, sane=sanity)
    context.console.summary(f"{context.job.name}: explained", made)


@app.command("map")
def map_(
    rasters: Rasters,
    labels: Labels,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Output folder.")],
    field: FieldName = None,
    set_: Set = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Go from data to map in one line: init and run."""
    from workflows.context import Context
    from workflows.init import described
    from workflows.load import make_job

    raw: dict[str, Any] = described(rasters, labels, field, str(output)) | {"name": output.name or "map"}
    context = Context(make_job(raw, set_ or (), base=Path.cwd()), _console(quiet), overwrite=overwrite)
    _stages(context, ("prepare", "train", "predict", "evaluate", "report"), dry_run)


@app.command()
def apply(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of a trained model: <output>/model.")],
    rasters: Rasters,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Output folder.")],
    set_: Set = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Map new imagery with a trained bundle; bands are matched by name."""
    from workflows.apply import apply as work
    from workflows.output import Output

    console = _console(quiet)
    made = work(
        bundle,
        rasters,
        Output(output.absolute()),
        console,
        overrides=tuple(set_ or ()),
        overwrite=overwrite,
        dry_run=dry_run,
    )
    console.summary("apply: done", made)


@app.command()
def classify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of a trained model: <output>/model.")],
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Chips: files, globs, or folders of them.", show_default=False),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="TABLE", help="Table to write, .csv or .parquet.")
    ] = Path("classes.csv"),
    quiet: Quiet = False,
) -> None:
    """Say the class of whole chips, with its probability: a row per file."""
    from workflows.classify import classify as work

    console = _console(quiet)
    console.summary("classify: done", work(bundle, files, output, console))


@app.command()
def extract(
    job: JobFile,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Table to write, .parquet or .csv.", show_default=False),
    ] = None,
    set_: Set = None,
    quiet: Quiet = False,
) -> None:
    """Write the series of labelled places as a table, which trains without the imagery."""
    from workflows.extract import extract as work

    context = _context(job, set_, False, quiet)
    context.console.summary("extract: done", work(context, output))


@app.command()
def export(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of a trained model: <output>/model.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="As ONNX, the only form there is.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="File to write. Default: model.onnx in the bundle's folder.",
            show_default=False,
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write a trained network for other programs, and check that the file says the same as the network."""
    from workflows.export import export as work

    if not onnx:
        raise typer.BadParameter("say in which form: --onnx", param_hint="export")
    console = _console(quiet)
    console.summary("export: done", work(bundle, output, console))


@app.command()
def tune(job: JobFile, set_: Set = None, overwrite: Overwrite = False, quiet: Quiet = False) -> None:
    """Look for better settings by their figure on the validation fold; resumes, and adds trials if more are asked."""
    from workflows.tune import tune as work

    context = _context(job, set_, overwrite, quiet)
    context.console.summary("tune: done; now: landweave run on the best job", work(context))


@app.command()
def bench(
    job: JobFile,
    networks: Annotated[
        str,
        typer.Option("--networks", metavar="NAME,...", help="Networks to compare; a random forest is always beside."),
    ],
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Trainings of each network.")] = 3,
    set_: Set = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Compare networks on the same folds and test pixels, over several seeds, and say which to use."""
    from workflows.bench import bench as work

    context = _context(job, set_, overwrite, quiet)
    context.console.summary("bench: done", work(context, networks.split(","), seeds))


@app.command()
def networks() -> None:
    """List the networks with their parameters, context and cost."""
    from workflows.networks import show_networks

    show_networks(_console(quiet=False))


@app.command()
def schema() -> None:
    """Print the JSON schema of the job file, for editors and checkers."""
    from workflows.jobtext import schema as text

    typer.echo(text())


@app.command()
def doctor() -> None:
    """Say what this machine can do."""
    from workflows.doctor import doctor as work

    work(_console(quiet=False))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a user's mistake ends with one message and the exit status of its kind."""
    # Threads that wait for each other must sleep, not spin: a busy neighbour otherwise slows a training tenfold.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    status = _answered(arguments)
    if status:
        launching = sys.modules.get("models.launching")
        if launching is not None and launching.broken:
            # Python's own end would wait for ranks that are gone.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        sys.exit(status)


def _answered(arguments: list[str] | None) -> int:
    """Run the command line; show what went wrong, and return the exit status."""
    from pipeline.errors import LandweaveError

    try:
        with _ended_tidily():
            _run(arguments)
    except LandweaveError as error:
        return _show(str(error), error.exit_status)
    except ValueError as error:
        # `models` has an error of its own; where it was not loaded, it has raised none.
        models = sys.modules.get("models.network")
        if models is None or not isinstance(error, models.ModelError):
            raise
        return _show(str(error), error.exit_status)
    except (KeyboardInterrupt, _Interrupted) as stop:
        return _show(str(stop) or "stopped; what is done is kept: give the same command again to go on", 1)
    return 0


def _rank() -> int | None:
    """Return which of several processes this is that torchrun or srun has started; None where it is the only one."""
    for size, rank in (("WORLD_SIZE", "RANK"), ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID")):
        if int(os.environ.get(size) or 1) > 1:
            return int(os.environ[rank])
    return None


def _run(arguments: list[str] | None) -> None:
    """Run the command; where torchrun or srun has started several of it, all but the first only help it to train."""
    if _rank() is None:
        app(arguments)
        return
    from models.launching import enrol

    with enrol() as company:
        if company.place.rank:
            company.follow()
        else:
            app(arguments)


@contextlib.contextmanager
def _ended_tidily() -> Iterator[None]:
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


def _show(text: str, status: int) -> int:
    """Show what went wrong, but for ranks that only help: the first says it."""
    from workflows.console import error

    if not _rank():
        error(text)
    return status


if __name__ == "__main__":
    main()

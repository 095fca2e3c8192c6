"""What each command does. Nothing heavy is imported before it is called."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workflows.options import (
    DryRun,
    FieldName,
    JobFile,
    Labels,
    Overwrite,
    Quiet,
    Rasters,
    Set,
    opened_console,
    opened_context,
)

if TYPE_CHECKING:
    from workflows.context import Context


def run_stages(context: Context, stages: tuple[str, ...], dry_run: bool) -> None:
    """Run stages of a job, or only check it."""
    from workflows.check import check
    from workflows.run import run

    if dry_run:
        check(context)
        return
    made = run(context, stages)
    context.console.summary(f"{context.job.name}: done", made)


def demo(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Where to put it.")] = Path("demo"),
    set_: Set = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    side: Annotated[int, typer.Option(min=128, help="Side of the scene in pixels.")] = 1024,
) -> None:
    """Make a realistic scene, train, map, explain and report: the whole job in a few minutes on two cores."""
    from workflows.demo import demo as work

    console = opened_console(quiet)
    made = work(folder, console, overrides=tuple(set_ or ()), overwrite=overwrite, side=side)
    console.summary("demo: done", made)


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

    console = opened_console(quiet)
    work(rasters, labels, field, job, console, overrides=tuple(set_ or ()))
    console.summary("init: done; read it, change what you like, then: landweave run " + str(job), [("job file", job)])


def check(job: JobFile, set_: Set = None, quiet: Quiet = False) -> None:
    """Open everything, print grid, bands, dates, labels, folds, blocks, memory and disk; find what would fail."""
    run_stages(opened_context(job, set_, False, quiet), (), dry_run=True)


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
    context = opened_context(job, set_, overwrite, quiet)
    made = work(context, area=area, at=at, sane=sanity)
    context.console.summary(f"{context.job.name}: explained", made)


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
    context = Context(make_job(raw, set_ or (), base=Path.cwd()), opened_console(quiet), overwrite=overwrite)
    run_stages(context, ("prepare", "train", "predict", "evaluate", "report"), dry_run)


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

    console = opened_console(quiet)
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

    console = opened_console(quiet)
    console.summary("classify: done", work(bundle, files, output, console))


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

    context = opened_context(job, set_, False, quiet)
    context.console.summary("extract: done", work(context, output))


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
    console = opened_console(quiet)
    console.summary("export: done", work(bundle, output, console))


def tune(job: JobFile, set_: Set = None, overwrite: Overwrite = False, quiet: Quiet = False) -> None:
    """Look for better settings by their figure on the validation fold; resumes, and adds trials if more are asked."""
    from workflows.tune import tune as work

    context = opened_context(job, set_, overwrite, quiet)
    context.console.summary("tune: done; now: landweave run on the best job", work(context))


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

    context = opened_context(job, set_, overwrite, quiet)
    context.console.summary("bench: done", work(context, networks.split(","), seeds))


def networks() -> None:
    """List the networks with their parameters, context and cost."""
    from workflows.networks import show_networks

    show_networks(opened_console(quiet=False))


def schema() -> None:
    """Print the JSON schema of the job file, for editors and checkers."""
    from workflows.jobtext import schema as text

    typer.echo(text())


def doctor() -> None:
    """Say what this machine can do."""
    from workflows.doctor import doctor as work

    work(opened_console(quiet=False))

"""The command table. Nothing heavy is imported before a command is known: help answers at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import typer

from workflows import commands
from workflows.options import DryRun, JobFile, Overwrite, Quiet, Set, opened_context
from workflows.stopping import Commands, Interrupted, ended_tidily

app = typer.Typer(
    name="landweave",
    cls=Commands,
    help="Land-cover maps without seams from satellite rasters and a handful of labelled polygons.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _stage_command(name: str, stages: tuple[str, ...], text: str) -> Callable[..., None]:
    def command(
        job: JobFile, set_: Set = None, overwrite: Overwrite = False, dry_run: DryRun = False, quiet: Quiet = False
    ) -> None:
        commands.run_stages(opened_context(job, set_, overwrite, quiet), stages, dry_run)

    command.__name__ = name
    command.__doc__ = text
    return command


_TABLE: dict[str, Callable[..., None]] = {
    "demo": commands.demo,
    "init": commands.init,
    "check": commands.check,
    "prepare": _stage_command("prepare", ("prepare",), "Cut training samples: imagery and labels to the chip store."),
    "train": _stage_command(
        "train", ("train",), "Train the network, and cut its samples first where that is not done."
    ),
    "predict": _stage_command("predict", ("predict",), "Map the whole grid with the trained network."),
    "evaluate": _stage_command("evaluate", ("evaluate",), "Measure accuracy on the test fold, and areas of the map."),
    "report": _stage_command("report", ("report",), "Write the report page from what was measured."),
    "run": _stage_command(
        "run",
        ("prepare", "train", "predict", "evaluate", "report"),
        "Run all stages; skip what is up to date, resume what is not.",
    ),
    "explain": commands.explain,
    "map": commands.map_,
    "apply": commands.apply,
    "classify": commands.classify,
    "extract": commands.extract,
    "export": commands.export,
    "tune": commands.tune,
    "bench": commands.bench,
    "networks": commands.networks,
    "schema": commands.schema,
    "doctor": commands.doctor,
}
for _name, _command in _TABLE.items():
    app.command(_name)(_command)


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
        with ended_tidily():
            _run(arguments)
    except LandweaveError as error:
        return _show(str(error), error.exit_status)
    except ValueError as error:
        # `models` has an error of its own; where it was not loaded, it has raised none.
        models = sys.modules.get("models.network")
        if models is None or not isinstance(error, models.ModelError):
            raise
        return _show(str(error), error.exit_status)
    except (KeyboardInterrupt, Interrupted) as stop:
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


def _show(text: str, status: int) -> int:
    """Show what went wrong, but for ranks that only help: the first says it."""
    from workflows.console import error

    if not _rank():
        error(text)
    return status


if __name__ == "__main__":
    main()

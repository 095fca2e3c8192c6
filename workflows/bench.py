"""Which network to use: several trained on the same samples with several seeds, and measured on the same test pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from models.table import NETWORKS
from pipeline.cluster import workers_kept
from pipeline.errors import RequestError, nearest
from workflows.contest import contest
from workflows.entrant import FOREST, Entrant, forest_entrant, network_entrant
from workflows.prepare import prepare
from workflows.standings import write_bench
from workflows.variant import changed, variant

if TYPE_CHECKING:
    from workflows.context import Context
    from workflows.job import Job


def bench(context: Context, networks: Sequence[str], seeds: int) -> list[tuple[str, Path]]:
    """Train networks on the same folds, measure them on the same test pixels, and say which to use.

    The network of the job has the job's settings, any other its defaults. Labels of different folds are kept apart by the
    widest halo among them, for all alike. A random forest is always beside. What is done is kept: given again, or with
    more networks or seeds, only what is missing is trained.

    Parameters
    ----------
    context : Context
        The job.
    networks : sequence of str
        Names of networks; ``forest`` may be among them.
    seeds : int
        Trainings of each, with the job's seed and those that follow.

    Raises
    ------
    RequestError
        If there is no such network, or the job learns no classes.
    StaleError
        If the folder holds a comparison made from other inputs, and overwriting was not asked for.
    """
    names = _names(networks)
    job, console = context.job, context.console
    if job.task != "classification":
        raise RequestError(f"task: networks are compared by how they map classes, found {job.task}")
    folder = context.output.folder / "bench"
    with context.output.held(), workers_kept():
        bases = _bases(context, {name: _job_of(job, name, folder) for name in names})
        console.note(
            f"the same folds for all: labels of different folds lie {bases[names[0]].folds.buffer} px apart, "
            + ("as the job says" if job.folds.buffer is not None else "the widest halo among the networks")
        )
        own = job.model.name
        others = [name for name in names if name != own]
        if others:
            console.note(f"settings: {', '.join(others)} at the defaults" + (f", {own} as in the job" * (own in names)))
        entrants: dict[str, list[Entrant]] = {}
        numbers = range(job.training.seed, job.training.seed + seeds)
        stores = {}
        for name, base in bases.items():
            console.stage(f"bench: {name}")
            stores[name] = prepare(base)
            entrants[name] = [network_entrant(base, stores[name], seed) for seed in numbers]
        # A forest sees single pixels: of samples that hold more, it takes no more.
        plain = min(bases, key=lambda name: (stores[name].size, name))
        console.stage(f"bench: {FOREST}")
        entrants[FOREST] = [forest_entrant(bases[plain], stores[plain], seed, folder / FOREST) for seed in numbers]
        result = contest(entrants, [c.name for c in context.legend.classes], tabulated=context.samples is not None)
        return write_bench(context, result, folder)


def _names(networks: Sequence[str]) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in networks if name.strip()))
    for name in names:
        if name not in NETWORKS and name != FOREST:
            raise RequestError(
                f"--networks: there is no network '{name}'{nearest(name, [*NETWORKS, FOREST])} There are: "
                f"{', '.join([*NETWORKS, FOREST])}"
            )
    names = [name for name in names if name != FOREST]
    if not names:
        raise RequestError("--networks: name one network at least; the forest is always beside")
    return names


def _job_of(job: Job, name: str, folder: Path) -> Job:
    """Return the job of a network, in a folder of its own."""
    values: dict[str, object] = {"output": str(folder / name)}
    if name != job.model.name:
        # The size of a chip belongs to the network it was chosen for.
        values |= {"model": {"name": name}, "chips": job.chips.model_dump(mode="json") | {"size": None}}
    return changed(job, values, f"bench: the job with the network '{name}'")


def _bases(context: Context, jobs: dict[str, Job]) -> dict[str, Context]:
    """Return a run for each job; all share imagery, labels, and the folds that the widest halo asks for."""
    halos = {name: variant(context, job).network().halo for name, job in jobs.items()}
    widest = max(halos, key=lambda name: halos[name])
    buffer = context.job.folds.buffer if context.job.folds.buffer is not None else halos[widest]
    jobs = {name: changed(job, {"folds.buffer": buffer}, "bench") for name, job in jobs.items()}
    wide = variant(context, jobs[widest])
    # Blocks of land, too, are as large as the widest halo asks for.
    folds = wide.folds
    bases = {name: variant(wide, job) for name, job in jobs.items()}
    assert all(base.folds is folds for base in bases.values())
    return bases

"""Other trainings on the same imagery, labels and folds: a run that shares what another has opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from workflows.console import Console
from workflows.context import Context
from workflows.job import Job
from workflows.load import make_job

if TYPE_CHECKING:
    from pipeline.samples.chips import ChipStore

# What does not depend on how, and with which network, is trained.
_SHARED = ("cube", "cubes", "samples", "horizon", "labels", "legend", "folds", "inputs")


def variant(context: Context, job: Job, *, store: ChipStore | None = None, console: Console | None = None) -> Context:
    """Return a run of another job on what ``context`` has opened.

    Parameters
    ----------
    context : Context
        Its imagery, labels and folds are taken over, as far as they are open.
    job : Job
        Differs in the network, the training, chips or the output only.
    store : ChipStore, optional
        Samples to train on. Default: they are cut.
    console : Console, optional
        Default: the same.
    """
    other = Context(job, console or context.console, overwrite=context.overwrite, store=store)
    other._said = context._said
    vars(other).update({name: vars(context)[name] for name in _SHARED if name in vars(context)})
    return other


def changed(job: Job, values: Mapping[str, Any], where: str) -> Job:
    """Return a job with other values at dotted names, validated anew.

    Raises
    ------
    JobError
        If a value is not allowed; ``where`` begins the message.
    """
    raw = job.dump()
    for name, value in values.items():
        *parents, last = name.split(".")
        node = raw
        for part in parents:
            node = node[part]
        node[last] = value
    return make_job(raw, base=job.folder, where=where)


def value_at(job: Job, name: str) -> Any:
    """Return the plain value at a dotted name.

    Raises
    ------
    KeyError
        If there is none.
    """
    node: Any = job.dump()
    for part in name.split("."):
        if not isinstance(node, dict):
            raise KeyError(name)
        node = node[part]
    return node

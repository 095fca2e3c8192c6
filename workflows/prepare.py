"""Cut the training samples: imagery and labels to the chip store."""

from __future__ import annotations

from pathlib import Path

from pipeline.cluster import dask_client
from pipeline.files import digest_of
from pipeline.samples.chips import ChipStore
from pipeline.samples.cutting import cut_chips
from pipeline.samples.folds import Folds, make_folds
from pipeline.samples.labels import Labels
from pipeline.samples.standalone import store_samples
from pipeline.samples.unlabelled import Unlabelled
from workflows.context import Context
from workflows.keys import key_prepare


def prepare(context: Context) -> ChipStore:
    """Cut the chips of a job, or open them where they are up to date; print what each label matched.

    Raises
    ------
    StaleError
        If the folder holds chips made from other inputs and overwriting was not asked for.
    LabelError, ImageryError
        If labels or imagery do not fit.
    """
    output, console = context.output, context.console
    if context.store is not None:
        return context.store
    console.stage("prepare: imagery and labels to chips")
    key = key_prepare(context)
    if output.fresh("prepare", key, overwrite=context.overwrite) and output.chips.is_dir():
        console.note("up to date")
        context.store = ChipStore.open(output.chips)
        context.say(context.store.notes)
        return context.store
    output.begin("prepare", key)
    if context.samples is not None:
        store = store_samples(
            context.samples, context.folds, radius=context.chip_margin, path=output.chips, key=digest_of(key)
        )
    else:
        store = _cut(context, context.labels, context.folds, context.output.chips, digest_of(key))
        if context.network().semi_supervised:
            land = context.land()
            folds = make_folds(land, context.job.folds.model_copy(update={"method": "blocks", "k": 0}), 0)
            context.say(land.notes)
            _cut(context, land, folds, context.output.unlabelled, digest_of(key))
    show_labels(context, store)
    output.finish("prepare", key)
    context.store = store
    return store


def _cut(context: Context, labels: Labels, folds: Folds, path: Path, key: str) -> ChipStore:
    compute, chips = context.job.compute, context.job.chips
    margin = context.chip_margin
    with (
        dask_client(compute, context.console.note) as client,
        context.console.progress("cutting chips", 1, "blocks") as progress,
    ):
        return cut_chips(
            context.cubes,
            labels,
            folds,
            size=context.chip_size,
            margin=margin,
            path=path,
            key=key,
            # Of land as many places were drawn as were asked for.
            max_per_class=len(labels.cells) if isinstance(labels, Unlabelled) else chips.most(patches=margin > 0),
            seed=context.job.folds.seed,
            client=client,
            progress=progress,
        )


def show_labels(context: Context, store: ChipStore) -> None:
    """Print the table of what each label value matched."""
    rows = store.table()
    if rows:
        columns = list(rows[0])
        context.console.table("  labels", columns, [[row[c] for c in columns] for row in rows])
    context.say(store.notes)

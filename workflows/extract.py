"""Write the series of labelled places as a table, which trains without the imagery."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cluster import dask_client
from pipeline.errors import RequestError
from pipeline.imagery.dates import Period
from pipeline.samples.cutting import cut_chips
from pipeline.samples.frames import series_frames
from workflows.tables import check_table, write_table

if TYPE_CHECKING:
    from workflows.context import Context


def extract(context: Context, path: Path | None) -> list[tuple[str, Path]]:
    """Write a table of series and a table of samples, as `labels.series` and `labels.samples` take them.

    Parameters
    ----------
    context : Context
        The job. Its labels, periods, steps in time and folds are those of the tables.
    path : Path or None
        The table of series, .parquet or .csv; the table of samples lies beside it. Default: ``series.parquet`` in the output
        folder.

    Raises
    ------
    RequestError
        If the job learns no classes, or has no imagery, or imagery without dates.
    """
    if context.job.task != "classification":
        raise RequestError(f"task: tables hold series of labelled classes, found {context.job.task}")
    cube, output, console = context.cube, context.output, context.console
    first = cube.dates[0]
    if first is None:
        raise RequestError(
            'the imagery has no dates, so there are no series; say how they stand in file names (date: "%Y%m%d")'
        )
    path = path or output.folder / "series.parquet"
    check_table(path)
    console.stage("extract: the series of labelled places")
    work = output.work / "extract.zarr"
    with output.held():
        compute = context.job.compute
        with (
            dask_client(compute, console.note) as client,
            console.progress("reading labelled places", 1, "blocks") as progress,
        ):
            store = cut_chips(
                context.cubes,
                context.labels,
                # Folds go into the table as they are; what a network needs between them is not known here.
                dataclasses.replace(context.folds, buffer=0),
                size=1,
                path=work,
                key="",
                max_per_class=context.job.chips.most(patches=False),
                seed=context.job.folds.seed,
                client=client,
                progress=progress,
            )
        context.say(store.notes)
        origins = [p.start if isinstance(p, Period) else first for p in context.labels.periods]
        series, samples = series_frames(store, cube.geobox, origins)
        shutil.rmtree(work)
    beside = path.with_name(f"{path.stem}.samples.csv")
    write_table(series, path)
    write_table(samples, beside)
    console.note(f"{len(samples):,} samples, {len(series):,} rows of {len(store.attrs['bands'])} bands")
    dated = ", from: from, to: to" if "from" in samples else ""
    console.note(
        f"to train on them:  labels: {{series: {path.name}, samples: {beside.name}, field: label{dated}, fold: fold}}"
    )
    return [("series", path), ("samples", beside)]

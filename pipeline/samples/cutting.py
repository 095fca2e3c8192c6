"""Cut chips: Dask tasks read each block of land once, rasterise its labels once, and write its chips."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas  # noqa: F401 - workers unpack labels with it, and load packages all at once by loading this module
import numpy as np

from pipeline.engine import run_tasks
from pipeline.errors import ReadError, RunError
from pipeline.imagery.cube import Cube
from pipeline.samples.chips import ChipStore
from pipeline.samples.cutter import Cutter, Land, Survey
from pipeline.samples.findings import Findings, notes, table
from pipeline.samples.folds import Folds
from pipeline.samples.labels import Labels
from pipeline.samples.store import new_store

if TYPE_CHECKING:
    from distributed import Client

Array = np.ndarray[Any, Any]

# Land that one task reads and rasterises at once, in pixels.
_LAND = 512


def cut_chips(
    cubes: Sequence[Cube],
    labels: Labels,
    folds: Folds,
    *,
    size: int,
    margin: int = 0,
    path: Path,
    key: str,
    max_per_class: int,
    seed: int,
    client: Client,
    progress: Callable[[int, int], None] | None = None,
) -> ChipStore:
    """Cut all chips of a job into a Zarr store, which is whole or absent.

    Parameters
    ----------
    cubes : sequence of Cube
        Imagery of each period in which labels hold; all have as many dates.
    labels, folds
        Reference data, and its division.
    size : int
        Side of a chip in pixels, margins included; 1 gives a sample per labelled pixel.
    margin : int
        Pixels of a chip on each side of the square whose labels it holds. Where that square is one pixel, chips are patches
        around every labelled pixel.
    path : Path
        The store; one that is there is replaced.
    key : str
        What the chips were made from.
    max_per_class : int
        Most samples of one labelled pixel kept of a class and fold.
    seed : int
        Seed of that drawing.
    client : Client
        Where the tasks run.
    progress : callable, optional
        Called with blocks of land done, and in all.

    Raises
    ------
    LabelError
        If no label lies on valid imagery, or a fold that is needed is empty.
    ReadError
        If a file cannot be read; names file and window.
    """
    rounds, classes = len(folds.rounds), len(labels.legend.classes)
    cell = size - 2 * margin
    side = cell * max(1, _LAND // cell)
    lands = [Land(w, p) for p in range(len(labels.periods)) for w in labels.windows(side, p)]
    plain = Cutter(
        tuple(cubes),
        labels,
        folds,
        size,
        margin,
        seed,
        np.zeros((rounds, 4, classes), bool),
        np.ones((len(folds.names), classes)),
    )
    steps = _Steps(2 * len(lands), progress)
    surveys = _survey(plain, lands, client, steps)
    found = Findings.of(surveys, rounds, len(folds.names), classes)
    exempt = found.exempt()
    cutter = replace(plain, exempt=exempt, quota=found.quota(max_per_class) if cell == 1 else plain.quota)
    said = notes(labels.legend, folds, found, exempt, cutter.quota)
    if exempt.any() or (cutter.quota < 1).any():
        steps.total += len(lands)
        surveys = _survey(cutter, lands, client, steps)
        found = Findings.of(surveys, rounds, len(folds.names), classes)
    chips, (dates, bands, _, _) = sum(len(s.origins) for s in surveys), cubes[0].shape
    with new_store(
        path,
        (chips, dates, bands, size),
        margin=margin,
        numeric=labels.numeric,
        key=key,
        bands=cubes[0].bands,
        periods=labels.periods,
        legend=labels.legend,
        folds=folds,
        table=table(labels.legend, getattr(labels, "feature_class", None), folds, found),
        notes=said,
    ) as arrays:
        _cut(cutter, lands, surveys, arrays, client, steps)
    return ChipStore.open(path)


class _Steps:
    """Counts blocks of land that are done, and tells."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None) -> None:
        self.total, self.progress, self.done = total, progress, 0

    def advance(self) -> None:
        self.done += 1
        if self.progress:
            self.progress(self.done, self.total)


def _survey(cutter: Cutter, lands: list[Land], client: Client, steps: _Steps) -> list[Survey]:
    found: dict[int, Survey] = {}
    _run(_survey_one, cutter, list(enumerate(lands)), found.__setitem__, client, steps)
    return [found[i] for i in range(len(lands))]


def _survey_one(cutter: Cutter, _: int, land: Land) -> Survey:
    return cutter.survey(land)


def _cut(
    cutter: Cutter, lands: list[Land], surveys: list[Survey], arrays: dict[str, Any], client: Client, steps: _Steps
) -> None:
    """Cut and write all chips.

    Chips of many pixels are written by the tasks, a chunk each; single pixels share chunks, and are written here, in order.
    """
    pieces: dict[int, dict[str, Array]] = {}
    starts = np.cumsum([0, *(len(s.origins) for s in surveys)]).tolist()
    # Patches overlap: those of one block of land may take far more room than it does, so a task cuts some of them.
    most = max(1, (_LAND // cutter.size) ** 2)
    items = [
        (start + i, land, s.origins[i : i + most])
        for start, land, s in zip(starts, lands, surveys, strict=False)
        for i in range(0, len(s.origins), most)
    ]
    steps.total = steps.done + len(items)
    work = functools.partial(_cut_one, arrays if cutter.size > 1 else None)
    _run(work, cutter, items, pieces.__setitem__, client, steps)
    order = sorted(pieces)
    for name in list(pieces[order[0]]) if order else ():
        arrays[name][:] = np.concatenate([pieces[start].pop(name) for start in order])


def _cut_one(arrays: dict[str, Any] | None, cutter: Cutter, start: int, land: Land, origins: Array) -> dict[str, Array]:
    made = cutter.cut(land, origins)
    if arrays is not None:
        for name in ("values", "truth", "numbers"):
            if name in made:
                arrays[name][start : start + len(origins)] = made.pop(name)
    return made


def _run(
    work: Callable[..., Any],
    cutter: Cutter,
    items: list[Any],
    keep: Callable[[int, Any], None],
    client: Client,
    steps: _Steps,
) -> None:
    """Run ``work(cutter, *item)`` for all items; results are kept by the first value of the item."""

    def done(item: Any, result: Any) -> None:
        keep(item[0], result)
        steps.advance()

    failures = run_tasks(
        functools.partial(_call, work, cutter), items, client=client, on_result=done, fatal=(ReadError,)
    )
    if failures:
        land = next(v for v in failures[0].item if isinstance(v, Land))
        raise RunError(f"cutting chips failed at {land}: {failures[0].error}")


def _call(work: Callable[..., Any], cutter: Cutter, item: tuple[Any, ...]) -> Any:
    return work(cutter, *item)

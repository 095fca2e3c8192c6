"""Cut chips: Dask tasks read each block of land once, rasterise its labels once, and write its chips."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from pipeline.engine import run_tasks
from pipeline.errors import ReadError, RunError
from pipeline.grid import Window
from pipeline.imagery.cube import Cube
from pipeline.samples.chips import ChipStore, planes
from pipeline.samples.cutter import Cutter, Survey
from pipeline.samples.findings import Findings, check, notes, table
from pipeline.samples.folds import Folds
from pipeline.samples.labels import Labels

if TYPE_CHECKING:
    from distributed import Client

Array = np.ndarray[Any, Any]

# Land that one task reads and rasterises at once, in pixels.
_LAND = 512
# Samples of one pixel in a Zarr chunk.
_PIXELS = 4096


def cut_chips(
    cube: Cube,
    labels: Labels,
    folds: Folds,
    *,
    size: int,
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
    cube, labels, folds
        Imagery, reference data, and its division.
    size : int
        Side of a chip in pixels; 1 gives a sample per labelled pixel.
    path : Path
        The store; one that is there is replaced.
    key : str
        What the chips were made from.
    max_per_class : int
        Most samples of one pixel kept of a class and fold.
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
    windows = list(labels.windows(size * max(1, _LAND // size)))
    plain = Cutter(
        cube, labels, folds, size, seed, np.zeros((rounds, 4, classes), bool), np.ones((len(folds.names), classes))
    )
    steps = _Steps(2 * len(windows), progress)
    surveys = _survey(plain, windows, client, steps)
    found = Findings.of(surveys, rounds, len(folds.names), classes)
    exempt = found.exempt()
    cutter = replace(plain, exempt=exempt, quota=found.quota(max_per_class) if size == 1 else plain.quota)
    said = notes(labels, folds, found, exempt, cutter.quota)
    if exempt.any() or (cutter.quota < 1).any():
        steps.total += len(windows)
        surveys = _survey(cutter, windows, client, steps)
        found = Findings.of(surveys, rounds, len(folds.names), classes)
    temporary = path.with_name(f".{path.name}.tmp")
    if temporary.exists():
        shutil.rmtree(temporary)
    try:
        group = zarr.open_group(temporary, mode="w")
        arrays = _create(group, cube, sum(len(s.origins) for s in surveys), size, rounds, classes)
        _cut(cutter, windows, surveys, arrays, client, steps)
        group.attrs.update(
            {
                "key": key,
                "bands": list(cube.bands),
                "dates": [d.isoformat() if d else None for d in cube.dates],
                "time": [float(t) for t in cube.time],
                "legend": labels.legend.to_json(),
                "folds": list(folds.names),
                "rounds": rounds,
                "buffer": folds.buffer,
                "table": table(labels, folds, found),
                "notes": said,
            }
        )
        check(ChipStore.open(temporary), labels)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if path.exists():
        shutil.rmtree(path)
    temporary.rename(path)
    return ChipStore.open(path)


class _Steps:
    """Counts blocks of land that are done, and tells."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None) -> None:
        self.total, self.progress, self.done = total, progress, 0

    def advance(self) -> None:
        self.done += 1
        if self.progress:
            self.progress(self.done, self.total)


def _survey(cutter: Cutter, windows: list[Window], client: Client, steps: _Steps) -> list[Survey]:
    found: dict[int, Survey] = {}
    _run(_survey_one, cutter, list(enumerate(windows)), found.__setitem__, client, steps)
    return [found[i] for i in range(len(windows))]


def _survey_one(cutter: Cutter, _: int, window: Window) -> Survey:
    return cutter.survey(window)


def _cut(
    cutter: Cutter, windows: list[Window], surveys: list[Survey], arrays: dict[str, Any], client: Client, steps: _Steps
) -> None:
    """Cut and write all chips.

    Chips of many pixels are written by the tasks, a chunk each; single pixels share chunks, and are written here, in order.
    """
    pieces: dict[int, dict[str, Array]] = {}
    starts = np.cumsum([0, *(len(s.origins) for s in surveys)]).tolist()
    items = [
        (start, w, s.origins, arrays if cutter.size > 1 else None)
        for start, w, s in zip(starts, windows, surveys, strict=False)
        if len(s.origins)
    ]
    _run(_cut_one, cutter, items, pieces.__setitem__, client, steps)
    order = sorted(pieces)
    for name in list(pieces[order[0]]) if order else ():
        arrays[name][:] = np.concatenate([pieces[start].pop(name) for start in order])


def _cut_one(
    cutter: Cutter, start: int, window: Window, origins: Array, arrays: dict[str, Any] | None
) -> dict[str, Array]:
    made = cutter.cut(window, origins)
    if arrays is not None:
        for name in ("values", "truth"):
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
    # Sent once: labels of a whole country, sent with every task, would be most of the work.
    (shared,) = client.scatter([cutter], broadcast=True, hash=False)

    def done(task: Any, result: Any) -> None:
        keep(task[2][0], result)
        steps.advance()

    tasks = ((work, shared, item) for item in items)
    failures = run_tasks(_call, tasks, client=client, on_result=done, fatal=(ReadError,))
    if failures:
        window = next(v for v in failures[0].item[2] if isinstance(v, Window))
        raise RunError(f"cutting chips failed at {window}: {failures[0].error}")


def _call(task: tuple[Callable[..., Any], Cutter, tuple[Any, ...]]) -> Any:
    work, cutter, item = task
    return work(cutter, *item)


def _create(group: zarr.Group, cube: Cube, n: int, size: int, rounds: int, classes: int) -> dict[str, Any]:
    times, bands, _, _ = cube.shape
    chunk = _PIXELS if size == 1 else 1
    shapes: dict[str, tuple[tuple[int, ...], str, int]] = {
        "values": ((n, times, bands, size, size), "float32", chunk),
        "truth": ((n, planes(rounds), size, size), "uint16", chunk),
        "counts": ((n, rounds + 1, 4, classes), "int32", _PIXELS),
        "origin": ((n, 2), "int32", _PIXELS),
    }
    return {
        name: group.create_array(
            name,
            shape=shape,
            dtype=dtype,
            chunks=(min(first, max(n, 1)), *shape[1:]),
            # A training reads each chip once an epoch, and decoding would be what it waits for.
            compressors=None,
            # Chips are read by their files: one of zeros has one too.
            config={"write_empty_chunks": True},
        )
        for name, (shape, dtype, first) in shapes.items()
    }

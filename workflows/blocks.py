"""Run the blocks of a map on Dask, and keep what they leave."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.cluster import dask_client
from pipeline.engine import run_tasks
from pipeline.errors import BlocksFailedError, ReadError, RunError
from pipeline.imagery.area import blocks_meeting
from workflows.console import duration, quantity
from workflows.halving import spoken_cuts
from workflows.maptask import MapTask
from workflows.outlay import spoken_costs

if TYPE_CHECKING:
    from pipeline.grid import BlockGrid
    from pipeline.maps.parts import PartRecord
    from pipeline.maps.store import PartStore
    from workflows.console import Console
    from workflows.explanations import Explanation
    from workflows.plan import Plan
    from workflows.request import MapRequest


def run_blocks(
    request: MapRequest, plan: Plan, store: PartStore, explanations: tuple[Explanation, ...], console: Console
) -> None:
    """Make the blocks of a plan that a store does not hold.

    Raises
    ------
    BlocksFailedError
        If blocks failed after their retries; names them. The others are done and kept.
    """
    blocks = store.blocks
    done = store.done()
    if store.dropped:
        console.note(f"{store.dropped} blocks were recorded as done, but their files are damaged: made again")
    if done:
        console.note(f"resumed: {len(done)} of {len(blocks)} blocks are done and kept")
    task = MapTask(
        bundle=request.folder,
        checksum=request.bundle.checksum,
        cube=request.cube,
        blocks=blocks,
        layers=store.layers,
        folder=store.folder,
        explanations=explanations,
        area=request.area,
        engine=request.choice.engine,
    )
    wanted = _wanted(request, blocks)
    todo = [i for i in wanted if i not in done] if done else wanted
    left, total = len(todo), sum(blocks[i].inner.pixels for i in todo)
    if not left:
        return
    if len(wanted) < len(blocks):
        console.note(f"{len(wanted)} of {len(blocks)} blocks meet the area")
    pixels = empty = 0
    cuts: dict[int, int] = {}
    if not console.quiet:
        explainers = [e.explainer for e in explanations]
        stored = sum(layer.stored for layer in store.layers)
        console.notes(spoken_costs(plan, request.bundle.network, request.cube, explainers, stored=stored, number=left))
    with (
        dask_client(plan.on(request.compute), console.note) as client,
        console.progress("explaining" if explanations else "mapping", total, "px") as tell,
    ):
        start = time.monotonic()

        def keep(index: int, record: PartRecord) -> None:
            nonlocal pixels, empty
            store.record(record)
            pixels += blocks[index].inner.pixels
            empty += record.empty
            if record.cuts:
                cuts[index] = record.cuts
            tell(pixels, total)

        failures = run_tasks(
            task, todo, client=client, on_result=keep, retries=request.predict.retries, fatal=(ReadError, RunError)
        )
    seconds = time.monotonic() - start
    console.note(
        f"{left} block{'s' * (left > 1)} of {blocks.size} px in {duration(seconds)} ({quantity(pixels / seconds)}px/s)"
        + (f", {empty} without valid input" if empty else "")
    )
    console.notes(spoken_cuts(cuts, left))
    if failures:
        console.table(
            "  blocks that failed",
            ("block", "pixels", "error"),
            [(f.item, str(blocks[f.item].inner), f.error) for f in failures],
        )
        raise BlocksFailedError(
            f"{len(failures)} of {len(blocks)} blocks failed after {request.predict.retries + 1} attempts (table above); "
            "the others are kept: mend the cause and give the same command again"
        )


def _wanted(request: MapRequest, blocks: BlockGrid) -> Sequence[int]:
    """Return the blocks that meet the area of the imagery, and the area that is explained; outside there is nodata."""
    areas = [area for area in (request.cube.area, request.area) if area is not None]
    if not areas:
        return range(len(blocks))
    met = [blocks_meeting(area, blocks) for area in areas]
    return [int(i) for i in functools.reduce(np.intersect1d, met)]

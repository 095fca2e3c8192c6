"""Run the blocks of a map on Dask, and keep what they leave."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from pipeline.cluster import dask_client
from pipeline.engine import run_tasks, width
from pipeline.errors import BlocksFailedError, ReadError, RunError
from pipeline.grid import Window
from workflows.console import duration, quantity
from workflows.maptask import MapTask
from workflows.outlay import spoken_costs

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

    from pipeline.grid import BlockGrid
    from pipeline.maps.parts import PartRecord, PartStore
    from workflows.console import Console
    from workflows.explanations import Explanation
    from workflows.request import MapRequest


def run_blocks(request: MapRequest, store: PartStore, explanations: tuple[Explanation, ...], console: Console) -> None:
    """Make the blocks that a store does not hold.

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
    wanted = None if request.area is None else {b.index for b in blocks.covering(_extent(request.area, blocks))}
    todo = (i for i in (range(len(blocks)) if wanted is None else sorted(wanted)) if i not in done)
    left = len(blocks) - len(done) if wanted is None else len(wanted - done)
    if not left:
        return
    pixels = empty = 0
    total = _pixels(blocks, done) if wanted is None else sum(blocks[i].inner.pixels for i in wanted - done)
    with (
        dask_client(request.compute, console.note) as client,
        console.progress("explaining" if explanations else "mapping", total, "px") as tell,
    ):
        if not console.quiet:
            explainers = [e.explainer for e in explanations]
            console.notes(spoken_costs(request.bundle.network, explainers, blocks, left, width(client)))
        start = time.monotonic()

        def keep(index: int, record: PartRecord) -> None:
            nonlocal pixels, empty
            store.record(record)
            pixels += blocks[index].inner.pixels
            empty += record.empty
            tell(pixels, total)

        failures = run_tasks(
            task, todo, client=client, on_result=keep, retries=request.predict.retries, fatal=(ReadError, RunError)
        )
    seconds = time.monotonic() - start
    console.note(
        f"{left} block{'s' * (left > 1)} of {blocks.size} px in {duration(seconds)} ({quantity(pixels / seconds)}px/s)"
        + (f", {empty} without valid input" if empty else "")
    )
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


def _pixels(blocks: BlockGrid, done: set[int]) -> int:
    """Return how many pixels are still to be mapped."""
    high, wide = int(blocks.geobox.shape.y), int(blocks.geobox.shape.x)
    return high * wide - sum(blocks[i].inner.pixels for i in done)


def _extent(area: BaseGeometry, blocks: BlockGrid) -> Window:
    """Return the smallest window of the grid that holds an area, which may reach beyond the grid."""
    left, bottom, right, top = area.bounds
    corners = [~blocks.geobox.affine * (x, y) for x in (left, right) for y in (bottom, top)]
    x, y = (math.floor(min(c[i] for c in corners)) for i in (0, 1))
    far_x, far_y = (math.ceil(max(c[i] for c in corners)) for i in (0, 1))
    return Window(y=y, x=x, height=max(1, far_y - y), width=max(1, far_x - x))

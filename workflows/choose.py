"""Choose how a map is made: the blocks and threads that fit the memory and keep most tasks busy at the least cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil
import torch

from pipeline.crew import Crew, crew_of
from pipeline.engine import release_memory
from pipeline.errors import RunError
from pipeline.grid import BlockGrid, round_up
from pipeline.imagery.area import blocks_meeting
from pipeline.imagery.handles import cache_bytes
from workflows.console import quantity
from workflows.needs import files_size, needs_of, stored_bytes
from workflows.plan import Plan

if TYPE_CHECKING:
    from models.network import Network
    from models.saliency.methods import Explainer
    from pipeline.imagery.cube import Cube
    from pipeline.settings import ComputeSettings
    from workflows.settings import PredictSettings

# Larger inputs gain nothing in a forward pass. Sides are multiples of the tiles in which most files are stored.
_SIZES = (1024, 768, 512, 256)
# Only where memory leaves no choice, not even with fewer threads: most of what is read is then halo.
_SMALL = (128, 64)
# A small raster is cut so that so many tasks have work; of more work than this share it is not worth it. Neither hangs on
# the machine: with memory enough, the same raster is cut in the same way on a laptop and on a cluster.
_TASKS = 16
_EXTRA = 1.5
# What a block costs beside its pixels, as pixels: its parts are files that are written, read back and found again. A quick
# network maps a few more in that time, a slow one fewer.
_BESIDE = 160**2
# The share of the budget that is planned with; the rest is for what nobody counts.
_SHARE = 0.9


def plan_of(
    network: Network,
    cube: Cube,
    predict: PredictSettings,
    compute: ComputeSettings,
    explainers: Sequence[Explainer] = (),
    *,
    stored: float = 0.0,
    begun: int | None = None,
) -> Plan:
    """Return how a map is made within the memory budget.

    Blocks are read with as much around them as the network needs, or those that explain it, which is more. Their size is the
    one asked for, or that which was begun with, or of all that fit the budget the one that keeps most tasks busy at the least
    cost. Fewer threads are taken where that lets blocks be so much larger that it pays, or else none would fit.

    Parameters
    ----------
    network, cube, predict, compute, explainers
        What is mapped and explained, by what, and where.
    stored : float
        Bytes per pixel of all layers that are made.
    begun : int, optional
        Side of the blocks of a run that is resumed.

    Raises
    ------
    RunError
        If the budget is too small for the smallest block; says what is needed.
    """
    crew = crew_of(compute)
    halo = max([network.halo, *(e.reach(network) for e in explainers)])
    needs = needs_of(network, cube, explainers, stored)
    pixel, files = stored_bytes(cube), files_size(cube)
    base = resident()
    budget = crew.budget(compute.memory, base)
    box = cube.geobox
    grids = [
        BlockGrid(geobox=box, size=size, halo=halo, stride=network.stride)
        for size in _sizes(cube, network.stride, begun or predict.block)
    ]
    # An area may touch the grid at its edge alone.
    cuts = [(g, len(g) if cube.area is None else max(1, len(blocks_meeting(cube.area, g)))) for g in grids]
    plans = [
        Plan(
            blocks=blocks,
            met=met,
            crew=replace(crew, threads=threads),
            needs=needs,
            base=base,
            cache=int(min(cache_bytes(), pixel * int(box.shape.y) * int(box.shape.x))),
            budget=budget,
            stored=pixel,
            files=files,
        )
        for threads in _threads(crew, compute)
        for blocks, met in cuts
    ]
    fitting = [p for p in plans if p.peak <= _SHARE * budget and _on_device(p)]
    if not fitting:
        raise RunError(_too_small(min(plans, key=lambda p: p.peak), compute, begun, predict.block))
    fitting = [p for p in fitting if p.blocks.size not in _SMALL] or fitting
    return min(_usual(fitting), key=lambda p: (p.side**2 * p.met / p.crew.threads, -p.crew.threads))


def _usual(plans: Sequence[Plan]) -> Iterator[Plan]:
    """Yield the plan of the best size for each number of threads."""
    for threads in {p.crew.threads for p in plans}:
        mine = [p for p in plans if p.crew.threads == threads]
        least = min(p.side**2 * p.met for p in mine)
        mine = [p for p in mine if p.side**2 * p.met <= _EXTRA * least]
        yield min(mine, key=lambda p: (-(-p.met // _TASKS) * (p.side**2 + _BESIDE), -p.blocks.size))


def _threads(crew: Crew, compute: ComputeSettings) -> Sequence[int]:
    """Return the numbers of threads to choose from: those of a cluster are as they are, and so are those that a job states."""
    fixed = crew.place == "cluster" or compute.threads != "auto"
    return (crew.threads,) if fixed else range(crew.threads, 0, -1)


def _sizes(cube: Cube, stride: int, asked: int | str) -> list[int]:
    """Return the sides of blocks to choose from; none is larger than the raster."""
    side = round_up(max(int(cube.geobox.shape.y), int(cube.geobox.shape.x)), stride)
    sizes = (*_SIZES, *_SMALL) if isinstance(asked, str) else (asked,)
    return sorted({min(round_up(size, stride), side) for size in sizes}, reverse=True)


def _on_device(plan: Plan) -> bool:
    """Return whether a block fits the accelerator, of which each worker has one, if there is any: one is computed at a time."""
    if not plan.needs.device:
        return True
    memory = min(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))
    return plan.needs.device * plan.side**2 <= _SHARE * memory


def _too_small(plan: Plan, compute: ComputeSettings, begun: int | None, asked: int | str) -> str:
    """Return what to do where nothing fits; ``plan`` is the one that takes least."""
    found = f"compute.memory: found {compute.memory}, {quantity(plan.budget)}B for a worker"
    if not _on_device(plan):
        found = "the accelerator has too little memory"
    need = f"{quantity(plan.peak / _SHARE)}B"
    ways = [f"give it {need}"]
    if compute.threads != "auto" and compute.threads > 1:
        ways.append("set compute.threads to auto")
    if plan.crew.place in ("processes", "gpus"):
        ways.append("set compute.workers to fewer")
    if begun is not None:
        what = f"the blocks of {begun} px that this run began with"
        ways.append("--overwrite to begin anew with blocks that fit")
    elif isinstance(asked, int):
        what = f"blocks of predict.block: {asked} px"
        ways.append("set predict.block to auto")
    else:
        what = f"the smallest blocks, {plan.blocks.size} px with {plan.blocks.halo} px around"
        ways.append("choose a narrower network")
    return f"{found}; {what} need {need} ({plan.formula}); " + ", or ".join(ways)


def resident() -> int:
    """Return the bytes that this process holds, what it could give back left out."""
    release_memory()
    return int(psutil.Process().memory_info().rss)

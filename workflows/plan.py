"""What a map or an explanation takes, before anything of it is run: blocks, bytes, memory, workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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
from workflows.needs import Needs, files_size, needs_of, stored_bytes

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
# The share of the budget that is planned with; the rest is for what nobody counts.
_SHARE = 0.9
# Libraries that are loaded, and made ready, when the first block is computed. Measured: 16 to 30 MiB.
_FIRST = 32 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a map is made, and what that takes.

    Attributes
    ----------
    blocks : BlockGrid
        The blocks.
    met : int
        How many of them meet the area of the imagery, and are made: all, where it has none.
    crew : Crew
        Who works on them; fewer threads than were asked for where memory wants it.
    needs : Needs
        What a block takes.
    base : int
        Bytes of this process before the first block; a worker process loads no more than it did.
    cache : int
        The most bytes that GDAL keeps of what it decoded.
    budget : int
        Bytes that a worker may take.
    stored : float
        Bytes per pixel of the grid as files store them, uncompressed.
    files : int
        Bytes of the files.
    """

    blocks: BlockGrid
    met: int
    crew: Crew
    needs: Needs
    base: int
    cache: int
    budget: int
    stored: float
    files: int

    @property
    def side(self) -> int:
        """Side of a padded window in pixels."""
        return self.blocks.size + 2 * self.blocks.halo

    @property
    def at_once(self) -> int:
        """Blocks in work at once, on all workers."""
        return min(self.crew.workers * self.crew.threads, self.met)

    @property
    def peak(self) -> int:
        """The most bytes that a worker will take: the whole process."""
        busy = min(self.crew.threads, self.met)
        return int(self.base + self.cache + _FIRST + busy * self.needs.block(self.side))

    @property
    def formula(self) -> str:
        """How the peak is made up."""
        busy = min(self.crew.threads, self.met)
        slab = f" + {quantity(self.needs.slab)}B a slab" if self.needs.slab else ""
        return (
            f"{quantity(self.base)}B the process + {quantity(self.cache)}B GDAL's cache + {quantity(_FIRST)}B loaded later + "
            f"{busy} thread{'s' * (busy > 1)} x ({self.side} x {self.side} px x {self.needs.pixel:.0f} B{slab} + "
            f"{quantity(self.needs.gaps(self.side))}B between tensors)"
        )

    @property
    def share(self) -> float:
        """Share of the blocks that are made."""
        return self.met / len(self.blocks)

    @property
    def pixels(self) -> int:
        """Pixels that are read inside the raster, halos included."""
        blocks = self.blocks
        high, wide = (
            _covered(int(n), blocks.size, blocks.halo) for n in (blocks.geobox.shape.y, blocks.geobox.shape.x)
        )
        return high * wide

    def on(self, compute: ComputeSettings) -> ComputeSettings:
        """Return where the work runs, with the threads that were chosen."""
        return compute.model_copy(update={"threads": self.crew.threads})

    def rows(self, disk: float, free: float) -> list[tuple[str, object]]:
        """Return the plan as a table; ``disk`` bytes are needed at most, ``free`` are there."""
        blocks, crew = self.blocks, self.crew
        once = int(blocks.geobox.shape.y) * int(blocks.geobox.shape.x)
        rows: list[tuple[str, object]] = [
            ("blocks", f"{len(blocks)} of {blocks.size} px, read with {blocks.halo} px around"),
            *([("", f"{self.met} of them meet the area and are made")] if self.met < len(blocks) else []),
            (
                "bytes read",
                f"{quantity(self.share * self.pixels * self.stored)}B uncompressed, {self.pixels / once - 1:.0%} of it again "
                f"for halos; {quantity(self.files)}B in files",
            ),
            ("workers", spoken_crew(crew)),
        ]
        if crew.heard:
            rows.append(("", f"{crew.heard}; planned with {crew.threads} threads, as this machine has"))
        rows += [
            ("memory", f"about {quantity(self.peak)}B at most per worker, of {quantity(self.budget)}B"),
            ("", f"= {self.formula}"),
            ("disk", f"at most {quantity(disk)}B for parts and maps, {quantity(free)}B free"),
        ]
        return rows

    def short(self) -> str:
        """Return the plan in a sentence."""
        return (
            f"{self.met} block{'s' * (self.met > 1)} of {self.blocks.size} px, {self.at_once} at once; about "
            f"{quantity(self.peak)}B of memory per worker, of {quantity(self.budget)}B"
        )


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
        yield min(mine, key=lambda p: (-(-p.met // _TASKS) * p.side**2, -p.blocks.size))


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


def spoken_crew(crew: Crew) -> str:
    """Return who does the work, in words."""
    many = "s" * (crew.workers > 1)
    who = {
        "here": "this process",
        "processes": f"{crew.workers} process{'es' * (crew.workers > 1)}",
        "gpus": f"{crew.workers} process{'es' * (crew.workers > 1)}, a GPU each",
        "cluster": f"a cluster of {crew.workers} worker{many}",
    }[crew.place]
    return (
        f"{who}, {crew.threads} thread{'s' * (crew.threads > 1)} each"
        if crew.place != "here"
        else (f"{who}, {crew.threads} thread{'s' * (crew.threads > 1)}")
    )


def _covered(length: int, size: int, halo: int) -> int:
    """Return how many pixels along an axis are read by all blocks together, those outside the raster left out."""
    return sum(min(length, i + size + halo) - max(0, i - halo) for i in range(0, length, size))

"""What a map or an explanation takes, before anything of it is run: blocks, bytes, memory, workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.crew import Crew
from pipeline.grid import BlockGrid
from workflows.console import quantity
from workflows.needs import Needs

if TYPE_CHECKING:
    from pipeline.settings import ComputeSettings

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

"""Places drawn over the whole image, for networks that learn without labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from odc.geo.geobox import GeoBox

from pipeline.grid import BlockGrid, Window, whole
from pipeline.imagery.area import blocks_meeting
from pipeline.samples.labels import IGNORE, Labels, LabelTile
from pipeline.samples.legend import Legend, LegendClass

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

Array = np.ndarray[Any, Any]

# Places are drawn from at most so many squares of land, about this many pixels wide: of a large raster not all is read.
_LANDS, _LAND = 256, 512

LAND = "land"
"""Name of the one class that places without a label have."""


@dataclass
class Unlabelled(Labels):
    """Squares of land that were drawn; every pixel of them is of the one class `LAND`.

    Attributes
    ----------
    cell : int
        Side of a square in pixels.
    cells : (n, 2) int64
        Row and column of each square on the lattice of squares, sorted.
    """

    cell: int = 1
    cells: Array = field(default_factory=lambda: np.zeros((0, 2), np.int64))

    def read(self, window: Window, period: int = 0) -> LabelTile:  # noqa: ARG002 - land is there at any time
        """Return the labels of a window; see `Labels.read`."""
        codes = np.full(window.shape, IGNORE, np.int16)
        first, last = self._rows(window)
        for y, x in (self.cells[first:last] * self.cell).tolist():
            square = Window(y=y, x=x, height=self.cell, width=self.cell).intersect(whole(self.geobox))
            inside = square.intersect(window) if square else None
            if inside is not None:
                codes[inside.within(window)] = 0
        return LabelTile(codes, np.full(window.shape, -1, np.int32))

    def windows(self, size: int, period: int = 0) -> Iterator[Window]:  # noqa: ARG002 - land is there at any time
        """Yield the windows in which squares were drawn; see `Labels.windows`."""
        grid = BlockGrid(geobox=self.geobox, size=size)
        starts = self.cells * self.cell
        ends = np.minimum(starts + self.cell, (int(self.geobox.shape.y), int(self.geobox.shape.x))) - 1
        first, last = starts // size, ends // size
        found: set[int] = set()
        # A square may reach over several windows, each way.
        for step in np.ndindex(*((last - first).max(0, initial=0) + 1)):
            rows, columns = np.minimum(first + step, last).T
            found |= set((rows * grid.columns + columns).tolist())
        return (grid[i].core for i in sorted(found))

    def _rows(self, window: Window) -> tuple[int, int]:
        """Return the range of squares whose rows may meet a window."""
        first = np.searchsorted(self.cells[:, 0], window.y // self.cell, "left")
        last = np.searchsorted(self.cells[:, 0], (window.y + window.height - 1) // self.cell, "right")
        return int(first), int(last)


def draw_places(geobox: GeoBox, *, cell: int, number: int, seed: int, area: BaseGeometry | None = None) -> Unlabelled:
    """Draw squares of land at random, all that there are where they are not more than asked for.

    Parameters
    ----------
    geobox : GeoBox
        The grid.
    cell : int
        Side of a square in pixels: of a chip, or 1.
    number : int
        How many.
    seed : int
        The same seed draws the same.
    area : BaseGeometry, optional
        They are drawn from the land that it meets.
    """
    rng = np.random.default_rng(seed)
    lands = BlockGrid(geobox=geobox, size=cell * max(1, _LAND // cell))
    of = np.arange(len(lands)) if area is None else blocks_meeting(area, lands)
    if len(of) > _LANDS:
        of = np.sort(rng.choice(of, _LANDS, replace=False))
    firsts, widths, counts = zip(*(_squares(lands[int(i)].inner, cell) for i in of), strict=True)
    ends = np.cumsum(counts)
    # By their numbers: a large raster has more of them than can be listed.
    total = int(ends[-1])
    drawn = rng.choice(total, number, replace=False) if total > number else np.arange(total)
    land = np.searchsorted(ends, drawn, "right")
    down, along = np.divmod(drawn - (ends - counts)[land], np.array(widths)[land])
    cells = np.array(firsts)[land] + np.stack([down, along], 1)
    cells = cells[np.lexsort((cells[:, 1], cells[:, 0]))]
    legend = Legend((LegendClass(name=LAND, code=1, color="#777777", values=(LAND,)),))
    what = f"squares of {cell} px" if cell > 1 else "pixels"
    note = f"no labels: {len(cells):,} {what} drawn over the image are the samples"
    return Unlabelled(geobox=geobox, legend=legend, notes=[note], cell=cell, cells=cells)


def _squares(land: Window, cell: int) -> tuple[tuple[int, int], int, int]:
    """Return row and column of the first square of a piece of land, how many stand in a row of it, and how many in all."""
    rows, columns = -(-land.height // cell), -(-land.width // cell)
    return (land.y // cell, land.x // cell), columns, rows * columns

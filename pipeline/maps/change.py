"""What became of what: the ground that went from class to class between two maps of one grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox

from pipeline.errors import RunError
from pipeline.grid import BlockGrid
from pipeline.maps.areas import cells
from pipeline.maps.layers import LegendEntry

Array = np.ndarray[Any, Any]

# Side of the windows that are read.
_WINDOW = 2048


@dataclass(frozen=True, slots=True)
class Change:
    """Ground that both maps show.

    Attributes
    ----------
    pixels : (K, K) int64
        Rows = class before, columns = class after, in the order of the legend.
    hectares : (K, K) float64
        The same on the ellipsoid.
    """

    pixels: Array
    hectares: Array

    @property
    def changed(self) -> float:
        """Share of the ground whose class is another; NaN where the maps share none."""
        total = float(self.hectares.sum())
        return float("nan") if total == 0 else 1 - float(np.trace(self.hectares)) / total


def change(before: Path, after: Path, classes: Sequence[LegendEntry]) -> Change:
    """Compare two class maps of one grid, window by window, at full resolution.

    Parameters
    ----------
    before, after : Path
        Class maps of the same legend.
    classes : sequence of K LegendEntry
        The legend.

    Raises
    ------
    RunError
        If the maps are not on one grid.
    """
    n = len(classes)
    pixels, metres = np.zeros(n * n, np.int64), np.zeros(n * n)
    with rasterio.open(before) as first, rasterio.open(after) as second:
        if (first.shape, first.transform, first.crs) != (second.shape, second.transform, second.crs):
            raise RunError(f"{before} and {after} are not on one grid: what changed between them cannot be counted")
        geobox = GeoBox(first.shape, first.transform, first.crs.to_wkt())
        index = np.full(int(np.iinfo(first.dtypes[0]).max) + 1, -1, np.int64)
        for i, entry in enumerate(classes):
            index[int(entry.code)] = i
        for block in BlockGrid(geobox=geobox, size=_WINDOW):
            window = block.inner.to_rasterio()
            a, b = (index[source.read(1, window=window)] for source in (first, second))
            both = np.where((a < 0) | (b < 0), -1, a * n + b)
            for (rows, columns), area in cells(geobox, block.inner):
                found = both[rows, columns]
                count = np.bincount(found[found >= 0], minlength=n * n)
                pixels += count
                metres += count * area
    return Change(pixels.reshape(n, n), metres.reshape(n, n) / 10_000)

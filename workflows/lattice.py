"""An even sample of the pixels of a layer, whatever its size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import Resampling

from pipeline.grid import Window
from workflows.pictures import decimated

Array = np.ndarray[Any, Any]

# Side of a tile in pixels: that of the tiles of our layers. Tiles looked at along each side: fewer where a layer has many bands.
_SIDE = 512
_MOST_TILES, _LEAST_TILES, _PLANES = 8, 4, 512
_PIXELS = 100_000
# Longer side of a picture of the layer, to see where it holds anything at all.
_PICTURE = 512


@dataclass(frozen=True, slots=True)
class Sampled:
    """Pixels of a layer.

    Attributes
    ----------
    values : (n, N) float
        Its bands.
    classes : (N,) int
        Codes of the class map there; zero where none was asked for.
    step : int
        Of the rows and columns of a tile, each of this number was taken.
    tiles, of_tiles : int
        Tiles that were read, and those there are around all that the layer holds.
    """

    values: Array
    classes: Array
    step: int
    tiles: int
    of_tiles: int

    @property
    def whole(self) -> bool:
        """Whether all pixels are in it."""
        return self.step == 1 and self.tiles == self.of_tiles


def even_sample(path: Path, classes: Path | None, *, most: int = _PIXELS, side: int = _SIDE) -> Sampled:
    """Return pixels of a layer, evenly over where it holds values: all of a small one, and of a huge one no more work.

    Tiles at full resolution on a lattice are read, one at a time, and of each every so many-th row and column. Overviews are of
    no use here: shares of a mean are not the mean of shares.

    Parameters
    ----------
    path : Path
        The layer; NaN is nodata.
    classes : Path, optional
        A class map on the same grid, read at the same pixels.
    most : int
        About how many pixels.
    side : int
        Of a tile, in pixels.
    """
    with rasterio.open(path) as layer, rasterio.open(classes or path) as beside:
        rows, columns = _tiles(layer, side)
        per_side = min(max(math.isqrt(_PLANES // layer.count), _LEAST_TILES), _MOST_TILES)
        windows = [
            Window(y=y, x=x, height=min(side, layer.height - y), width=min(side, layer.width - x)).to_rasterio()
            for y in _spread(rows, per_side)
            for x in _spread(columns, per_side)
        ]
        step = max(1, math.ceil(math.sqrt(sum(w.height * w.width for w in windows) / most)))
        values, codes = [], []
        for window in windows:
            taken = layer.read(window=window)[:, ::step, ::step].reshape(layer.count, -1)
            good = np.isfinite(taken).all(0)
            values.append(taken[:, good])
            named = beside.read(1, window=window) if classes else np.zeros((window.height, window.width), np.int64)
            codes.append(named[::step, ::step].reshape(-1)[good])
        return Sampled(
            values=np.concatenate(values, axis=1),
            classes=np.concatenate(codes),
            step=step,
            tiles=len(windows),
            of_tiles=len(rows) * len(columns),
        )


def _tiles(layer: Any, side: int) -> tuple[range, range]:
    """Return the first rows and columns of the tiles around all that a layer holds, as a small picture of it shows."""
    _, valid = decimated(layer, _PICTURE, Resampling.nearest)
    found = []
    for axis, length in enumerate(layer.shape):
        held = np.flatnonzero(valid.any(1 - axis))
        first, last = (int(held[0]), int(held[-1]) + 1) if len(held) else (0, valid.shape[axis])
        scale = length / valid.shape[axis]
        found.append(range(int(first * scale) // side * side, min(length, math.ceil(last * scale)), side))
    return found[0], found[1]


def _spread(places: range, most: int) -> list[int]:
    """Return no more than so many of the places, evenly spread."""
    return sorted({places[round(i)] for i in np.linspace(0, len(places) - 1, min(len(places), most))})

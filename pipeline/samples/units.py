"""What folds divide, and how much each piece weighs: whole features, or blocks of land."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.errors import LabelError
from pipeline.grid import BlockGrid
from pipeline.samples.labels import IGNORE, Labels
from pipeline.samples.rounds import FEW
from pipeline.samples.shapes import VectorLabels, pixel_bounds
from pipeline.settings import FoldSettings

Array = np.ndarray[Any, Any]

# Blocks of land across the extent, in each direction, when their size is not given.
_BLOCKS_ACROSS = 8
# How often that size is halved at most, where a class lies in too few blocks.
_HALVINGS = 3
# Blocks may be a tenth of a country wide: labels are rasterised in pieces of at most so many pixels on a side.
_PIECE = 1024


def feature_weights(labels: VectorLabels) -> Array:
    """Return the size of each feature in pixels under its class, (n, K); a line's is its length."""
    across = abs(float(labels.geobox.resolution.x))
    pixel = across * abs(float(labels.geobox.resolution.y))
    shapes = labels.frame.geometry.to_numpy()
    line = shapely.get_dimensions(shapes) == 1
    # In units of the grid's CRS, also where they are degrees: what counts is pixels.
    size = np.maximum(np.where(line, shapely.length(shapes) / across, shapely.area(shapes) / pixel), 1.0)
    weights = np.zeros((len(size), len(labels.legend.classes)))
    weights[np.arange(len(size)), labels.feature_class] = size
    return weights


def together(labels: VectorLabels) -> Array:
    """Return the number of the place of each feature, (n,) int64: features of different periods that share ground are one.

    A pixel that trains in one year and is tested in another would be tested on what it was trained on.
    """
    n = labels.n_features
    if len(labels.periods) == 1:
        return np.arange(n)
    shapes = labels.frame.geometry.to_numpy()
    period = labels.feature_period
    # Grown to the pixels they lie in: two points in one pixel are one place.
    y0, x0, y1, x1 = pixel_bounds(shapes, labels.geobox).T
    boxes = shapely.box(x0 + 0.1, y0 + 0.1, x1 + 0.9, y1 + 0.9)
    a, b = shapely.STRtree(boxes).query(boxes, predicate="intersects")
    near = (period[a] != period[b]) & _share(shapes, a, b)
    links = coo_array((np.ones(int(near.sum())), (a[near], b[near])), shape=(n, n))
    _, place = connected_components(links, directed=False)
    # Numbered by the first feature of each, whatever the library does.
    _, first, number = np.unique(place, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[number], dtype=np.int64)


def _share(shapes: Array, a: Array, b: Array) -> Array:
    """Return which pairs of features share ground; points and lines whose bounds share pixels are taken to."""
    flat = shapely.get_dimensions(shapes) == 2
    return np.asarray(~(flat[a] & flat[b]) | shapely.intersects(shapes[a], shapes[b]))


def _block_weights(labels: Labels, side: int) -> tuple[Array, Array]:
    """Return the blocks of land with labels, (n, 2) row and column, and their labelled pixels per class, (n, K)."""
    found: dict[tuple[int, int], Array] = {}
    land = BlockGrid(geobox=labels.geobox, size=side)
    for period in range(len(labels.periods)):
        for window in labels.windows(min(side, _PIECE), period):
            codes = labels.read(window, period).codes
            for block in land.covering(window):
                part = block.core.intersect(window)
                assert part is not None, "only blocks that meet the window are asked for"
                own = codes[part.within(window)]
                count = np.bincount(own[own != IGNORE].astype(np.int64), minlength=len(labels.legend.classes))
                if count.any():
                    cell = divmod(block.index, land.columns)
                    found[cell] = found.get(cell, 0) + count
    cells = sorted(found)
    return np.array(cells, dtype=np.int64).reshape(-1, 2), np.array([found[c] for c in cells], dtype=np.float64)


def blocks_of_land(labels: Labels, settings: FoldSettings, halo: int, notes: list[str]) -> tuple[int, Array, Array]:
    """Return the side of a block of land, the blocks with labels and what they hold."""
    resolution = abs(float(labels.geobox.resolution.x))
    if settings.size is not None:
        side = round(settings.size / resolution)
        if side < 1:
            raise LabelError(f"folds.size: {settings.size:g} is less than a pixel ({resolution:g})")
        return side, *_block_weights(labels, side)
    least = max(2 * halo, 1)
    side = max(_extent(labels) // _BLOCKS_ACROSS, least)
    cells, weights = _block_weights(labels, side)
    for _ in range(_HALVINGS):
        if (weights > 0).sum(0).min() >= FEW or side // 2 < least:
            break
        side //= 2
        cells, weights = _block_weights(labels, side)
    notes.append(
        f"folds: blocks of land of {side} px ({side * resolution:g} in map units); set folds.size to change it"
    )
    return side, cells, weights


def _extent(labels: Labels) -> int:
    """Return the shorter side, in pixels, of the land that labels lie on."""
    height, width = int(labels.geobox.shape.y), int(labels.geobox.shape.x)
    if isinstance(labels, VectorLabels):
        bounds = pixel_bounds(labels.frame.geometry.to_numpy(), labels.geobox)
        (y0, x0), (y1, x1) = bounds[:, :2].min(0), bounds[:, 2:].max(0)
        height, width = min(height, int(y1) + 1) - max(0, int(y0)), min(width, int(x1) + 1) - max(0, int(x0))
    return min(height, width)

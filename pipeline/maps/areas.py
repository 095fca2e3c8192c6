"""Areas of the classes of a map: counted at full resolution, and adjusted by what is known of the map's errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox

from pipeline.errors import RunError
from pipeline.grid import Block, BlockGrid, Window
from pipeline.maps.estimation import adjusted_areas
from pipeline.maps.layers import LegendEntry
from pipeline.maps.surface import by_rows, cell_areas

# Side of the windows that are read, and of the cells within which the scale of a projection is taken as constant.
_WINDOW = 2048
_CELL = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Extent of one class.

    Attributes
    ----------
    pixels : int
        Number of pixels.
    square_metres : float
        Their area on the ellipsoid.
    """

    pixels: int
    square_metres: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaRow:
    """What is known of the extent of one class.

    Attributes
    ----------
    code, name, color
        The class.
    pixels : int
        Pixels the map shows of it.
    samples : int
        Reference samples that fell on what the map calls this class.
    counted_ha : float
        Their area, in hectares.
    adjusted_ha, interval_ha : float or None
        Estimated area and half width of its 95 % interval; None where fewer than two samples fell on the class.
    note : str
        Why there is no estimate; empty where there is one.
    """

    code: int
    name: str
    color: str
    pixels: int
    samples: int
    counted_ha: float
    adjusted_ha: float | None
    interval_ha: float | None
    note: str


def areas(
    confusion: np.ndarray[Any, Any], counted: Mapping[int, Counted], classes: Sequence[LegendEntry]
) -> list[AreaRow]:
    """Return a row for each class of the legend, with counted and error-adjusted areas.

    Parameters
    ----------
    confusion : (K, K) int
        Rows = reference, columns = map, in the order of the legend.
    counted : dict of Counted
        What `count_areas` found.
    classes : sequence of K LegendEntry
        The legend.

    Returns
    -------
    list of AreaRow
        Where a class of the map has fewer than two samples, its area is left out of the estimates of all classes:
        nobody knows what lies there.
    """
    nothing = Counted(pixels=0, square_metres=0.0)
    found = [counted.get(int(c.code), nothing) for c in classes]
    hectares = [f.square_metres / 10_000 for f in found]
    estimated = adjusted_areas(confusion, hectares)
    samples = confusion.sum(axis=0)
    rows = []
    for i, entry in enumerate(classes):
        area = None if i in estimated.unsampled else estimated.areas[i]
        rows.append(
            AreaRow(
                code=int(entry.code),
                name=str(entry.name),
                color=str(entry.color),
                pixels=found[i].pixels,
                samples=int(samples[i]),
                counted_ha=hectares[i],
                adjusted_ha=None if area is None else area.value,
                interval_ha=None if area is None else area.margin,
                note="" if area is not None else f"{int(samples[i])} samples on this class of the map: no estimate",
            )
        )
    return rows


def count_areas(path: Path) -> dict[int, Counted]:
    """Count the classes of a map, window by window, at full resolution.

    Parameters
    ----------
    path : Path
        A class map: one band of unsigned integers with nodata.

    Returns
    -------
    dict of Counted
        By code, ascending; nodata and codes that do not occur are absent.

    Raises
    ------
    RunError
        If the map has no CRS, so that nobody knows how large a pixel is.
    """
    with rasterio.open(path) as source:
        if source.crs is None:
            raise RunError(f"{path} has no CRS: areas cannot be computed")
        geobox = GeoBox(source.shape, source.transform, source.crs.to_wkt())
        codes = int(np.iinfo(source.dtypes[0]).max) + 1
        pixels = np.zeros(codes, np.int64)
        areas = np.zeros(codes, np.float64)
        for block in BlockGrid(geobox=geobox, size=_WINDOW):
            values = source.read(1, window=block.inner.to_rasterio())
            # Much of a large map may be outside its area.
            if source.nodata is not None and (values == source.nodata).all():
                continue
            counted, size = _count(values, geobox, block, codes)
            pixels += counted
            areas += size
        if source.nodata is not None:
            pixels[int(source.nodata)] = 0
    return {
        int(code): Counted(pixels=int(pixels[code]), square_metres=float(areas[code]))
        for code in np.flatnonzero(pixels)
    }


def _count(
    values: np.ndarray[Any, Any], geobox: GeoBox, block: Block, codes: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return pixels and square metres per code in a window, cell by cell."""
    pixels = np.zeros(codes, np.int64)
    areas = np.zeros(codes, np.float64)
    for where, size in cells(geobox, block.inner):
        counted = np.bincount(values[where].ravel(), minlength=codes)
        pixels += counted
        areas += counted * size
    return pixels, areas


def cells(geobox: GeoBox, window: Window) -> Iterator[tuple[tuple[slice, slice], float]]:
    """Yield the cells of a window, as slices of it, within which pixels are of one size, and that size in square metres."""
    rows, columns = (1, window.width) if by_rows(geobox) else (_CELL, _CELL)
    size = cell_areas(geobox, window, rows, columns)
    for i, y in enumerate(range(0, window.height, rows)):
        for j, x in enumerate(range(0, window.width, columns)):
            yield (slice(y, y + rows), slice(x, x + columns)), float(size[i, j])

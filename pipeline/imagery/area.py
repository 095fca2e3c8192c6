"""The area to be mapped: outside it, nothing is valid."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from odc.geo.geobox import GeoBox
from rasterio.features import geometry_mask

from pipeline.errors import ImageryError
from pipeline.grid import BlockGrid, Window, window_geobox, wkt

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

Array = np.ndarray[Any, Any]

# A pixel whose centre lies on the very edge falls to one side by the rounding of coordinates. Burning on a lattice that is
# fixed to the grid makes that side the same through whatever window the pixel is read.
_LATTICE = 256


def area_on(path: str, geobox: GeoBox) -> BaseGeometry:
    """Return the union of the polygons of a vector file, in the CRS of a grid.

    Raises
    ------
    ImageryError
        If it cannot be read, has no CRS or no polygons, or does not meet the grid.
    """
    import geopandas as gpd
    from pyogrio.errors import DataLayerError, DataSourceError

    try:
        frame = gpd.read_file(path)
    except (DataSourceError, DataLayerError) as error:
        raise ImageryError(f"area: {path} cannot be read: {error}") from error
    if not isinstance(frame, gpd.GeoDataFrame):
        raise ImageryError(f"area: {path} holds a table without geometries; give a file of polygons")
    if frame.crs is None:
        raise ImageryError(f"area: {path} states no CRS; write it again with one")
    shapes = frame.geometry[frame.geometry.notna()].make_valid().to_crs(wkt(geobox))
    union: BaseGeometry = shapely.union_all(
        [part for shape in shapes for part in shapely.get_parts(shape) if _has_area(part)]
    )
    if union.is_empty:
        raise ImageryError(f"area: {path} holds no polygon")
    if not union.intersects(geobox.extent.geom):
        raise ImageryError(
            f"area: {path} lies outside the grid: {_extent(union.bounds)} against {_extent(geobox.boundingbox.bbox)} (grid)"
        )
    return union


def blocks_meeting(area: BaseGeometry, blocks: BlockGrid) -> Array:
    """Return the numbers of the blocks that an area meets, (n,) int64, ascending; the area may reach beyond the grid."""
    left, bottom, right, top = area.bounds
    corners = [~blocks.geobox.affine * (x, y) for x in (left, right) for y in (bottom, top)]
    x, y = (math.floor(min(c[i] for c in corners)) for i in (0, 1))
    far_x, far_y = (math.ceil(max(c[i] for c in corners)) for i in (0, 1))
    extent = Window(y=y, x=x, height=max(1, far_y - y), width=max(1, far_x - x))
    near = list(blocks.covering(extent))
    # All at once, and the area indexed once: a coast has a hundred thousand corners, and a country as many blocks.
    places = np.array([(b.inner.x, b.inner.y, b.inner.right, b.inner.bottom) for b in near], float).reshape(-1, 4)
    ring = places[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]
    a = blocks.geobox.affine
    outlines = shapely.polygons(ring @ np.array([[a.a, a.d], [a.b, a.e]]) + (a.c, a.f))
    shapely.prepare(area)
    return np.asarray(np.array([b.index for b in near], np.int64)[shapely.intersects(area, outlines)])


def inside_area(area: BaseGeometry, geobox: GeoBox, window: Window) -> Array:
    """Return where the centres of a window's pixels lie in the area, (h, w) bool; the window lies on the grid."""
    inside = np.zeros(window.shape, bool)
    for block in BlockGrid(geobox=geobox, size=_LATTICE).covering(window):
        part = block.inner.intersect(window)
        assert part is not None, "only blocks that meet the window are asked for"
        inside[part.within(window)] = _burnt(area, geobox, block.inner)[part.within(block.inner)]
    return inside


def _burnt(area: BaseGeometry, geobox: GeoBox, tile: Window) -> Array:
    box = window_geobox(geobox, tile)
    if area.contains(box.extent.geom):
        return np.ones(tile.shape, bool)
    if not area.intersects(box.extent.geom):
        return np.zeros(tile.shape, bool)
    return np.asarray(~geometry_mask([area], tile.shape, box.affine, all_touched=False))


def _has_area(shape: BaseGeometry) -> bool:
    return shape.geom_type in ("Polygon", "MultiPolygon")


def _extent(bounds: Any) -> str:
    return "({:.6g}, {:.6g}) to ({:.6g}, {:.6g})".format(*bounds)

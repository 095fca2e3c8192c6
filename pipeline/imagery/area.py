"""The area to be mapped: outside it, nothing is valid."""

from __future__ import annotations

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

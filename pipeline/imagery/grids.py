"""The output grid: from a raster, from settings, or both."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox
from pyproj.exceptions import CRSError
from rasterio.errors import RasterioError
from rasterio.warp import transform_bounds

from pipeline.errors import ImageryError
from pipeline.grid import wkt
from pipeline.imagery.handles import open_raster
from pipeline.imagery.sources import Source
from pipeline.settings import GridSettings

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

# A grid is described by integers that GDAL keeps in 32 bits.
_LARGEST = 2**31 - 1


def output_grid(first: Source, settings: GridSettings | None, notes: list[str]) -> GeoBox:
    """Return the grid of all outputs.

    Parameters
    ----------
    first : Source
        The first source; what the settings leave open is taken from it.
    settings : GridSettings or None
        The job's own wishes.
    notes : list of str
        Is added to.

    Raises
    ------
    ImageryError
        If there is no CRS or no grid of rows and columns; says why.
    """
    settings = settings or GridSettings()
    if settings.like is not None:
        own = raster_grid(settings.like, None, notes)
    elif settings.crs and settings.resolution and settings.bounds:
        own = None
    else:
        own = raster_grid(first.path, first.crs, notes)
    if own is not None and settings.crs is None and settings.resolution is None and settings.bounds is None:
        return own
    crs = _crs(settings.crs, "grid.crs") if settings.crs else own.crs if own else None
    if crs is None:
        raise ImageryError("the grid has no CRS; give grid.crs")
    bounds: tuple[float, ...] = settings.bounds or _bounds(own, crs)
    left, bottom, right, top = bounds
    if not (left < right and bottom < top):
        raise ImageryError(f"grid.bounds: expected left < right and bottom < top, found {list(bounds)}")
    resolution = settings.resolution
    if resolution is None:
        if own is None or own.crs != crs:
            raise ImageryError("grid.crs differs from the CRS of the imagery: give grid.resolution too, in its units")
        if abs(own.resolution.x) != abs(own.resolution.y):
            return _snapped(own, bounds)
        resolution = abs(float(own.resolution.x))
    if max(right - left, top - bottom) / resolution > _LARGEST:
        raise ImageryError(
            f"grid.resolution {resolution:g} over {list(bounds)} gives more pixels than a raster can hold"
        )
    return GeoBox.from_bbox(BoundingBox(left, bottom, right, top, crs), resolution=resolution)


def _snapped(own: GeoBox, bounds: tuple[float, ...]) -> GeoBox:
    """Return the part of a grid that covers bounds."""
    left, bottom, right, top = bounds
    a = own.affine
    x, y = math.floor((left - a.c) / a.a + 1e-6), math.floor((top - a.f) / a.e + 1e-6)
    width, height = math.ceil((right - a.c) / a.a - 1e-6) - x, math.ceil((bottom - a.f) / a.e - 1e-6) - y
    return GeoBox((height, width), own.translate_pix(x, y).affine, own.crs)


def _bounds(own: GeoBox | None, crs: CRS) -> tuple[float, ...]:
    assert own is not None, "without a raster the bounds are given"
    box = own.boundingbox
    if own.crs == crs:
        return (box.left, box.bottom, box.right, box.top)
    try:
        found = transform_bounds(wkt(own), crs.to_wkt(), box.left, box.bottom, box.right, box.top)
    except RasterioError as error:
        raise ImageryError(
            f"the first raster's extent cannot be expressed in {crs}: {error}; give grid.bounds"
        ) from error
    if not all(map(math.isfinite, found)):
        raise ImageryError(f"the first raster's extent cannot be expressed in {crs}; give grid.bounds")
    return tuple(found)


def raster_grid(path: str, crs: str | None, notes: list[str]) -> GeoBox:
    """Return the grid of a raster, north up.

    Raises
    ------
    ImageryError
        If it has no CRS, or no rows and columns along the axes of one; says what to do.
    """
    with open_raster(path) as dataset:
        own: Any = dataset.crs.to_wkt() if dataset.crs else crs
        transform, shape = dataset.transform, dataset.shape
        points, polynomials = bool(dataset.gcps[0]), dataset.rpcs is not None
    give = "give the output `grid` (crs, resolution, bounds), and it is resampled"
    if transform.is_identity and (points or polynomials):
        kind = "ground control points" if points else "rational polynomials (RPC)"
        raise ImageryError(f"{path} is placed by {kind}, and has no grid of its own; {give}")
    if own is None:
        raise ImageryError(f"{path} states no CRS; give it with `crs`, such as crs: EPSG:32633")
    if transform.b or transform.d:
        raise ImageryError(f"{path} is rotated against the axes of its CRS; {give}")
    if transform.is_identity:
        raise ImageryError(f"{path} has a CRS but no position (its transform is the identity); {give}")
    box = GeoBox(shape, transform, _crs(own, path))
    if transform.e > 0 or transform.a < 0:
        notes.append(f"{path} is stored south up or mirrored; maps are made north up")
        bounds = box.boundingbox
        step = (abs(transform.a), -abs(transform.e))
        north = Affine(step[0], 0, bounds.left, 0, step[1], bounds.top)
        box = GeoBox(shape, north, box.crs)
    return box


def _crs(text: Any, where: str) -> CRS:
    try:
        return CRS(text)
    except (CRSError, ValueError) as error:
        raise ImageryError(f"{where}: the CRS is not understood ({' '.join(str(error).split())[:200]})") from error


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
    if frame.crs is None:
        raise ImageryError(f"area: {path} states no CRS")
    frame = frame.to_crs(wkt(geobox))
    polygons = frame.geometry[frame.geometry.geom_type.isin(["Polygon", "MultiPolygon"])].make_valid()
    if polygons.empty:
        raise ImageryError(f"area: {path} holds no polygon")
    union: BaseGeometry = polygons.union_all()
    if not union.intersects(geobox.extent.geom):
        raise ImageryError(
            f"area: {path} lies outside the grid: {_extent(union.bounds)} against {_extent(geobox.boundingbox.bbox)} (grid)"
        )
    return union


def _extent(bounds: Any) -> str:
    return "({:.6g}, {:.6g}) to ({:.6g}, {:.6g})".format(*bounds)

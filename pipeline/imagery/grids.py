"""The output grid: from a raster, from settings, or both."""

from __future__ import annotations

import math
from typing import Any

from affine import Affine
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox
from pyproj.exceptions import CRSError
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds

from pipeline.errors import ImageryError
from pipeline.grid import crs_name, wkt
from pipeline.imagery.handles import brief, open_raster
from pipeline.imagery.paths import file_name
from pipeline.imagery.remote import GDAL_ERRORS
from pipeline.imagery.sources import Source
from pipeline.imagery.views import placing, scattered, stated_crs
from pipeline.settings import GridSettings

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
    wanted = _crs(settings.crs, "grid.crs") if settings.crs else None
    if settings.like is not None:
        own = raster_grid(settings.like, None, notes)
    elif wanted and settings.resolution and (settings.bounds or not _has_grid(first.path)):
        own = None
    else:
        own = raster_grid(first.path, first.crs, notes)
    if own is not None and wanted is None and settings.resolution is None and settings.bounds is None:
        return own
    crs = wanted or (own.crs if own else None)
    assert crs is not None, "a grid of a raster has a CRS"
    bounds: tuple[float, ...] = settings.bounds or (_bounds(own, crs) if own else _warped_bounds(first, crs))
    left, bottom, right, top = bounds
    if not (left < right and bottom < top):
        raise ImageryError(f"grid.bounds: expected left < right and bottom < top, found {list(bounds)}")
    resolution = settings.resolution
    if own is not None and own.crs == crs and resolution in (None, _step(own)):
        return _snapped(own, bounds)
    if resolution is None:
        raise ImageryError("grid.crs differs from the CRS of the imagery: give grid.resolution too, in its units")
    if max(right - left, top - bottom) / resolution > _LARGEST:
        raise ImageryError(
            f"grid.resolution {resolution:g} over {list(bounds)} gives more pixels than a raster can hold"
        )
    return GeoBox.from_bbox(BoundingBox(left, bottom, right, top, crs), resolution=resolution)


def _step(own: GeoBox) -> float | None:
    """Return the side of a grid's pixels where they are square."""
    x, y = abs(float(own.resolution.x)), abs(float(own.resolution.y))
    return x if x == y else None


def _snapped(own: GeoBox, bounds: tuple[float, ...]) -> GeoBox:
    """Return the part of a grid that covers bounds."""
    left, bottom, right, top = bounds
    a = own.affine
    x, y = math.floor((left - a.c) / a.a + 1e-6), math.floor((top - a.f) / a.e + 1e-6)
    width, height = math.ceil((right - a.c) / a.a - 1e-6) - x, math.ceil((bottom - a.f) / a.e - 1e-6) - y
    return GeoBox((height, width), own.translate_pix(x, y).affine, own.crs)


def _bounds(own: GeoBox, crs: CRS) -> tuple[float, ...]:
    box = own.boundingbox
    if own.crs == crs:
        return (box.left, box.bottom, box.right, box.top)
    try:
        found = transform_bounds(wkt(own), crs.to_wkt(), box.left, box.bottom, box.right, box.top)
    except GDAL_ERRORS as error:
        raise ImageryError(
            f"the imagery's extent, in {crs_name(own)}, cannot be expressed in {crs}: {brief(error)}"
        ) from error
    if not all(map(math.isfinite, found)):
        raise ImageryError(f"the imagery reaches where {crs} has no coordinates; give grid.bounds")
    if found[0] > found[2]:
        raise ImageryError(
            f"the imagery crosses the antimeridian, and {crs} has no rectangle around it; choose a CRS of its region, such as "
            f"{crs_name(own)}, or give grid.bounds for one side"
        )
    return tuple(found)


def _has_grid(path: str) -> bool:
    with open_raster(path) as dataset:
        transform = dataset.transform
        return not (transform.is_identity or transform.b or transform.d)


def _warped_bounds(first: Source, crs: CRS) -> tuple[float, ...]:
    """Return the extent of a raster that has no grid of its own: rotated, or placed by points or polynomials."""
    with open_raster(first.path) as dataset:
        placed_crs(dataset, first.path, first.crs)
        try:
            with WarpedVRT(dataset, **placing(dataset, first.crs), crs=crs.to_wkt()) as view:
                return tuple(view.bounds)
        except GDAL_ERRORS as error:
            raise ImageryError(f"{first.path} cannot be placed in {crs}: {brief(error)}") from error


def placed_crs(dataset: Any, path: str, crs: str | None) -> Any:
    """Return the CRS in which a raster is placed.

    Raises
    ------
    ImageryError
        If it states none and none is given, or it has no position.
    """
    own = stated_crs(dataset, crs)
    if own is None:
        raise ImageryError(f"{path} states no CRS; give it with `crs`, such as crs: EPSG:32633")
    if dataset.transform.is_identity and not scattered(dataset):
        raise ImageryError(
            f"{path} has no position: its transform is the identity, and it has no ground control points; write one, for "
            "example with gdal_edit.py -a_ullr"
        )
    return own


def raster_grid(path: str, crs: str | None, notes: list[str]) -> GeoBox:
    """Return the grid of a raster, north up.

    Raises
    ------
    ImageryError
        If it has no CRS, or no rows and columns along the axes of one; says what to do.
    """
    give = "give the output `grid` (crs and resolution), and it is resampled"
    with open_raster(path) as dataset:
        transform, shape = dataset.transform, dataset.shape
        if scattered(dataset):
            kind = "ground control points" if dataset.gcps[0] else "rational polynomials (RPC)"
            raise ImageryError(f"{path} is placed by {kind}, and has no grid of its own; {give}")
        own = placed_crs(dataset, path, crs).to_wkt()
    if transform.b or transform.d:
        raise ImageryError(f"{path} is rotated against the axes of its CRS; {give}")
    box = GeoBox(shape, transform, _crs(own, path))
    if transform.e > 0 or transform.a < 0:
        notes.append(f"{file_name(path)} is stored south up or mirrored; maps are made north up")
        bounds = box.boundingbox
        step = (abs(transform.a), -abs(transform.e))
        north = Affine(step[0], 0, bounds.left, 0, step[1], bounds.top)
        box = GeoBox(shape, north, box.crs)
    return box


def _crs(text: Any, where: str) -> CRS:
    try:
        return CRS(text)
    except (CRSError, ValueError) as error:
        raise ImageryError(f"{where}: the CRS is not understood ({brief(error)})") from error

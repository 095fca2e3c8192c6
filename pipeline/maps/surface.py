"""True areas of pixels: on the ellipsoid, whatever the CRS of the grid."""

from __future__ import annotations

from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox
from pyproj import CRS, Proj

from pipeline.errors import RunError
from pipeline.grid import Window

# The projection of web maps takes latitudes of the ellipsoid for those of a sphere: PROJ's areal scale, which is the
# sphere's, is wrong for it by up to 0.7 %. Its rows are parallels, so it is computed as a geographic CRS is.
_WEB = "Popular Visualisation Pseudo Mercator"


def crs_of(geobox: GeoBox) -> CRS:
    """Return the CRS of a grid.

    Raises
    ------
    RunError
        If it has none: nobody knows then where it lies, and how large a pixel is.
    """
    if geobox.crs is None:
        raise RunError("the grid has no CRS: where it lies, and how large a pixel is, is not known")
    return geobox.crs.proj


def plane(
    geobox: GeoBox, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the coordinates in the CRS of places given as columns and rows, in fractions of pixels."""
    a = geobox.affine
    return a.a * x + a.b * y + a.c, a.d * x + a.e * y + a.f


def by_rows(geobox: GeoBox) -> bool:
    """Return whether areas are computed row by row: the CRS is geographic, or that of web maps."""
    crs = crs_of(geobox)
    operation = crs.coordinate_operation
    return crs.is_geographic or (operation is not None and operation.method_name == _WEB)


def cell_areas(geobox: GeoBox, window: Window, rows: int, columns: int) -> np.ndarray[Any, Any]:
    """Return the area of a pixel in each cell of a window.

    Where rows follow parallels (`by_rows`): exactly, by the area of the ellipsoid between two parallels, so cells must
    be single rows. Elsewhere: the pixel's area in the plane over the projection's areal scale at the centre of the
    cell; a place outside the projection's domain lies nowhere on Earth and has no area.

    Returns
    -------
    (cell rows, cell columns) float64
        Square metres of one pixel.
    """
    affine = geobox.affine
    y = window.y + np.minimum(np.arange(0, window.height, rows) + rows / 2, window.height)
    x = window.x + np.minimum(np.arange(0, window.width, columns) + columns / 2, window.width)
    if not by_rows(geobox):
        return _projected(geobox, *np.meshgrid(x, y))
    if rows != 1 or affine.b or affine.d:
        raise ValueError("areas between parallels are computed by rows of a grid that is not rotated")
    edges = affine.f + affine.e * np.stack((y - 0.5, y + 0.5))
    crs = crs_of(geobox)
    if crs.is_geographic:
        unit = crs.axis_info[0].unit_conversion_factor
        latitude, step = edges * unit, abs(affine.a) * unit
    else:
        _, degrees = Proj(crs)(np.zeros_like(edges), edges, inverse=True)
        latitude, step = np.radians(degrees), abs(affine.a) / _axes(crs)[0]
    zone = _zone(np.clip(latitude, -np.pi / 2, np.pi / 2), crs)
    strip = np.abs(np.diff(zone, axis=0)[0]) * step
    result: np.ndarray[Any, Any] = np.repeat(strip[:, None], len(x), axis=1)
    return result


def _axes(crs: CRS) -> tuple[float, float]:
    """Return the semi-axes of the ellipsoid in metres."""
    ellipsoid = crs.ellipsoid
    if ellipsoid is None:
        raise RunError(f"the CRS {crs.name!r} has no ellipsoid: true areas cannot be computed")
    return float(ellipsoid.semi_major_metre), float(ellipsoid.semi_minor_metre)


def _zone(latitude: np.ndarray[Any, Any], crs: CRS) -> np.ndarray[Any, Any]:
    """Return the area from the equator to a latitude, per radian of longitude (Snyder 1987, equation 3-12)."""
    a, b = _axes(crs)
    sine = np.sin(latitude)
    e = np.sqrt(1 - (b / a) ** 2)
    logarithm = np.arctanh(e * sine) / e if e else sine
    result: np.ndarray[Any, Any] = b**2 / 2 * (sine / (1 - (e * sine) ** 2) + logarithm)
    return result


def _projected(geobox: GeoBox, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    crs = crs_of(geobox)
    projection = Proj(crs)
    square = abs(geobox.affine.determinant) * crs.axis_info[0].unit_conversion_factor ** 2
    easting, northing = plane(geobox, x, y)
    longitude, latitude = projection(easting, northing, inverse=True)
    scale = np.asarray(projection.get_factors(longitude, latitude).areal_scale)
    on_earth = np.isfinite(scale) & (scale > 0)
    return np.where(on_earth, square / np.where(on_earth, scale, 1), 0.0)

"""Points of a file as pixels of a grid: places that somebody asks about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from odc.geo.geobox import GeoBox
from pyproj.exceptions import ProjError

from pipeline.errors import LabelError, nearest
from pipeline.grid import crs_name, wkt
from pipeline.samples.legend import text_of
from pipeline.samples.rasters import extent
from pipeline.samples.shapes import pixels_at
from pipeline.samples.vectors import Request, read_vectors

Array = np.ndarray[Any, Any]

# Fields that name a point, in the order in which they are looked for.
_NAMES = ("id", "name")
_REQUEST = Request(
    path="--at",
    layer="--at",
    one_layer="and points are read from one; give a file that holds one of",
    with_crs="write it again with one, or give a CSV with lon, lat",
)


@dataclass(frozen=True, slots=True)
class Point:
    """A point, and the pixel that it lies in.

    Attributes
    ----------
    number : int
        Its place in the file, from 1.
    name : str
        What the file calls it, by its field ``id`` or ``name``; empty where it has none.
    x, y : float
        Where it is, in the CRS of the grid.
    row, column : int
        The pixel, from 0.
    """

    number: int
    name: str
    x: float
    y: float
    row: int
    column: int

    def __str__(self) -> str:
        return f"point {self.number}" + (f" ({self.name})" if self.name else "")


def read_points(path: Path, crs: str | None, geobox: GeoBox, most: int) -> tuple[list[Point], list[str]]:
    """Return the points of a file that lie on a grid, and a sentence about each that does not.

    Parameters
    ----------
    path : Path
        Vector data of any format with points, or a CSV with ``lon, lat``, or with ``x, y``.
    crs : str or None
        CRS of coordinates that state none.
    geobox : GeoBox
        The grid.
    most : int
        How many points the file may hold.

    Raises
    ------
    LabelError
        If the file cannot be read, holds no points, other shapes, or too many, or none lies on the grid.
    """
    if not path.exists():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise LabelError(f"--at: there is no file {path}{nearest(path.name, beside)}")
    frame = read_vectors(path, None, crs, _REQUEST)
    _check(frame, path, most)
    try:
        placed = frame.to_crs(wkt(geobox))
    except ProjError as error:
        raise LabelError(
            f"--at: the points of {path} cannot be taken from their CRS ({frame.crs.name}) to that of the map "
            f"({crs_name(geobox)}): {error}"
        ) from error
    names = _names(frame)
    height, width = int(geobox.shape.y), int(geobox.shape.x)
    points, left = [], []
    for number, shape in zip(frame.index.tolist(), placed.geometry, strict=True):
        point = Point(number, names[number - 1], float("nan"), float("nan"), -1, -1)
        if shape is None or shape.is_empty:
            left.append(f"{point} has no coordinates")
            continue
        x, y = shapely.get_coordinates(shape)[0].tolist()
        row, column = (float(v) for v in pixels_at(geobox, x, y))
        # Where a place has no coordinates in a CRS they are infinite, and so neither within nor a number of a pixel.
        if 0 <= row < height and 0 <= column < width:
            points.append(Point(number, point.name, x, y, int(row), int(column)))
        else:
            left.append(f"{point} lies outside the map, at {x:.8g}, {y:.8g} in {crs_name(geobox)}")
    if not points:
        raise LabelError(
            f"--at: no point of {path} lies on the map\n"
            + "".join(f"  {text}\n" for text in left[:5])
            + f"  the map reaches from {extent(geobox.boundingbox.bbox)}\n"
            "Are the CRS of both right?"
        )
    return points, left


def _check(frame: gpd.GeoDataFrame, path: Path, most: int) -> None:
    """Refuse files that hold no points, other shapes, or too many."""
    if frame.empty:
        raise LabelError(f"--at: {path} holds no points; give one with at least one")
    shapes = frame.geometry
    several = shapes.geom_type.eq("MultiPoint") & (shapely.get_num_geometries(shapes.to_numpy()) > 1)
    other = shapes.notna() & (~shapes.geom_type.isin(("Point", "MultiPoint")) | several)
    if other.any():
        kinds = ", ".join(sorted(set(shapes.geom_type[other])))
        raise LabelError(
            f"--at: expected points, each explains the pixel that it lies in; feature {int(frame.index[other][0])} of {path} is "
            f"one of {int(other.sum())} that are something else ({kinds}); give single points, such as a point within each"
        )
    if len(frame) > most:
        raise LabelError(
            f"--at: {path} holds {len(frame)} points, and a picture each is made of {most} at most; choose some of them, or "
            "look at the layers of the map, which explain every pixel"
        )


def _names(frame: gpd.GeoDataFrame) -> list[str]:
    """Return what each point is called; empty where the file has no field for that."""
    fields = {str(c).strip().lower(): c for c in frame.columns if c != frame.geometry.name}
    field = next((fields[name] for name in _NAMES if name in fields), None)
    if field is None:
        return [""] * len(frame)
    return ["" if missing else text_of(value) for value, missing in zip(frame[field], frame[field].isna(), strict=True)]

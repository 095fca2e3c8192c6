"""Make features usable, and say what was done: empty and broken geometries, tiny polygons, overlaps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize
from shapely import STRtree

from pipeline.grid import Window, window_geobox
from pipeline.samples.legend import Legend, text_of
from pipeline.samples.shapes import pixel_bounds

Array = np.ndarray[Any, Any]

# Smaller shared areas, in pixels, are the rounding of coordinates.
_SLIVER = 0.01
# Rows or columns of a polygon's surroundings that are looked at once.
_STRIP = 1024


def named(frame: gpd.GeoDataFrame, field: str, notes: list[str]) -> gpd.GeoDataFrame:
    """Return the features that have a place and a label."""
    shapes = frame.geometry.to_numpy()
    # Not a number in a coordinate makes no place, though the geometry is not empty.
    bare = ~np.isfinite(shapely.bounds(shapes)).all(1)
    unnamed = ~bare & (frame[field].isna() | (frame[field].map(text_of) == "")).to_numpy()
    for which, what in ((bare, "a geometry"), (unnamed, f"a value of '{field}'")):
        if which.any():
            notes.append(_counted(frame.index[which], f"without {what}", "left out"))
    return frame[~bare & ~unnamed]


def sound(frame: gpd.GeoDataFrame, notes: list[str]) -> gpd.GeoDataFrame:
    """Return the features flat and valid; what of a geometry collapses to fewer dimensions is not kept."""
    shapes = shapely.force_2d(frame.geometry.to_numpy())
    broken = np.flatnonzero(~shapely.is_valid(shapes))
    for i in broken:
        dimension = shapely.get_dimensions(shapes[i])
        parts = _parts(shapely.make_valid(shapes[i]))
        kept = [p for p in parts if shapely.get_dimensions(p) == dimension]
        shapes[i] = shapely.union_all(kept or parts)
    if len(broken):
        notes.append(_counted(frame.index[broken], "with an invalid geometry", "repaired"))
    return frame.set_geometry(gpd.GeoSeries(shapes, index=frame.index, crs=frame.crs))


def _parts(shape: Any) -> list[Any]:
    """Return the simple geometries of a collection, however nested."""
    if not hasattr(shape, "geoms"):
        return [shape]
    return [part for inner in shape.geoms for part in _parts(inner)]


def reaching(frame: gpd.GeoDataFrame, geobox: GeoBox, notes: list[str]) -> gpd.GeoDataFrame:
    """Let polygons that cover no pixel centre take the pixel they lie in: their label is worth a pixel."""
    shapes = frame.geometry.to_numpy().copy()
    side = max(abs(float(geobox.resolution.x)), abs(float(geobox.resolution.y)))
    area, outline = shapely.area(shapes), shapely.length(shapes)
    # Any point lies within area / outline of the edge at most, if a circle of that radius fits nowhere inside; one of
    # half a pixel's diagonal covers a centre wherever it lies.
    narrow = (area > 0) & (area < np.sqrt(0.5) * side * outline)
    moved = [i for i in np.flatnonzero(narrow) if not _covers_a_centre(shapes[i], geobox)]
    for i in moved:
        shapes[i] = shapely.point_on_surface(shapes[i])
    if moved:
        notes.append(
            _counted(frame.index[moved], "that cover no pixel centre", "labels of the pixel they lie in", "polygons")
        )
    return frame.set_geometry(gpd.GeoSeries(shapes, index=frame.index, crs=frame.crs))


def _covers_a_centre(shape: Any, geobox: GeoBox) -> bool:
    return any(
        rasterize([shape], w.shape, transform=window_geobox(geobox, w).affine, dtype=np.uint8).any()
        for w in _strips(shape, geobox)
    )


def _strips(shape: Any, geobox: GeoBox) -> Iterator[Window]:
    """Yield windows that cover the bounds of a geometry, none of them large."""
    y0, x0, y1, x1 = pixel_bounds([shape], geobox)[0].tolist()
    for y in range(y0, y1 + 1, _STRIP):
        for x in range(x0, x1 + 1, _STRIP):
            yield Window(y=y, x=x, height=min(_STRIP, y1 + 1 - y), width=min(_STRIP, x1 + 1 - x))


def overlaps(frame: gpd.GeoDataFrame, legend: Legend, geobox: GeoBox, notes: list[str]) -> None:
    """Say which features of different classes lie on the same ground, and which of them counts."""
    shapes = frame.geometry.to_numpy()
    classes = frame["class_index"].to_numpy()
    # What lies on the same ground in another period is another label.
    period = frame["period_index"].to_numpy() if "period_index" in frame.columns else np.zeros(len(frame), np.int64)
    first, second = STRtree(shapes).query(shapes, predicate="intersects")
    pairs = (first < second) & (classes[first] != classes[second]) & (period[first] == period[second])
    first, second = first[pairs], second[pairs]
    pixel = abs(float(geobox.resolution.x * geobox.resolution.y))
    shared = shapely.area(shapely.intersection(shapes[first], shapes[second])) > _SLIVER * pixel
    if shared.any():
        a, b = int(first[shared][0]), int(second[shared][0])
        names = f"{legend.classes[classes[a]].name} and {legend.classes[classes[b]].name}"
        notes.append(
            f"{int(shared.sum())} pairs of features of different classes overlap (first: {frame.index[a]} and "
            f"{frame.index[b]}, {names}); the later in the file counts"
        )
    points = np.flatnonzero(shapely.get_type_id(shapes) == shapely.GeometryType.POINT)
    places = np.column_stack([pixel_bounds(shapes[points], geobox)[:, :2], period[points], classes[points]])
    distinct = np.unique(np.unique(places, axis=0)[:, :3], axis=0, return_counts=True)[1]
    if many := int((distinct > 1).sum()):
        notes.append(f"{many} pixels hold points of different classes; the later in the file counts")


def _counted(numbers: Sequence[Any], what: str, done: str, noun: str = "features") -> str:
    shown = ", ".join(str(n) for n in list(numbers)[:8]) + (", ..." if len(numbers) > 8 else "")
    return f"{len(numbers)} {noun} {what}: {done} (in the order of the file: {shown})"

"""Open label files: vector features of any format, CSV of points, or a raster of labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import shapely
from odc.geo.geobox import GeoBox
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj.exceptions import CRSError
from rasterio.features import rasterize
from shapely import STRtree

from pipeline.errors import ImageryError, LabelError, nearest
from pipeline.grid import BlockGrid, Window, window_geobox, wkt
from pipeline.imagery.handles import open_raster
from pipeline.imagery.sources import Source
from pipeline.samples.labels import Labels, RasterLabels, VectorLabels, check_classes
from pipeline.samples.legend import Legend, text_of
from pipeline.settings import ClassSettings, LabelSettings

_COLUMNS = (("x", "y"), ("lon", "lat"), ("longitude", "latitude"), ("easting", "northing"))
_GEOGRAPHIC = {"lon", "longitude"}
_RASTERS = {".tif", ".tiff", ".gtif", ".img", ".jp2", ".vrt", ".png"}
# A polygon smaller than this many pixels may miss every pixel centre.
_SMALL = 4.0


def open_labels(settings: LabelSettings, classes: Sequence[ClassSettings] | None, geobox: GeoBox) -> Labels:
    """Open reference data on a grid.

    Raises
    ------
    LabelError
        If the file, its field or its CRS is missing, no label lies inside the raster, a class has no labels, or there
        is but one class.
    """
    path = Path(settings.path)
    if not path.exists():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise LabelError(f"labels.path: there is no file {path}{nearest(path.name, beside)}")
    if path.suffix.lower() in _RASTERS:
        return _raster(settings, classes, geobox)
    return _vector(settings, classes, geobox)


def _vector(settings: LabelSettings, classes: Sequence[ClassSettings] | None, geobox: GeoBox) -> VectorLabels:
    frame = _read(settings)
    if settings.field is None:
        raise LabelError(f"labels.field: name the field with the class; {settings.path} has {_fields(frame)}")
    if settings.field not in frame.columns:
        raise LabelError(
            f"labels.field: {settings.path} has no field '{settings.field}'{nearest(settings.field, frame.columns)} "
            f"It has {_fields(frame)}"
        )
    notes: list[str] = []
    frame = _sound(_with_crs(frame, settings), settings.field, notes)
    if frame.empty:
        raise LabelError(f"{settings.path}: no feature with a geometry and a value of '{settings.field}' is left")
    own = frame.total_bounds
    total = Counter(map(text_of, frame[settings.field]))
    frame = frame.to_crs(wkt(geobox))
    inside = frame.geometry.intersects(geobox.extent.geom)
    if not inside.any():
        raise LabelError(
            f"{settings.path}: no label lies inside the raster\n"
            f"  labels reach from {_extent(frame.total_bounds)} in the raster's CRS ({_extent(own)} in their own)\n"
            f"  the raster from  {_extent(geobox.boundingbox.bbox)}\n"
            "Are the CRS of both right?"
        )
    if not inside.all():
        notes.append(f"{int((~inside).sum())} of {len(frame)} labels lie outside the raster and are left out")
    frame = frame[inside].reset_index(drop=True)
    legend = Legend.from_values(frame[settings.field], classes)
    index = [legend.index(v) for v in frame[settings.field]]
    strangers = Counter(text_of(v) for v, i in zip(frame[settings.field], index, strict=True) if i is None)
    if strangers:
        shown = "; ".join(f"{legend.unknown(v)} ({n})" for v, n in strangers.most_common(5))
        notes.append(f"label values of no class are left out: {shown}")
    kept = np.array([i is not None for i in index])
    frame = frame[kept].reset_index(drop=True)
    frame["class_index"] = np.array([i for i in index if i is not None], dtype=np.int16)
    check_classes(legend, frame["class_index"].tolist(), settings.path)
    frame = frame.set_geometry(_reaching(frame.geometry, geobox, settings.all_touched, notes))
    _overlaps(frame, legend, notes)
    here = Counter(map(text_of, frame[settings.field]))
    rows = [
        {
            "label": value,
            "class": legend.classes[i].name if (i := legend.index(value)) is not None else "none",
            "features": here[value],
            "outside": n - here[value] if i is not None else 0,
        }
        for value, n in sorted(total.items())
    ]
    return VectorLabels(
        geobox=geobox, legend=legend, notes=notes, rows=rows, frame=frame, all_touched=settings.all_touched
    )


def _read(settings: LabelSettings) -> gpd.GeoDataFrame:
    path = Path(settings.path)
    suffix = path.suffix.lower()
    try:
        if suffix == ".csv":
            return _points(path)
        if suffix in (".parquet", ".geoparquet"):
            return gpd.read_parquet(path)
        layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
        if settings.layer is None and len(layers) > 1:
            raise LabelError(f"labels.layer: {path} has {len(layers)} layers, name one: {', '.join(layers)}")
        if settings.layer is not None and settings.layer not in layers:
            raise LabelError(
                f"labels.layer: {path} has no layer '{settings.layer}'{nearest(settings.layer, layers)} "
                f"It has: {', '.join(layers) or 'none with geometries'}"
            )
        frame = gpd.read_file(path, layer=settings.layer or (layers[0] if layers else None))
    except (DataSourceError, DataLayerError, ValueError, OSError) as error:
        raise LabelError(f"labels.path: {path} cannot be read as vector data: {error}") from error
    if not isinstance(frame, gpd.GeoDataFrame):
        raise LabelError(f"labels.path: {path} holds a table without geometries")
    return frame


def _points(path: Path) -> gpd.GeoDataFrame:
    table = pd.read_csv(path)
    by_name = {str(c).lower(): c for c in table.columns}
    for x, y in _COLUMNS:
        if x in by_name and y in by_name:
            points = gpd.points_from_xy(table[by_name[x]], table[by_name[y]])
            return gpd.GeoDataFrame(table, geometry=points, crs="EPSG:4326" if x in _GEOGRAPHIC else None)
    raise LabelError(
        f"{path}: expected columns x, y (in the CRS given by labels.crs) or lon, lat; found {', '.join(map(str, table.columns))}"
    )


def _with_crs(frame: gpd.GeoDataFrame, settings: LabelSettings) -> gpd.GeoDataFrame:
    if frame.crs is not None:
        return frame
    if settings.crs is None:
        raise LabelError(f"{settings.path} states no CRS; give it with labels.crs, such as crs: EPSG:4326")
    try:
        return frame.set_crs(settings.crs)
    except CRSError as error:
        raise LabelError(f"labels.crs: {settings.crs!r} is no CRS") from error


def _sound(frame: gpd.GeoDataFrame, name: str, notes: list[str]) -> gpd.GeoDataFrame:
    """Return the features that can be used, repaired where they need it; say what was done."""
    geometry = frame.geometry
    bare = geometry.isna() | geometry.is_empty
    unnamed = frame[name].isna() & ~bare
    for count, what in ((bare.sum(), "have no geometry"), (unnamed.sum(), f"have no value of '{name}'")):
        if count:
            notes.append(f"{int(count)} features {what} and are left out")
    frame = frame[~bare & ~unnamed].reset_index(drop=True)
    flat = shapely.force_2d(frame.geometry.to_numpy())
    broken = ~shapely.is_valid(flat)
    if broken.any():
        flat[broken] = shapely.make_valid(flat[broken])
        notes.append(
            f"{int(broken.sum())} geometries were invalid and have been repaired: {_listed(np.flatnonzero(broken))}"
        )
    return frame.set_geometry(gpd.GeoSeries(flat, crs=frame.crs))


def _reaching(geometry: gpd.GeoSeries, geobox: GeoBox, all_touched: bool, notes: list[str]) -> gpd.GeoSeries:
    """Let polygons that cover no pixel centre take the pixel they lie in: their label is worth a pixel."""
    pixel = abs(float(geobox.resolution.x * geobox.resolution.y))
    shapes = geometry.to_numpy().copy()
    moved = []
    for i, shape in enumerate(shapes):
        if all_touched or shape.area == 0 or shape.area > _SMALL * pixel:
            continue
        x, y = ~geobox.affine * (shape.bounds[0], shape.bounds[3])
        near = Window(y=int(np.floor(y)) - 1, x=int(np.floor(x)) - 1, height=8, width=8)
        if not rasterize([shape], near.shape, transform=window_geobox(geobox, near).affine).any():
            shapes[i] = shape.representative_point()
            moved.append(i)
    if moved:
        notes.append(f"{len(moved)} polygons cover no pixel centre and label the pixel they lie in: {_listed(moved)}")
    return gpd.GeoSeries(shapes, crs=geometry.crs)


def _overlaps(frame: gpd.GeoDataFrame, legend: Legend, notes: list[str]) -> None:
    shapes = frame.geometry.to_numpy()
    classes = frame["class_index"].to_numpy()
    first, second = STRtree(shapes).query(shapes, predicate="intersects")
    pairs = (first < second) & (classes[first] != classes[second])
    first, second = first[pairs], second[pairs]
    shared = shapely.area(shapely.intersection(shapes[first], shapes[second])) > 0
    if shared.any():
        a, b = first[shared][0], second[shared][0]
        names = f"{legend.classes[classes[a]].name} and {legend.classes[classes[b]].name}"
        notes.append(
            f"{int(shared.sum())} pairs of features of different classes overlap (first: {a} and {b}, {names}); the later in "
            "the file counts"
        )


def _raster(settings: LabelSettings, classes: Sequence[ClassSettings] | None, geobox: GeoBox) -> RasterLabels:
    with open_raster(settings.path) as dataset:
        if dataset.dtypes[0].startswith(("float", "complex")):
            raise LabelError(f"{settings.path}: a label raster holds whole numbers, found {dataset.dtypes[0]}")
        if dataset.crs is None and settings.crs is None:
            raise LabelError(f"{settings.path} states no CRS; give it with labels.crs")
        nodata = dataset.nodata
        source = Source(
            path=settings.path, indexes=(1,), bands=("label",), date=None, nodata=nodata, scales=(1.0,), offsets=(0.0,),
            resampling="nearest", crs=settings.crs,
        )  # fmt: skip
    counts: Counter[int] = Counter()
    try:
        for block in BlockGrid(geobox=geobox, size=1024):
            found, valid = source.read(geobox, block.inner)
            values, n = np.unique(found[0][valid[0]].astype(np.int64), return_counts=True)
            counts.update(dict(zip(values.tolist(), n.tolist(), strict=True)))
    except ImageryError as error:
        raise LabelError(f"labels.path: {error}") from error
    notes = []
    if nodata is None and 0 in counts:
        counts.pop(0)
        notes.append(f"{settings.path} declares no nodata value; 0 is taken for not labelled")
    if not counts:
        raise LabelError(f"{settings.path}: no label lies inside the raster ({_extent(geobox.boundingbox.bbox)})")
    legend = Legend.from_values(counts, classes)
    known = {v: i for v in counts if (i := legend.index(v)) is not None}
    strangers = [v for v in counts if v not in known]
    if strangers:
        notes.append(f"label values of no class are left out: {', '.join(map(str, strangers[:8]))}")
    check_classes(legend, list(known.values()), settings.path)
    rows = [
        {"label": str(v), "class": legend.classes[known[v]].name if v in known else "none", "pixels": n}
        for v, n in sorted(counts.items())
    ]
    return RasterLabels(
        geobox=geobox, legend=legend, notes=notes, rows=rows, source=source, values=tuple(sorted(known))
    )


def _fields(frame: gpd.GeoDataFrame) -> str:
    return ", ".join(str(c) for c in frame.columns if c != frame.geometry.name) or "no fields"


def _listed(numbers: Any) -> str:
    shown = ", ".join(str(int(n)) for n in list(numbers)[:8])
    return f"feature {shown}" + (", ..." if len(numbers) > 8 else "")


def _extent(bounds: Any) -> str:
    return "({:.7g}, {:.7g}) to ({:.7g}, {:.7g})".format(*bounds)

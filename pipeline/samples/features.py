"""Open reference data of any kind on a grid; features become classes of a legend."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
from odc.geo.geobox import GeoBox
from pyproj.exceptions import ProjError

from pipeline.errors import LabelError, nearest
from pipeline.grid import crs_name, wkt
from pipeline.imagery.dates import Period
from pipeline.samples.labels import Labels, check_classes
from pipeline.samples.legend import Legend, natural, text_of
from pipeline.samples.periods import periods_of
from pipeline.samples.ranges import numbers_of, ranges_of
from pipeline.samples.rasters import extent, open_raster_labels, open_raster_numbers
from pipeline.samples.repair import named, overlaps, reaching, sound
from pipeline.samples.shapes import VectorLabels
from pipeline.samples.vectors import read_features
from pipeline.settings import ClassSettings, LabelSettings

Array = np.ndarray[Any, Any]

_NUMBER = "landweave_number"
_RASTERS = {".tif", ".tiff", ".gtif", ".img", ".jp2", ".vrt", ".png", ".asc", ".bil", ".nc", ".grd"}


def open_labels(
    settings: LabelSettings,
    classes: Sequence[ClassSettings] | None,
    geobox: GeoBox,
    dates: Sequence[datetime.date | None] = (),
    *,
    numeric: bool = False,
) -> Labels:
    """Open reference data on a grid.

    Parameters
    ----------
    settings, classes
        As in the job file.
    geobox : GeoBox
        The grid.
    dates : sequence of date or None
        Dates of the imagery: labels that hold for a period need one within it.
    numeric : bool
        Labels are numbers to be estimated; ranges of them stand for the classes.

    Raises
    ------
    LabelError
        If the file, its field or its CRS is missing, no label lies inside the raster or within the dates, a class has
        no labels, or there is but one class.
    """
    path = Path(settings.file)
    if not path.exists():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise LabelError(f"labels.path: there is no file {path}{nearest(path.name, beside)}")
    if path.suffix.lower() in _RASTERS:
        if settings.from_ is not None:
            raise LabelError(
                f"labels.from: {path} is a raster, which has no fields; give it as features, or leave it out"
            )
        return open_raster_numbers(settings, geobox) if numeric else open_raster_labels(settings, classes, geobox)
    return _vector(settings, classes, geobox, dates, numeric=numeric)


def _vector(
    settings: LabelSettings,
    classes: Sequence[ClassSettings] | None,
    geobox: GeoBox,
    dates: Sequence[datetime.date | None],
    *,
    numeric: bool,
) -> VectorLabels:
    frame = read_features(settings)
    field = _field(frame, settings)
    notes: list[str] = []
    frame = named(frame, field, notes)
    if frame.empty:
        raise LabelError(f"{settings.file}: no feature with a geometry and a value of '{field}' is left")
    if numeric:
        frame = frame.assign(**{_NUMBER: numbers_of(frame[field], f"{settings.file}, field '{field}'")})
    everything = frame
    frame = _inside(frame, geobox, settings.file, notes)
    frame = _imaged(frame, settings, dates, notes)
    if numeric:
        ranges, edges = ranges_of(frame[_NUMBER].to_numpy(), f"{settings.file}, field '{field}'")
        frame, everything = (_ranged(f, field, ranges, edges) for f in (frame, everything))
    total, here = (Counter(map(text_of, f[field])) for f in (everything, frame))
    values = sorted(here, key=natural)
    if lost := sorted(total.keys() - here.keys(), key=natural):
        notes.append(f"label values without a feature inside the raster: {', '.join(lost[:8])}")
    legend = ranges if numeric else Legend.from_values(values, classes)
    if strangers := [v for v in values if legend.index(v) is None]:
        shown = "; ".join(f"{legend.unknown(v)} ({here[v]})" for v in strangers[:5])
        notes.append(f"label values of no class are left out: {shown}")
    index = [legend.index(v) for v in frame[field]]
    frame = frame[[i is not None for i in index]].assign(
        class_index=np.array([i for i in index if i is not None], dtype=np.int16)
    )
    check_classes(legend, frame["class_index"].tolist(), settings.file, values)
    periods: tuple[Period | None, ...] = (None,)
    if settings.from_ is not None and settings.to is not None:
        periods, number = periods_of(frame, settings.from_, settings.to, settings.file)
        frame = frame.assign(period_index=number)
    frame = sound(frame, notes)
    if not settings.all_touched:
        frame = reaching(frame, geobox, notes)
    overlaps(frame, legend, geobox, notes)
    order = [c.name for c in ranges.classes] if numeric else sorted(total, key=natural)
    rows = [
        {
            "label": value,
            "class": legend.classes[i].name if (i := legend.index(value)) is not None else "none",
            "features": here[value],
            "outside": total[value] - here[value],
        }
        for value in order
    ]
    return VectorLabels(
        geobox=geobox,
        legend=legend,
        notes=notes,
        rows=rows,
        frame=frame.reset_index(drop=True),
        all_touched=settings.all_touched,
        periods=periods,
        number=frame[_NUMBER].to_numpy(np.float64) if numeric else None,
    )


def _ranged(frame: gpd.GeoDataFrame, field: str, ranges: Legend, edges: Array) -> gpd.GeoDataFrame:
    """Return the features with the names of ranges of numbers in place of the numbers."""
    names = np.array([c.name for c in ranges.classes])
    return frame.assign(**{field: names[np.searchsorted(edges, frame[_NUMBER], side="right")]})


def _field(frame: gpd.GeoDataFrame, settings: LabelSettings) -> str:
    fields = [str(c) for c in frame.columns if c != frame.geometry.name]
    there = ", ".join(fields) or "no fields"
    if settings.field is None:
        raise LabelError(f"labels.field: name the field with the class; {settings.file} has {there}")
    if settings.field not in fields:
        raise LabelError(
            f"labels.field: {settings.file} has no field '{settings.field}'{nearest(settings.field, fields)} "
            f"It has {there}"
        )
    return settings.field


def _imaged(
    frame: gpd.GeoDataFrame, settings: LabelSettings, dates: Sequence[datetime.date | None], notes: list[str]
) -> gpd.GeoDataFrame:
    """Return the features in whose period there is an image."""
    if settings.from_ is None or settings.to is None:
        return frame
    known = [d for d in dates if d is not None]
    if not known:
        raise LabelError(
            f"{settings.file}: labels hold for periods (labels.from, labels.to), but the imagery has no dates; say how "
            'they stand in the file names, such as `date: "%Y%m%d"`, or leave labels.from and labels.to out'
        )
    periods, number = periods_of(frame, settings.from_, settings.to, settings.file)
    seen = np.array([any(d in p for d in known) for p in periods])[number]
    if not seen.any():
        raise LabelError(
            f"{settings.file}: no label holds while there are images\n"
            f"  labels hold from   {min(p.start for p in periods)} to {max(p.end for p in periods)}\n"
            f"  images reach from  {min(known)} to {max(known)}"
        )
    if not seen.all():
        notes.append(f"{int((~seen).sum())} of {len(frame)} labels hold for periods without any image and are left out")
    return frame[seen]


def _inside(frame: gpd.GeoDataFrame, geobox: GeoBox, path: str, notes: list[str]) -> gpd.GeoDataFrame:
    """Return the features that meet the grid, in its CRS."""
    try:
        placed = frame.to_crs(wkt(geobox))
    except ProjError as error:
        raise LabelError(
            f"{path}: labels cannot be taken from their CRS ({frame.crs.name}) to that of the raster "
            f"({crs_name(geobox)}): {error}"
        ) from error
    inside = placed.geometry.intersects(geobox.extent.geom)
    if not inside.any():
        raise LabelError(
            f"{path}: no label lies inside the raster\n"
            f"  labels reach from {extent(placed.total_bounds)} in {crs_name(geobox)}, the raster's CRS\n"
            f"                    {extent(frame.total_bounds)} in {frame.crs.name}, their own\n"
            f"  the raster from   {extent(geobox.boundingbox.bbox)}\n"
            "Are the CRS of both right?"
        )
    if not inside.all():
        notes.append(f"{int((~inside).sum())} of {len(frame)} labels lie outside the raster and are left out")
    return placed[inside]

"""Read features: vector files of any format, GeoParquet, and CSV of points, always with a geometry and a CRS."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj.exceptions import CRSError

from pipeline.errors import LabelError, nearest
from pipeline.settings import LabelSettings

COLUMNS = (("x", "y"), ("lon", "lat"), ("longitude", "latitude"), ("easting", "northing"))
_GEOGRAPHIC = {"lon", "longitude"}
_TABLES = {".csv", ".tsv", ".txt"}
_PARQUET = {".parquet", ".geoparquet"}


@dataclass(frozen=True, slots=True)
class Request:
    """What messages call the request for a file, and what they advise.

    Attributes
    ----------
    path, layer, crs : str
        The fields that name the file, its layer, and the CRS of a file that states none.
    one_layer, with_crs : str
        What to do about several layers, or about no CRS.
    """

    path: str = "labels.path"
    layer: str = "labels.layer"
    crs: str = "labels.crs"
    one_layer: str = "name one"
    with_crs: str = "give it with labels.crs, such as crs: EPSG:4326"


_LABELS = Request()


def read_features(settings: LabelSettings) -> gpd.GeoDataFrame:
    """Return the features of a label file; see `read_vectors`."""
    return read_vectors(Path(settings.file), settings.layer, settings.crs)


def read_vectors(
    path: Path, layer: str | None = None, crs: str | None = None, request: Request = _LABELS
) -> gpd.GeoDataFrame:
    """Return the features of a file in the order of the file, numbered from 1 in the index.

    Parameters
    ----------
    path : Path
        Vector data of any format, GeoParquet, or a CSV of points.
    layer : str or None
        Its layer; None: the only one.
    crs : str or None
        CRS of coordinates that state none.
    request : Request
        What messages call these.

    Raises
    ------
    LabelError
        If the file is no vector data, has several layers and none is named, holds no geometries, or states no CRS.
    """
    suffix = path.suffix.lower()
    try:
        if suffix in _TABLES:
            frame = _points(path, request)
        elif suffix in _PARQUET:
            frame = gpd.read_parquet(path)
        else:
            frame = gpd.read_file(path, layer=_layer(path, layer, request))
    except (DataSourceError, DataLayerError, ValueError, OSError) as error:
        raise LabelError(f"{request.path}: {path} cannot be read as vector data: {error}") from error
    if not isinstance(frame, gpd.GeoDataFrame):
        raise LabelError(f"{request.path}: {path} holds a table without geometries")
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    return _with_crs(frame, path, crs, request)


def _layer(path: Path, wanted: str | None, request: Request) -> str | None:
    """Return the layer to be read; tables without geometries are none."""
    layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
    if wanted is None and len(layers) > 1:
        raise LabelError(f"{request.layer}: {path} has {len(layers)} layers, {request.one_layer}: {', '.join(layers)}")
    if wanted is not None and wanted not in layers:
        raise LabelError(
            f"{request.layer}: {path} has no layer '{wanted}'{nearest(wanted, layers)} "
            f"It has: {', '.join(layers) or 'none with geometries'}"
        )
    return wanted or (layers[0] if layers else None)


def _points(path: Path, request: Request) -> gpd.GeoDataFrame:
    with path.open(encoding="utf-8-sig") as stream:
        first = stream.readline()
    separator = max(",;\t", key=first.count)
    table = pd.read_csv(path, sep=separator, decimal="," if separator == ";" and _comma(path) else ".")
    by_name = {str(c).strip().lower(): c for c in table.columns}
    for x, y in COLUMNS:
        if x in by_name and y in by_name:
            across, up = (_numbers(table, by_name[name], path) for name in (x, y))
            points = gpd.points_from_xy(across, up)
            return gpd.GeoDataFrame(table, geometry=points, crs="EPSG:4326" if x in _GEOGRAPHIC else None)
    raise LabelError(
        f"{path}: expected columns x, y (in the CRS given by {request.crs}) or lon, lat; found "
        f"{', '.join(map(str, table.columns)) or 'none'}"
    )


def _comma(path: Path) -> bool:
    """Return whether numbers are written with a decimal comma, as spreadsheets do that separate columns by semicolons."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.reader(stream, delimiter=";")
        next(rows, None)
        cells = next(rows, [])
    return any("," in cell and cell.replace(",", "", 1).lstrip("-").isdecimal() for cell in cells)


def _numbers(table: pd.DataFrame, column: str, path: Path) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    values = pd.to_numeric(table[column], errors="coerce")
    wrong = np.flatnonzero((values.isna() & table[column].notna()).to_numpy())
    if len(wrong):
        raise LabelError(
            f"{path}: line {wrong[0] + 2}: expected a number in column '{column}', found {table[column].iloc[wrong[0]]!r}"
        )
    return values.to_numpy(np.float64)


def _with_crs(frame: gpd.GeoDataFrame, path: Path, crs: str | None, request: Request) -> gpd.GeoDataFrame:
    if frame.crs is not None:
        return frame
    if crs is None:
        raise LabelError(f"{path} states no CRS; {request.with_crs}")
    try:
        return frame.set_crs(crs)
    except CRSError as error:
        raise LabelError(f"{request.crs}: {crs!r} is no CRS; expected one such as EPSG:32721") from error

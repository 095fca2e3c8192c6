"""Labels by shapes: vector features as class indices of a window."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize
from shapely import STRtree
from shapely.geometry import box

from pipeline.grid import BlockGrid, Window, window_geobox
from pipeline.samples.labels import IGNORE, Labels, LabelTile, outside_grid

if TYPE_CHECKING:
    import geopandas as gpd

Array = np.ndarray[Any, Any]

_rasterising = threading.Lock()


@dataclass
class VectorLabels(Labels):
    """Features of a vector file, in the order of the file: where they overlap, the last one counts.

    Polygons label the pixels whose centres they cover, lines every pixel they pass, points their pixel.

    Attributes
    ----------
    frame : GeoDataFrame
        Features in the CRS of the grid, with the column ``class_index``, with ``period_index`` if they hold for periods,
        and with the field of folds if the file has one.
    all_touched : bool
        Label every pixel that a polygon touches.
    number : (n,) float or None
        The number that each feature states, where they are no classes.
    """

    frame: gpd.GeoDataFrame = None
    all_touched: bool = False
    number: Array | None = None

    def __post_init__(self) -> None:
        self._shapes = list(self.frame.geometry)
        self._classes = self.frame["class_index"].to_numpy(np.int16)
        dated = "period_index" in self.frame.columns
        self._period = self.frame["period_index"].to_numpy(np.int64) if dated else np.zeros(len(self.frame), np.int64)
        self._thin = shapely.get_dimensions(self._shapes) == 1
        self._tree = STRtree(self._shapes)

    def __getstate__(self) -> dict[str, Any]:
        # Geometries travel to workers in their frame, all at once: one by one thousands of them take seconds.
        return {k: v for k, v in self.__dict__.items() if not k.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    @property
    def numeric(self) -> bool:
        """See `Labels.numeric`."""
        return self.number is not None

    @property
    def n_features(self) -> int:
        """Number of features."""
        return len(self._shapes)

    @property
    def points(self) -> bool:
        """See `Labels.points`."""
        return bool((self.frame.geometry.geom_type == "Point").mean() > 0.5)

    @property
    def feature_class(self) -> Array:
        """Class index of each feature, (n,) int16."""
        return np.asarray(self._classes)

    @property
    def feature_period(self) -> Array:
        """Number of the period of each feature, (n,) int64."""
        return np.asarray(self._period)

    def read(self, window: Window, period: int = 0) -> LabelTile:
        """Return the labels of a window; see `Labels.read`."""
        frame = window_geobox(self.geobox, window)
        codes = np.full(window.shape, IGNORE, np.int16)
        feature = np.full(window.shape, -1, np.int32)
        near = self._tree.query(box(*frame.boundingbox.bbox))
        found = sorted(near[self._period[near] == period].tolist())
        if found:
            # Runs of one kind, one after the other: the order of the file holds across kinds too.
            for touched, run in groupby(found, key=lambda i: self.all_touched or bool(self._thin[i])):
                shapes = [(self._shapes[i], i) for i in run]
                # Within, rasterio filters warnings, which is the process's to do: threads that do so at once undo each
                # other's filters, and a needless warning about a raster without a position comes through.
                with _rasterising:
                    rasterize(shapes, out=feature, transform=frame.affine, all_touched=touched)
            feature[outside_grid(window, self.geobox)] = -1
            labelled = feature >= 0
            codes[labelled] = self._classes[feature[labelled]]
        return LabelTile(codes, feature)

    def numbers(self, window: Window, period: int = 0) -> Array | None:
        """Return the numbers of a window; see `Labels.numbers`."""
        if self.number is None:
            return None
        feature = self.read(window, period).feature
        return np.where(feature >= 0, self.number[feature], np.nan).astype(np.float32)

    def windows(self, size: int, period: int = 0) -> Iterator[Window]:
        """Yield windows near features; see `Labels.windows`."""
        grid = BlockGrid(geobox=self.geobox, size=size)
        last = np.array(self.geobox.shape) - 1
        bounds = pixel_bounds(self._shapes, self.geobox)[self._period == period]
        # A pixel around it: a line or a point on an edge may label the pixel on either side.
        first, end = bounds[:, :2] - 1, bounds[:, 2:] + 1
        inside = ((end >= 0) & (first <= last)).all(1)
        spans = np.concatenate([np.maximum(first, 0), np.minimum(end, last)], 1)[inside] // size
        # Of thousands of features few lie on different squares.
        places = {
            block.index
            for y, x, y_end, x_end in (size * np.unique(spans, axis=0)).tolist()
            for block in grid.covering(Window(y=y, x=x, height=y_end - y + 1, width=x_end - x + 1))
        }
        return (grid[i].core for i in sorted(places))


def pixels_at(geobox: GeoBox, x: Array, y: Array) -> tuple[Array, Array]:
    """Return fractional rows and columns of places in the CRS of a grid."""
    to = ~geobox.affine
    return to.d * x + to.e * y + to.f, to.a * x + to.b * y + to.c


def pixel_bounds(shapes: Any, geobox: GeoBox) -> Array:
    """Return first row, first column, last row and last column of geometries, (n, 4) int64."""
    left, bottom, right, top = shapely.bounds(shapes).reshape(-1, 4).T
    rows, columns = pixels_at(geobox, np.stack([left, left, right, right]), np.stack([bottom, top, bottom, top]))
    found = np.stack([rows.min(0), columns.min(0), rows.max(0), columns.max(0)], 1)
    return np.asarray(np.floor(found), dtype=np.int64)

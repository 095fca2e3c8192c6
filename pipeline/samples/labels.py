"""Labels on the grid: vector features or a raster, as class indices of a window."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize
from shapely import STRtree
from shapely.geometry import box

from pipeline.errors import LabelError, nearest
from pipeline.grid import BlockGrid, Window, whole, window_geobox
from pipeline.imagery.dates import Period
from pipeline.imagery.sources import Source
from pipeline.samples.legend import Legend

if TYPE_CHECKING:
    import geopandas as gpd

Array = np.ndarray[Any, Any]

_rasterising = threading.Lock()

IGNORE = -1
"""Class index of pixels that are not labelled."""


@dataclass(frozen=True, slots=True)
class LabelTile:
    """Labels of a window.

    Attributes
    ----------
    codes : (h, w) int16
        Class indices; `IGNORE` where not labelled.
    feature : (h, w) int32
        Number of the feature; -1 where there is none.
    """

    codes: Array
    feature: Array


@dataclass
class Labels(ABC):
    """Reference data on a grid.

    Attributes
    ----------
    geobox : GeoBox
        The grid.
    legend : Legend
        The classes.
    notes : list of str
        What was found, repaired or left out.
    rows : list of dict
        Per label value: class, features, and what lies outside.
    periods : tuple of Period or None
        When labels hold; a single None where they hold at any time.
    """

    geobox: GeoBox
    legend: Legend
    notes: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    periods: tuple[Period | None, ...] = (None,)

    @abstractmethod
    def read(self, window: Window, period: int = 0) -> LabelTile:
        """Return the labels of a window, which may reach outside the grid, that hold in a period, by its number."""

    @abstractmethod
    def windows(self, size: int, period: int = 0) -> Iterator[Window]:
        """Yield the windows of a lattice of squares of ``size`` pixels that may hold labels of a period, row by row."""

    def numbers(self, window: Window, period: int = 0) -> Array | None:  # noqa: ARG002 - classes are no numbers
        """Return the numbers that labels state, (h, w) float32, NaN where there is none; None where they are classes."""
        return None

    @property
    def numeric(self) -> bool:
        """Whether labels are numbers; their classes are ranges of them."""
        return False

    @property
    def n_features(self) -> int:
        """Number of features; 0 for a raster, whose labels are pixels."""
        return 0

    @property
    def points(self) -> bool:
        """Whether most labels are points: each is a place of its own, where pixels of a polygon are much alike."""
        return False

    def report(self) -> list[dict[str, Any]]:
        """Return a row per label value: what it matched."""
        return self.rows


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
            feature[_outside(window, self.geobox)] = -1
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


@dataclass
class RasterLabels(Labels):
    """A raster of label values, taken to the grid by the nearest pixel.

    Attributes
    ----------
    source : Source
        The raster.
    values : tuple of int
        Stored values that are labels.
    edges : (K - 1,) float or None
        Of a raster of numbers: where one range of them ends and the next begins; ranges are its classes.
    """

    source: Source = None  # type: ignore[assignment]
    values: tuple[int, ...] = ()
    edges: Array | None = None

    @property
    def numeric(self) -> bool:
        """See `Labels.numeric`."""
        return self.edges is not None

    def read(self, window: Window, period: int = 0) -> LabelTile:  # noqa: ARG002 - a raster holds at any time
        """Return the labels of a window; see `Labels.read`."""
        found, valid = self.source.read(self.geobox, window)
        codes = np.full(window.shape, IGNORE, np.int16)
        if self.edges is not None:
            known = valid[0] & np.isfinite(found[0])
            codes[known] = np.searchsorted(self.edges, found[0][known], side="right")
        for value in self.values:
            index = self.legend.index(value)
            if index is not None:
                codes[(found[0] == value) & valid[0]] = index
        codes[_outside(window, self.geobox)] = IGNORE
        return LabelTile(codes, np.full(window.shape, -1, np.int32))

    def numbers(self, window: Window, period: int = 0) -> Array | None:  # noqa: ARG002 - a raster holds at any time
        """Return the numbers of a window; see `Labels.numbers`."""
        if self.edges is None:
            return None
        found, valid = self.source.read(self.geobox, window)
        return np.where(valid[0], found[0], np.nan).astype(np.float32)

    def windows(self, size: int, period: int = 0) -> Iterator[Window]:  # noqa: ARG002 - a raster holds at any time
        """Yield the windows that hold labels; see `Labels.windows`."""
        for block in BlockGrid(geobox=self.geobox, size=size):
            if (self.read(block.inner).codes != IGNORE).any():
                yield block.core


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


def _outside(window: Window, geobox: GeoBox) -> Array:
    """Return which pixels of a window lie outside the grid, (h, w) bool."""
    outside = np.ones(window.shape, bool)
    inside = window.intersect(whole(geobox))
    if inside is not None:
        outside[inside.within(window)] = False
    return outside


def check_classes(legend: Legend, present: Sequence[int], where: str, values: Iterable[str]) -> None:
    """Refuse labels from which nothing can be learned.

    Parameters
    ----------
    legend : Legend
        The classes.
    present : sequence of int
        Class indices that have labels.
    where : str
        The label file.
    values : iterable of str
        Label values that the file holds inside the raster.

    Raises
    ------
    LabelError
        If a class of the legend has no labels, or there is but one class.
    """
    have = set(present)
    missing = [c for i, c in enumerate(legend.classes) if i not in have]
    if missing:
        there = list(values)
        hint = nearest(missing[0].values[0], there) if missing[0].values else ""
        raise LabelError(
            f"{where}: no labels inside the raster for {', '.join(repr(c.name) for c in missing)}{hint}\n"
            f"  label values there: {', '.join(there[:12])}{', ...' if len(there) > 12 else ''}\n"
            "Leave such classes out of `classes`, name their label values in `labels`, or add labels."
        )
    if len(legend.classes) < 2:
        only = legend.classes[0].name if legend.classes else "none"
        raise LabelError(f"{where}: a map needs two classes at least, found one: {only!r}; is this the right field?")

"""Labels on the grid, as class indices of a window: what vector features and rasters have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from pipeline.errors import LabelError, nearest
from pipeline.grid import Window, whole
from pipeline.imagery.dates import Period
from pipeline.samples.legend import Legend

Array = np.ndarray[Any, Any]

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


def outside_grid(window: Window, geobox: GeoBox) -> Array:
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

"""A raster of labels as reference data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from pipeline.errors import ImageryError, LabelError
from pipeline.grid import BlockGrid, Window
from pipeline.imagery.handles import open_raster
from pipeline.imagery.sources import Source
from pipeline.samples.labels import IGNORE, Labels, LabelTile, check_classes, outside_grid
from pipeline.samples.legend import Legend
from pipeline.samples.ranges import ranges_of
from pipeline.settings import ClassSettings, LabelSettings

Array = np.ndarray[Any, Any]

# Side of the windows in which values are counted, in pixels.
_WINDOW = 1024
# Ranges of numbers are found in at most about twice so many of them.
_WINDOWS = 32


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
        codes[outside_grid(window, self.geobox)] = IGNORE
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


def open_raster_labels(
    settings: LabelSettings, classes: Sequence[ClassSettings] | None, geobox: GeoBox
) -> RasterLabels:
    """Open a raster of labels.

    Nodata is not labelled, and neither is 0 unless ``classes`` names it.

    Raises
    ------
    LabelError
        If it cannot be opened, states no CRS, holds fractions, lies outside, or a class has no labels.
    """
    notes: list[str] = []
    try:
        source = _source(settings, notes)
        counts = _counts(source, geobox)
    except ImageryError as error:
        raise LabelError(f"labels.path: {error}") from error
    named = {str(v) for c in classes or () for v in (c.labels if c.labels is not None else [c.name])}
    if 0 in counts and "0" not in named:
        notes.append(
            f"{settings.file}: {counts.pop(0)} pixels of 0 are taken for not labelled; if 0 is a class, name it in `classes`"
        )
    if not counts:
        raise LabelError(
            f"{settings.file}: no label lies inside the raster, which reaches from {extent(geobox.boundingbox.bbox)} in "
            f"{geobox.crs}; {_reach(settings)}"
        )
    legend = Legend.from_values(counts, classes)
    known = {v: i for v in counts if (i := legend.index(v)) is not None}
    strangers = [v for v in sorted(counts) if v not in known]
    if strangers:
        shown = ", ".join(f"{v} ({counts[v]} px)" for v in strangers[:8])
        notes.append(f"label values of no class are left out: {shown}")
    check_classes(legend, list(known.values()), settings.file, map(str, sorted(counts)))
    rows = [
        {"label": str(v), "class": legend.classes[known[v]].name if v in known else "none", "pixels": n}
        for v, n in sorted(counts.items())
    ]
    return RasterLabels(
        geobox=geobox, legend=legend, notes=notes, rows=rows, source=source, values=tuple(sorted(known))
    )


def open_raster_numbers(settings: LabelSettings, geobox: GeoBox) -> RasterLabels:
    """Open a raster of numbers that are to be estimated; ranges of them stand for classes.

    Raises
    ------
    LabelError
        If it cannot be opened, states no CRS, lies outside, or holds one number only.
    """
    notes: list[str] = []
    try:
        source = _source(settings, notes, scaled=True)
        found = _sample(source, geobox)
    except ImageryError as error:
        raise LabelError(f"labels.path: {error}") from error
    if not len(found):
        raise LabelError(
            f"{settings.file}: no number lies inside the raster, which reaches from {extent(geobox.boundingbox.bbox)} in "
            f"{geobox.crs}; {_reach(settings)}"
        )
    legend, edges = ranges_of(found, settings.file)
    rows = [{"label": c.name, "class": c.name} for c in legend.classes]
    return RasterLabels(geobox=geobox, legend=legend, notes=notes, rows=rows, source=source, edges=edges)


def _sample(source: Source, geobox: GeoBox) -> Array:
    """Return numbers of the raster on the grid, from windows spread over it, (n,) float64."""
    blocks = BlockGrid(geobox=geobox, size=_WINDOW)
    step = max(1, len(blocks) // _WINDOWS)
    found = []
    for i in range(0, len(blocks), step):
        values, valid = source.read(geobox, blocks[i].inner)
        found.append(values[0][valid[0] & np.isfinite(values[0])])
    return np.concatenate(found).astype(np.float64)


def _source(settings: LabelSettings, notes: list[str], *, scaled: bool = False) -> Source:
    """Return the first band of the raster; class codes are as they are stored, numbers as the file scales them."""
    with open_raster(settings.file) as dataset:
        if dataset.crs is None and settings.crs is None:
            raise LabelError(f"{settings.file} states no CRS; give it with labels.crs, such as crs: EPSG:32721")
        if dataset.count > 1:
            notes.append(f"{settings.file} has {dataset.count} bands; the first is taken for the labels")
        scale, offset = (float(dataset.scales[0]), float(dataset.offsets[0])) if scaled else (1.0, 0.0)
        return Source(
            path=settings.file, indexes=(1,), bands=("label",), date=None, nodata=dataset.nodata, scales=(scale,),
            offsets=(offset,), resampling="nearest", crs=settings.crs,
        )  # fmt: skip


def _counts(source: Source, geobox: GeoBox) -> Counter[int]:
    """Return the pixels of each label value on the grid, read in windows."""
    counts: Counter[int] = Counter()
    for block in BlockGrid(geobox=geobox, size=_WINDOW):
        found, valid = source.read(geobox, block.inner)
        values: np.ndarray[Any, Any]
        values, n = np.unique(found[0][valid[0]], return_counts=True)
        if (values % 1 != 0).any():
            fraction = values[values % 1 != 0][0]
            raise LabelError(f"{source.path}: labels are whole numbers, found {fraction:g} in {block.inner}")
        counts.update(dict(zip(values.astype(np.int64).tolist(), n.tolist(), strict=True)))
    return counts


def _reach(settings: LabelSettings) -> str:
    with open_raster(settings.file) as dataset:
        return f"the labels reach from {extent(dataset.bounds)} in {dataset.crs or settings.crs}. Are the CRS of both right?"


def extent(bounds: Sequence[float]) -> str:
    """Return left, bottom, right, top as people read them."""
    return "({:.7g}, {:.7g}) to ({:.7g}, {:.7g})".format(*bounds)

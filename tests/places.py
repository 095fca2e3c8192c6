"""Labels and a made-up cube for tests of samples."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
from affine import Affine
from odc.geo.geobox import GeoBox
from shapely.geometry import box

from pipeline.grid import Window
from pipeline.imagery.cube import Tile
from pipeline.samples.features import open_labels
from pipeline.samples.labels import Labels
from pipeline.samples.shapes import VectorLabels
from pipeline.settings import ClassSettings, LabelSettings

CRS = "EPSG:32633"
X, Y = 500_000.0, 5_000_000.0


def grid(height: int = 60, width: int = 60, crs: str = CRS) -> GeoBox:
    """Return a grid of pixels of 10."""
    return GeoBox((height, width), Affine(10, 0, X, 0, -10, Y), crs)


def square(row: float, column: float, side: float = 4, width: float | None = None) -> Any:
    """Return a rectangle given in pixels of the grid."""
    across = side if width is None else width
    return box(X + 10 * column, Y - 10 * (row + side), X + 10 * (column + across), Y - 10 * row)


def frame(shapes: Sequence[Any], values: Sequence[Any], crs: str | None = CRS, **columns: Any) -> gpd.GeoDataFrame:
    """Return features with their label in the field `class`."""
    return gpd.GeoDataFrame({"class": list(values), **columns}, geometry=list(shapes), crs=crs)


def opened(
    path: Path,
    features: gpd.GeoDataFrame,
    geobox: GeoBox | None = None,
    classes: Sequence[ClassSettings] | None = None,
    dates: Sequence[datetime.date | None] = (),
    **options: Any,
) -> VectorLabels:
    """Write features to a file and open them as labels."""
    features.to_file(path)
    labels = open_labels(
        LabelSettings.model_validate({"path": str(path), "field": "class"} | options), classes, geobox or grid(), dates
    )
    assert isinstance(labels, VectorLabels)
    return labels


def scattered(path: Path, per_class: Sequence[int], geobox: GeoBox | None = None, side: int = 4) -> VectorLabels:
    """Open squares on a lattice of every 10 pixels, so many of each class, the classes mixed over the land."""
    geobox = geobox or grid()
    columns = int(geobox.shape.x) // 10
    values = [f"class {i}" for i, n in enumerate(per_class) for _ in range(n)]
    order = np.random.default_rng(0).permutation(len(values))
    cells = [divmod(i, columns) for i in range(len(values))]
    shapes = [square(10 * r + 3, 10 * c + 3, side) for r, c in cells]
    return opened(path, frame(shapes, [values[i] for i in order]), geobox)


@dataclass(frozen=True)
class MadeUpCube:
    """A cube whose values say where they are: 1000 * time + 100 * band + a number of the place."""

    geobox: GeoBox
    bands: tuple[str, ...] = ("red", "nir")
    dates: tuple[datetime.date | None, ...] = (None,)
    invalid: tuple[Window, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.dates), len(self.bands), int(self.geobox.shape.y), int(self.geobox.shape.x)

    @property
    def time(self) -> Any:
        return np.arange(len(self.dates), dtype=np.float32) * 16

    def read(self, window: Window) -> Tile:
        times, bands, height, width = self.shape
        y, x = np.mgrid[window.y : window.bottom, window.x : window.right]
        valid = np.broadcast_to((y >= 0) & (x >= 0) & (y < height) & (x < width), (times, *window.shape)).copy()
        for out in self.invalid:
            valid &= ~((y >= out.y) & (y < out.bottom) & (x >= out.x) & (x < out.right))
        place = np.sin(y * 0.7) * 20 + np.cos(x * 1.3) * 20
        layers = [[place + 1000 * t + 100 * b for b in range(bands)] for t in range(times)]
        values = np.array(layers, np.float32).reshape(times, bands, *window.shape)
        return Tile(values * valid[:, None], valid)


def codes(labels: Labels) -> Any:
    """Return the class indices of the whole grid."""
    height, width = labels.geobox.shape
    return labels.read(Window(y=0, x=0, height=int(height), width=int(width))).codes

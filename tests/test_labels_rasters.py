"""Rasters of labels: classes, grids, numbers, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from places import CRS, X, Y, codes, grid

from pipeline.errors import LabelError
from pipeline.grid import Window
from pipeline.samples.features import open_labels
from pipeline.samples.labels import IGNORE
from pipeline.settings import ClassSettings, LabelSettings


def write_raster(path: Path, values: Any, transform: Affine | None = None, **profile: Any) -> Path:
    values = np.asarray(values)
    options = {"driver": "GTiff", "crs": CRS, "transform": transform or grid().affine} | profile
    with rasterio.open(
        path, "w", count=1, height=values.shape[0], width=values.shape[1], dtype=values.dtype, **options
    ) as raster:
        raster.write(values, 1)
    return path


def raster_values() -> Any:
    values = np.zeros((60, 60), np.uint8)
    values[5:15, 5:15], values[30:40, 20:50] = 7, 3
    return values


def test_a_raster_of_labels(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "labels.tif", raster_values())
    labels = open_labels(LabelSettings(path=str(path)), None, grid())
    np.testing.assert_array_equal(
        labels.legend.codes[codes(labels)][raster_values() > 0], raster_values()[raster_values() > 0]
    )
    assert ((codes(labels) == IGNORE) == (raster_values() == 0)).all()
    assert [r["pixels"] for r in labels.report()] == [300, 100]
    assert "3200 pixels of 0 are taken for not labelled" in labels.notes[0]
    assert [(w.y, w.x) for w in labels.windows(20)] == [(0, 0), (20, 20), (20, 40)]
    assert labels.n_features == 0
    outside = pickle.loads(pickle.dumps(labels)).read(Window(y=-5, x=-5, height=20, width=20))
    assert (outside.codes[:5] == IGNORE).all()
    assert (outside.codes[10, 10:] != IGNORE).all()


def test_zero_is_a_class_where_it_is_named(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "labels.tif", raster_values(), nodata=3)
    classes = [ClassSettings(name="land", labels=[0]), ClassSettings(name="water", labels=[7])]
    labels = open_labels(LabelSettings(path=str(path)), classes, grid())
    assert labels.notes == []
    found = codes(labels)
    assert [int((found == i).sum()) for i in (0, 1, IGNORE)] == [3200, 100, 300]


def test_a_raster_on_another_grid_gives_the_nearest_pixel(tmp_path: Path) -> None:
    coarse = np.array([[1, 2], [3, 4]], np.int16)
    path = write_raster(tmp_path / "labels.tif", coarse, Affine(300, 0, X, 0, -300, Y))
    labels = open_labels(LabelSettings(path=str(path)), None, grid())
    np.testing.assert_array_equal(labels.legend.codes[codes(labels)], np.kron(coarse, np.ones((30, 30))))


def test_whole_numbers_stored_as_floats_are_labels_and_fractions_are_not(tmp_path: Path) -> None:
    values = raster_values().astype(np.float32)
    values[0, 0] = np.nan
    labels = open_labels(LabelSettings(path=str(write_raster(tmp_path / "a.tif", values))), None, grid())
    assert labels.legend.codes.tolist() == [3, 7]
    values[0, 0] = 0.25
    with pytest.raises(LabelError, match=r"labels are whole numbers, found 0.25 in rows 0..59"):
        open_labels(LabelSettings(path=str(write_raster(tmp_path / "b.tif", values))), None, grid())


def test_a_raster_of_labels_that_is_wrong_is_refused(tmp_path: Path) -> None:
    far = write_raster(tmp_path / "far.tif", raster_values(), Affine(10, 0, X + 5e4, 0, -10, Y))
    with pytest.raises(LabelError, match=r"no label lies inside the raster.*550000"):
        open_labels(LabelSettings(path=str(far)), None, grid())
    bare = write_raster(tmp_path / "bare.tif", raster_values(), crs=None)
    with pytest.raises(LabelError, match="states no CRS"):
        open_labels(LabelSettings(path=str(bare)), None, grid())
    assert open_labels(LabelSettings(path=str(bare), crs=CRS), None, grid()).legend.codes.tolist() == [3, 7]
    text = tmp_path / "text.tif"
    text.write_text("no raster")
    with pytest.raises(LabelError, match=r"labels\.path: .*cannot be opened as a raster"):
        open_labels(LabelSettings(path=str(text)), None, grid())

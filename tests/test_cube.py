"""Cubes against naive readers: bands and dates from many files, areas, windows beyond the raster, the xarray view."""

from __future__ import annotations

import datetime
import pickle

import dask
import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles_imagery import naive_read
from rasters import NORTH_UP, grid, noise, source, write
from shapely.geometry import Point, Polygon, box

from pipeline.errors import ImageryError
from pipeline.grid import Window, whole
from pipeline.imagery.cube import Cube

DAYS = [datetime.date(2021, 6, 1), datetime.date(2021, 6, 17)]


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Two dates; the first file holds both bands, the second date has a file per band, one with nodata."""
    folder = tmp_path_factory.mktemp("series")
    bands = noise(4, 29, 31, most=30)
    both = write(folder / "both.tif", bands[:2], nodata=5)
    red, nir = (write(folder / f"{n}.tif", bands[i : i + 1], nodata=5) for n, i in (("red", 2), ("nir", 3)))
    sources = (
        source(nir, bands=("nir",), date=DAYS[1], nodata=5),
        source(both, 2, bands=("red", "nir"), date=DAYS[0], nodata=5),
        source(red, bands=("red",), date=DAYS[1], nodata=5),
    )
    return Cube(grid(29, 31), ("red", "nir"), tuple(DAYS), sources), bands.reshape(2, 2, 29, 31)


def naive_tile(stored, nodata, window):
    """Return values (T, C, h, w) and validity (T, h, w) of a window, each date by itself."""
    read = [naive_read(date, nodata, 1, 0, window.y, window.x, *window.shape) for date in stored]
    valid = np.stack([v.all(0) for _, v in read])
    return np.stack([a for a, _ in read]) * valid[:, None], valid


@settings(max_examples=40, deadline=None)
@given(y=st.integers(-40, 40), x=st.integers(-40, 40), h=st.integers(1, 40), w=st.integers(1, 40))
def test_any_window_equals_the_naive_reader(series, y, x, h, w):
    cube, stored = series
    window = Window(y=y, x=x, height=h, width=w)
    tile = cube.read(window)
    values, valid = naive_tile(stored, 5, window)
    np.testing.assert_array_equal(tile.values, values)
    np.testing.assert_array_equal(tile.valid, valid)
    assert tile.values.shape == (2, 2, h, w)
    assert (tile.values.dtype, tile.valid.dtype) == (np.float32, bool)


def test_sizes_times_and_tokens(series):
    cube, _ = series
    assert cube.shape == (2, 2, 29, 31)
    assert cube.time.tolist() == [0, 16]
    assert cube.time.dtype == np.float32
    again = pickle.loads(pickle.dumps(cube))
    assert again == cube
    assert dask.base.tokenize(again) == dask.base.tokenize(cube)
    assert dask.base.tokenize(cube.select(["nir"])) != dask.base.tokenize(cube)
    window = Window(y=-2, x=3, height=9, width=9)
    np.testing.assert_array_equal(again.read(window).values, cube.read(window).values)


def test_bands_are_selected_by_name_in_the_order_asked_for(series):
    cube, stored = series
    turned = cube.select(["nir", "red"]).read(whole(cube.geobox))
    np.testing.assert_array_equal(turned.values, naive_tile(stored[:, ::-1], 5, whole(cube.geobox))[0])
    one = cube.select(["nir"]).read(whole(cube.geobox))
    np.testing.assert_array_equal(one.valid, (stored[:, 1] != 5))
    with pytest.raises(
        ImageryError, match=r"no band 'nire'; did you mean 'nir'\?; wanted: red, nire; there are: red, nir"
    ):
        cube.select(["red", "nire"])


def test_bands_of_a_file_that_are_dates_are_read_at_once(tmp_path):
    stored = noise(70, 12, 13, most=50)
    path = write(tmp_path / "ndvi.tif", stored, nodata=5, interleave="pixel")
    days = [DAYS[0] + datetime.timedelta(i) for i in range(70)]
    sources = tuple(
        source(path, indexes=(i,), bands=("ndvi",), date=d, nodata=5.0) for i, d in enumerate(days, start=1)
    )
    cube = Cube(grid(12, 13), ("ndvi",), tuple(days), sources)
    assert len(cube._plan) == 3
    window = Window(y=-1, x=4, height=10, width=20)
    tile = cube.read(window)
    values, valid = naive_tile(stored[:, None], 5, window)
    np.testing.assert_array_equal(tile.values, values)
    np.testing.assert_array_equal(tile.valid, valid)


def test_a_date_without_one_of_the_bands_is_invalid(tmp_path):
    path = write(tmp_path / "a.tif", noise(2, 5, 5))
    sources = (source(path, 2, date=DAYS[0]), source(path, 1, date=DAYS[1]))
    tile = Cube(grid(5, 5), ("b1", "b2"), tuple(DAYS), sources).read(Window(y=0, x=0, height=5, width=5))
    assert tile.valid[0].all()
    assert not tile.valid[1].any()
    assert not tile.values[1].any()


def test_of_two_sources_the_first_with_a_value_counts(tmp_path):
    left, right = noise(2, 10, 10), noise(2, 10, 10, seed=1)
    left[:, :, 6:] = 0
    first = source(write(tmp_path / "a.tif", left, nodata=0), 2, nodata=0)
    # The second lies two pixels further right, as neighbouring scenes do.
    second = source(write(tmp_path / "b.tif", right, transform=NORTH_UP * Affine.translation(2, 0)), 2)
    tile = Cube(grid(10, 14), ("b1", "b2"), (None,), (first, second)).read(Window(y=0, x=0, height=10, width=14))
    expected = np.zeros((2, 10, 14))
    expected[:, :, 2:12] = right
    expected[:, :, :6] = left[:, :, :6]
    np.testing.assert_array_equal(tile.values[0], expected)
    np.testing.assert_array_equal(tile.valid[0], expected.all(0))


def test_one_band_that_is_not_finite_makes_the_pixel_invalid(tmp_path):
    stored = noise(3, 6, 6, "float32")
    stored[1, 2, 3], stored[2, 4, 4] = np.nan, np.inf
    path = write(tmp_path / "a.tif", stored)
    tile = Cube(grid(6, 6), ("b1", "b2", "b3"), (None,), (source(path, 3),)).read(whole(grid(6, 6)))
    assert np.argwhere(~tile.valid[0]).tolist() == [[2, 3], [4, 4]]
    assert np.isfinite(tile.values).all()
    assert not tile.values[0, :, 2, 3].any()


@pytest.mark.parametrize("size", [(1, 1), (1, 17), (13, 1), (7, 11)])
def test_rasters_of_any_size(tmp_path, size):
    stored = noise(2, *size)
    path = write(tmp_path / "a.tif", stored)
    cube = Cube(grid(*size), ("b1", "b2"), (None,), (source(path, 2),))
    tile = cube.read(whole(cube.geobox).pad(3))
    np.testing.assert_array_equal(tile.values[0, :, 3:-3, 3:-3], stored)
    assert tile.valid.sum() == size[0] * size[1]


def test_a_window_far_outside_reads_no_file():
    cube = Cube(grid(5, 5), ("b1",), (None,), (source("/there/is/none.tif"),))
    tile = cube.read(Window(y=900, x=0, height=4, width=3))
    assert not tile.valid.any()
    assert not tile.values.any()


@pytest.mark.parametrize("edge", [0.0, 5.0, 3.3])
def test_an_area_is_the_same_through_any_window(tmp_path, edge):
    """Also where its edges run through the very centres of pixels."""
    side = 300
    path = write(tmp_path / "a.tif", noise(1, side, side))
    x, y = NORTH_UP * (0, 0)
    hole = Point(x + 1500 + edge, y - 1500).buffer(700)
    area = box(x + 200 + edge, y - 2800 + edge, x + 2900 - edge, y - 300 - edge).difference(hole)
    area = area.union(Polygon([(x, y), (x + 1000 + edge, y), (x, y - 1000 - edge)]))
    cube = Cube(grid(side, side), ("b1",), (None,), (source(path),), area)
    at_once = cube.read(whole(cube.geobox)).valid[0]
    inside = area.buffer(-0.01)
    outside = area.buffer(0.01)
    for i in range(0, side, 7):
        for j in range(0, side, 7):
            centre = Point(*(NORTH_UP * (j + 0.5, i + 0.5)))
            assert at_once[i, j] or not inside.contains(centre)
            assert not at_once[i, j] or outside.contains(centre)
    for size in (64, 97):
        for i in range(0, side, size):
            for j in range(0, side, size):
                window = Window(y=i - 5, x=j - 5, height=size + 10, width=size + 10)
                part = window.intersect(whole(cube.geobox))
                found = cube.read(window).valid[0][part.within(window)]
                np.testing.assert_array_equal(found, at_once[part.within(whole(cube.geobox))])


def test_the_xarray_view_is_lazy_and_the_same(series):
    cube, _ = series
    view = cube.to_xarray(chunk=16)
    assert view["values"].dims == ("time", "band", "y", "x")
    assert view["values"].chunksizes["y"] == (16, 13)
    assert view["band"].to_numpy().tolist() == ["red", "nir"]
    assert view["time"].to_numpy().astype("datetime64[D]").tolist() == DAYS
    assert view.odc.geobox == cube.geobox
    tile = cube.read(whole(cube.geobox))
    loaded = view.compute(scheduler="threads")
    np.testing.assert_array_equal(loaded["values"], tile.values)
    np.testing.assert_array_equal(loaded["valid"], tile.valid)


def test_the_xarray_view_of_an_undated_geographic_cube(tmp_path):
    stored = noise(1, 6, 8)
    transform = Affine(0.01, 0, 10, 0, -0.01, 50)
    path = write(tmp_path / "a.tif", stored, crs="EPSG:4326", transform=transform)
    view = Cube(grid(6, 8, transform, "EPSG:4326"), ("b1",), (None,), (source(path),)).to_xarray()
    assert view["values"].dims == ("time", "band", "latitude", "longitude")
    assert view["values"].shape == (1, 1, 6, 8)
    np.testing.assert_array_equal(view["values"][0, 0], stored[0])


def test_an_in_memory_plan_of_a_huge_raster_allocates_nothing(tmp_path):
    """A file of a few hundred bytes may claim a million pixels a side."""
    path = tmp_path / "huge.vrt"
    path.write_text(
        '<VRTDataset rasterXSize="1000000" rasterYSize="1000000"><SRS>EPSG:32633</SRS>'
        "<GeoTransform>500000, 10, 0, 5000000, 0, -10</GeoTransform>"
        '<VRTRasterBand dataType="Byte" band="1"><NoDataValue>0</NoDataValue></VRTRasterBand></VRTDataset>'
    )
    cube = Cube(grid(10**6, 10**6), ("b1",), (None,), (source(path, nodata=0),))
    assert not cube.read(Window(y=999_990, x=500_000, height=32, width=32)).valid.any()

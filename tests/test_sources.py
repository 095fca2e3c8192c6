"""Sources against a naive reader: windows anywhere, every type, nodata, masks, scale; warped and plain."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles_imagery import bilinear_at, naive_read
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasters import CRS, NORTH_UP, grid, noise, source, write

from pipeline.errors import ImageryError, ReadError
from pipeline.grid import Window, whole
from pipeline.imagery import handles
from pipeline.imagery.sources import Mask
from pipeline.imagery.validity import adjusted


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    bands = noise(3, 37, 53, most=20)
    path = tmp_path_factory.mktemp("scene") / "scène 1 ü.tif"
    return write(path, bands, nodata=7, tiled=True, blockxsize=16, blockysize=16, compress="deflate"), bands


@settings(max_examples=60, deadline=None)
@given(y=st.integers(-60, 60), x=st.integers(-70, 70), h=st.integers(1, 40), w=st.integers(1, 40))
def test_any_window_equals_the_naive_reader(scene, y, x, h, w):
    path, bands = scene
    found = source(path, 3, nodata=7, scales=(1.0, 0.5, 1.0), offsets=(0.0, 0.0, -3.0))
    values, valid = found.read(grid(37, 53), Window(y=y, x=x, height=h, width=w))
    for c, (scale, offset) in enumerate(((1, 0), (0.5, 0), (1, -3))):
        expected = naive_read(bands[c : c + 1], 7, scale, offset, y, x, h, w)
        np.testing.assert_array_equal(values[c], expected[0][0])
        np.testing.assert_array_equal(valid[c], expected[1][0])
    assert values.dtype == np.float32


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
@pytest.mark.parametrize("nodata", [None, 0, 3])
def test_every_type_is_read_exactly(tmp_path, dtype, nodata):
    bands = noise(2, 9, 11, dtype, most=100)
    path = write(tmp_path / "a.tif", bands, nodata=nodata)
    window = Window(y=-1, x=-1, height=11, width=13)
    values, valid = source(path, 2, nodata=nodata).read(grid(9, 11), window)
    expected = naive_read(bands, nodata, 1, 0, -1, -1, 11, 13)
    np.testing.assert_array_equal(values, expected[0])
    np.testing.assert_array_equal(valid, expected[1])


def test_bands_are_read_in_the_order_asked_for(tmp_path):
    bands = noise(4, 5, 6)
    path = write(tmp_path / "a.tif", bands)
    found = source(path, 2, indexes=(4, 2)).read(grid(5, 6), Window(y=0, x=0, height=5, width=6))[0]
    np.testing.assert_array_equal(found, bands[[3, 1]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_that_are_no_numbers_are_invalid_without_a_warning(tmp_path, dtype):
    bands = np.array([[[1, np.nan, np.inf, -np.inf, -1.7e308 if dtype == "float64" else -3.4e38]]], dtype)
    path = write(tmp_path / "a.tif", bands)
    values, valid = source(path, scales=(10.0,)).read(grid(1, 5), Window(y=0, x=0, height=1, width=5))
    assert valid.tolist() == [[[True, False, False, False, False]]]
    assert values.tolist() == [[[10, 0, 0, 0, 0]]]


@pytest.mark.parametrize(
    ("nodata", "dtype", "expected"),
    [
        (-9999, "uint8", None),
        (300, "uint8", None),
        (1.5, "int16", None),
        (float("nan"), "int32", None),
        (-9999, "int16", -9999),
        (-1.7e308, "float32", float(np.finfo("float32").min)),
        (-1.7e308, "float64", -1.7e308),
        (-3.4e38, "float32", -3.4e38),
    ],
)
def test_nodata_as_the_type_can_hold_it(nodata, dtype, expected):
    assert adjusted(nodata, dtype) == expected


def test_grids_with_other_extents_are_read_plainly(tmp_path):
    bands = noise(1, 30, 40)
    path = write(tmp_path / "a.tif", bands)
    larger = grid(50, 60, NORTH_UP * Affine.translation(-10, -5))
    found = source(path)
    assert found.on_grid(larger)
    values, valid = found.read(larger, whole(larger))
    np.testing.assert_array_equal(values[0, 5:35, 10:50], bands[0])
    assert valid.sum() == 30 * 40
    assert valid[0, 5:35, 10:50].all()


def test_a_finer_grid_takes_bilinear_values(tmp_path):
    bands = noise(1, 20, 20, "float32")
    path = write(tmp_path / "a.tif", bands)
    finer = grid(40, 40, NORTH_UP * Affine.scale(0.5))
    found = source(path)
    assert not found.on_grid(finer)
    values, valid = found.read(finer, whole(finer))
    assert valid.all()
    for y, x in ((10, 10), (11, 20), (25, 31), (36, 5)):
        assert values[0, y, x] == pytest.approx(bilinear_at(bands[0], (y + 0.5) / 2, (x + 0.5) / 2), rel=1e-4)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("nodata", [None, 0])
def test_beyond_a_warped_file_nothing_is_valid(tmp_path, dtype, nodata):
    """GDAL takes an alpha band of int16 or float32 for values, not for a mask."""
    path = write(tmp_path / "a.tif", noise(2, 20, 20, dtype, most=100), nodata=nodata)
    wide = grid(60, 60, NORTH_UP * Affine.translation(-10.3, -10.3) * Affine.scale(0.7))
    values, valid = source(path, 2, nodata=nodata).read(wide, whole(wide))
    centres = (np.arange(60) + 0.5) * 0.7 - 10.3
    inside = (centres > 0) & (centres < 20)
    np.testing.assert_array_equal(valid[0], inside[:, None] & inside[None])
    assert not values[~valid].any()


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "average", "mode"])
@pytest.mark.parametrize("crs", [CRS, "EPSG:3035", "EPSG:4326"])
def test_a_warped_pixel_does_not_depend_on_the_window(tmp_path, resampling, crs):
    path = write(tmp_path / "a.tif", noise(1, 200, 180), nodata=0)
    with rasterio.open(path) as raster, rasterio.vrt.WarpedVRT(raster, crs=crs) as view:
        a = view.transform * Affine.translation(0.4, 0.2) * Affine.scale(1.7)
        side = int(min(view.height, view.width) / 1.7)
    output = grid(side, side, a, crs)
    found = source(path, nodata=0, resampling=resampling)
    at_once, valid = found.read(output, whole(output))
    assert valid.mean() > 0.5
    for size in (17, 64):
        for y in range(0, side, size):
            for x in range(0, side, size):
                window = Window(y=y - 3, x=x - 3, height=size + 6, width=size + 6)
                part = window.intersect(whole(output))
                values = found.read(output, window)[0][0][part.within(window)]
                np.testing.assert_array_equal(values, at_once[0][part.within(whole(output))])


def test_south_up_is_turned_exactly(tmp_path):
    bands = noise(2, 30, 20)
    south_up = Affine(10, 0, 500_000, 0, 10, 4_999_700)
    path = write(tmp_path / "a.tif", bands, transform=south_up)
    values, valid = source(path, 2).read(grid(30, 20), Window(y=0, x=0, height=30, width=20))
    assert valid.all()
    np.testing.assert_array_equal(values, bands[:, ::-1])


def test_a_rotated_raster_lands_where_it_lies(tmp_path):
    bands = noise(1, 64, 64, most=200)
    rotated = NORTH_UP * Affine.rotation(30)
    path = write(tmp_path / "a.tif", bands, transform=rotated, nodata=0)
    output = grid(120, 120, NORTH_UP * Affine.translation(-50, -10))
    values, valid = source(path, nodata=0, resampling="nearest").read(output, whole(output))
    same = total = 0
    for y in range(0, 120, 3):
        for x in range(0, 120, 3):
            column, row = ~rotated * (output.affine * (x + 0.5, y + 0.5))
            if 1 < row < 63 and 1 < column < 63:
                assert valid[0, y, x]
                total += 1
                same += values[0, y, x] == bands[0, int(row), int(column)]
            elif not (-1 < row < 65 and -1 < column < 65):
                assert not valid[0, y, x]
    # GDAL interpolates places to an eighth of a pixel, so that near an edge the neighbour may be taken.
    assert same > 0.9 * total > 100


def test_control_points_place_a_raster(tmp_path):
    bands = noise(1, 40, 40, "float32")
    points = [GroundControlPoint(r, c, *(NORTH_UP * (c, r)), 0) for r in (0, 20, 40) for c in (0, 20, 40)]
    path = write(tmp_path / "a.tif", bands, gcps=points)
    output = grid(60, 60, NORTH_UP * Affine.translation(-10, -10))
    values, valid = source(path, resampling="nearest").read(output, whole(output))
    assert valid[0, 11:49, 11:49].all()
    assert not valid[0, :9].any()
    assert not valid[0, :, 51:].any()
    assert (values[0, 10:50, 10:50] == bands[0]).mean() > 0.95


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("step", [1, 0.5])
def test_alpha_bands_of_any_type_are_honoured(tmp_path, dtype, step):
    bands = noise(2, 16, 16, dtype, most=100)
    bands[1] = 100
    bands[1, :8] = 0
    path = write(tmp_path / "a.tif", bands, colorinterp=(ColorInterp.gray, ColorInterp.alpha))
    output = grid(int(16 / step), int(16 / step), NORTH_UP * Affine.scale(step))
    valid = source(path, resampling="nearest").read(output, whole(output))[1][0]
    half = int(8 / step)
    assert not valid[:half].any()
    assert valid[half:].all()


@pytest.mark.parametrize("step", [1, 0.5])
def test_mask_files_are_honoured(tmp_path, step):
    path = write(tmp_path / "a.tif", noise(2, 16, 16))
    with rasterio.open(path, "r+") as raster:
        raster.write_mask(np.repeat([0, 255], [4, 12]).astype("uint8")[:, None].repeat(16, 1))
    output = grid(int(16 / step), int(16 / step), NORTH_UP * Affine.scale(step))
    valid = source(path, 2, resampling="nearest").read(output, whole(output))[1]
    cut = int(4 / step)
    assert not valid[:, :cut].any()
    assert valid[:, cut:].all()


def test_a_mask_of_another_grid_takes_the_nearest(tmp_path):
    bands = noise(1, 20, 20)
    path = write(tmp_path / "a.tif", bands)
    classes = np.arange(100, dtype="uint8").reshape(1, 10, 10) % 7
    mask = write(tmp_path / "m.tif", classes, transform=NORTH_UP * Affine.scale(2))
    found = source(path, mask=Mask(path=str(mask), bands=(1,), exclude=(3, 5)))
    values, valid = found.read(grid(20, 20), Window(y=3, x=-2, height=10, width=10))
    excluded = np.isin(np.kron(classes[0], np.ones((2, 2))), (3, 5))
    expected = np.zeros((10, 10), bool)
    expected[:, 2:] = ~excluded[3:13, :8]
    np.testing.assert_array_equal(valid[0], expected)
    assert not values[~valid].any()


def test_zero_can_be_excluded_and_beyond_the_mask_nothing_is(tmp_path):
    path = write(tmp_path / "a.tif", noise(1, 8, 8))
    mask = write(tmp_path / "m.tif", np.zeros((1, 4, 8), "uint8"))
    found = source(path, mask=Mask(path=str(mask), bands=(1,), exclude=(0,)))
    valid = found.read(grid(8, 8), Window(y=0, x=0, height=8, width=8))[1][0]
    assert not valid[:4].any()
    assert valid[4:].all()


@pytest.mark.parametrize("nodata", [None, 9])
def test_blocks_that_a_sparse_file_lacks_are_as_the_file_says(tmp_path, nodata):
    stored = noise(1, 64, 64)
    path = tmp_path / "a.tif"
    options = {"tiled": True, "blockxsize": 32, "blockysize": 32, "sparse_ok": True, "nodata": nodata}
    with rasterio.open(
        path, "w", driver="GTiff", width=64, height=64, count=1, dtype="uint16", crs=CRS, transform=NORTH_UP, **options
    ) as raster:
        raster.write(stored[:, :32, :32], window=Window(y=0, x=0, height=32, width=32).to_rasterio())
    values, valid = source(path, nodata=nodata).read(grid(64, 64), Window(y=0, x=0, height=64, width=64))
    np.testing.assert_array_equal(valid[0, :32, :32], stored[0, :32, :32] != (nodata or 0))
    assert valid[0, 32:].all() == (nodata is None)
    assert not values[0, 32:].any()


def test_a_truncated_file_names_file_and_window(tmp_path):
    path = write(tmp_path / "cut.tif", noise(1, 256, 256), tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    os.truncate(path, path.stat().st_size - 2000)
    found = source(path)
    assert found.read(grid(256, 256), Window(y=0, x=0, height=64, width=64))[1].all()
    with pytest.raises(
        ReadError, match=r"cut\.tif: reading rows 200\.\.255, columns 200\.\.255 failed .*damaged or trunc"
    ):
        found.read(grid(256, 256), Window(y=200, x=200, height=80, width=80))


def test_a_grid_of_another_planet_is_refused(tmp_path):
    path = write(tmp_path / "a.tif", noise(1, 8, 8))
    mars = grid(8, 8, crs="ESRI:103885")
    with pytest.raises(ImageryError, match=r"a\.tif cannot be put on the grid .*coordinate operations"):
        source(path).read(mars, whole(mars))


def test_each_thread_has_a_handle_of_its_own_and_few_of_them(tmp_path):
    path = write(tmp_path / "a.tif", noise(1, 8, 8))
    seen = []

    def read():
        source(path).read(grid(8, 8), Window(y=0, x=0, height=8, width=8))
        seen.append({id(view.dataset) for view in handles._handles.open.values() if hasattr(view, "dataset")})

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(s) for s in seen] == [1, 1, 1]
    for i in range(handles.kept() + 5):
        other = write(tmp_path / f"{i}.tif", noise(1, 2, 2))
        source(other).read(grid(2, 2), Window(y=0, x=0, height=2, width=2))
    assert len(handles._handles.open) <= handles.kept()


def test_a_file_that_was_replaced_is_opened_anew(tmp_path):
    path = write(tmp_path / "a.tif", noise(1, 8, 8))
    window = Window(y=0, x=0, height=8, width=8)
    source(path).read(grid(8, 8), window)
    other = noise(1, 8, 8, seed=1)
    write(tmp_path / "b.tif", other)
    (tmp_path / "b.tif").replace(path)
    os.utime(path, ns=(1, 1))
    np.testing.assert_array_equal(source(path).read(grid(8, 8), window)[0], other)


def test_the_cache_is_sized_in_bytes():
    handles.configure()
    size = int(rasterio.env.get_gdal_config("GDAL_CACHEMAX"))
    assert size >= handles._CACHE_LEAST or "GDAL_CACHEMAX" in os.environ


def test_every_thread_is_set_up():
    """What rasterio sets in a thread other than the main one holds for that thread alone; workers have no other."""
    program = (
        "import threading, rasterio\nfrom pipeline.imagery import handles\nseen = []\n"
        "def look():\n    handles.configure()\n"
        "    seen.append(rasterio.env.get_gdal_config('GDAL_VRT_WARP_USE_DATASET_RASTERIO', normalize=False))\n"
        "for _ in range(2):\n    t = threading.Thread(target=look)\n    t.start()\n    t.join()\n"
        "assert seen == ['NO', 'NO'], seen\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

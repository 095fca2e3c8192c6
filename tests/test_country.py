"""A country in a sparse file: what is outside the area, and what the file leaves out, costs no reading and no memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import geopandas as gpd
import pytest
import rasterio
from affine import Affine
from conftest import CRS, TRANSFORM, write_job, write_scene
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.windows import Window as RasterioWindow
from rasters import source
from shapely import Polygon, box

from pipeline.grid import BlockGrid, Window, whole
from pipeline.imagery import sources
from pipeline.imagery.area import blocks_meeting, inside_area
from pipeline.imagery.cube import Cube
from pipeline.samples.legend import Legend
from pipeline.samples.shapes import VectorLabels
from pipeline.samples.units import blocks_of_land
from pipeline.samples.unlabelled import draw_places
from pipeline.settings import FoldSettings
from workflows.check import check
from workflows.console import Console
from workflows.context import Context
from workflows.load import load_job

SIDE, LAND = 50_000, 96


def write_sparse(path: Path, *, side: int, **changes: Any) -> Path:
    """Write the scene into the upper left tile of a file that holds no other."""
    scene = write_scene(path.with_name("land.tif"), side=LAND)
    with rasterio.open(scene) as land:
        values = land.read()
    profile = {
        "driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint16", "crs": CRS, "transform": TRANSFORM,
        "nodata": 0, "tiled": True, "blockxsize": 128, "blockysize": 128, "sparse_ok": True, "interleave": "pixel",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile | changes) as raster:
        raster.write(values, window=RasterioWindow(0, 0, LAND, LAND))
        for i, name in enumerate(("green", "red", "nir"), 1):
            raster.set_band_description(i, name)
    return path


def cube_of(path: Path, *, nodata: float | None = 0, area: Any = None) -> Cube:
    """Return the cube of a file."""
    with rasterio.open(path) as raster:
        geobox = GeoBox(raster.shape, raster.transform, CRS)
    return Cube(geobox, ("b1", "b2", "b3"), (None,), (source(path, 3, nodata=nodata),), area=area)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Window]:
    """The windows that are read from files."""
    found: list[Window] = []
    fill = sources._fill

    def counting(path: str, indexes: Any, geobox: GeoBox, window: Window, *rest: Any) -> Any:
        found.append(window)
        return fill(path, indexes, geobox, window, *rest)

    monkeypatch.setattr(sources, "_fill", counting)
    return found


def test_a_sparse_country_is_checked_in_a_few_reads_and_little_memory(folder, reads, capsys):
    # Blocks of land, and not features: they are counted on the grid.
    job = write_job(folder / "job.yaml", folds={"method": "blocks", "size": 240})
    # Once with a small scene, which imports what is needed: this is not to be counted.
    check(Context(load_job(job), Console(quiet=True)))
    write_sparse(folder / "scene.tif", side=SIDE, blockxsize=512, blockysize=512)
    reads.clear()
    tracemalloc.start()
    try:
        check(Context(load_job(job), Console()))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    said = capsys.readouterr()
    assert f"{SIDE} x {SIDE} px" in said.out + said.err
    # A plane of one byte would take 2,500 MB.
    assert most < 50e6
    # Corners, and a window whose reading is timed; of 2,500,000,000 pixels.
    assert sum(w.pixels for w in reads) < 400_000


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_what_a_file_leaves_out_is_not_read(tmp_path, reads, interleave):
    cube = cube_of(write_sparse(tmp_path / "scene.tif", side=1000, interleave=interleave))
    gap, land = Window(y=300, x=300, height=256, width=256), Window(y=0, x=0, height=256, width=256)
    tile = cube.read(gap)
    assert reads == []
    assert not tile.valid.any()
    assert not tile.values.any()
    assert cube.read(land).valid.sum() == LAND**2 - 25
    assert reads == [land]


@pytest.mark.parametrize(
    ("declared", "nodata", "holds"), [(0, 0, False), (0, 7, True), (None, 0, False), (None, None, True), (9, 9, False)]
)
def test_what_a_file_leaves_out_is_nodata_only_where_its_value_is(tmp_path, declared, nodata, holds):
    cube = cube_of(write_sparse(tmp_path / "scene.tif", side=600, nodata=declared), nodata=nodata)
    gap = Window(y=300, x=300, height=256, width=256)
    assert cube.holds(gap) == holds
    # What reading it would have said: GDAL gives the declared value there, or 0.
    found = cube.sources[0].read(cube.geobox, gap)[1]
    assert found.all() == found.any() == holds


def test_a_block_outside_the_area_reads_nothing(tmp_path, reads):
    x, y = TRANSFORM * (20, 20)
    cube = cube_of(write_scene(tmp_path / "scene.tif"), area=box(x, y - 100, x + 100, y))
    outside = cube.read(Window(y=40, x=40, height=32, width=32))
    assert not outside.valid.any()
    assert reads == []
    assert cube.read(Window(y=16, x=16, height=16, width=16)).valid.sum() == 100
    assert len(reads) == 1


@settings(max_examples=20, deadline=None)
@given(
    corners=st.lists(st.tuples(st.integers(-30, 90), st.integers(-30, 90)), min_size=3, max_size=6),
    size=st.sampled_from([7, 16, 64]),
    turn=st.sampled_from([0, 30]),
)
def test_the_blocks_of_an_area_are_those_with_pixels_in_it(corners, size, turn):
    geobox = GeoBox((50, 60), TRANSFORM * Affine.rotation(turn), CRS)
    area = Polygon([geobox.affine * c for c in corners]).buffer(1)
    blocks = BlockGrid(geobox=geobox, size=size)
    met = set(blocks_meeting(area, blocks).tolist())
    holding = {b.index for b in blocks if inside_area(area, geobox, b.inner).any()}
    touching = {b.index for b in blocks if area.distance(_outline(geobox, b.inner)) == 0}
    assert holding <= met <= touching


def test_places_are_drawn_from_the_land_that_the_area_meets():
    geobox = GeoBox((SIDE, SIDE), TRANSFORM, CRS)
    x, y = TRANSFORM * (30_000, 20_000)
    cells = draw_places(geobox, cell=1, number=500, seed=0, area=box(x, y - 5000, x + 5000, y)).cells
    assert len(cells) == 500
    # Within the squares of 512 pixels that the area meets.
    assert ((cells // 512 >= (39, 58)) & (cells // 512 <= (40, 59))).all()


@pytest.mark.parametrize("side", [700, 1500, 3000])
def test_large_blocks_of_land_are_counted_in_pieces(side, monkeypatch):
    shapes = [
        box(*(TRANSFORM * (c, r + 40)), *(TRANSFORM * (c + 60, r))) for r, c in ((1480, 990), (10, 10), (2900, 1500))
    ]
    frame = gpd.GeoDataFrame({"class_index": [0, 1, 0]}, geometry=shapes, crs=CRS)
    legend = Legend.from_values(["forest", "water"], None)
    labels = VectorLabels(geobox=GeoBox((3100, 2100), TRANSFORM, CRS), legend=legend, frame=frame)
    largest = 0
    read = VectorLabels.read

    def watched(self: VectorLabels, window: Window, period: int = 0) -> Any:
        nonlocal largest
        largest = max(largest, window.pixels)
        return read(self, window, period)

    monkeypatch.setattr(VectorLabels, "read", watched)
    folds = FoldSettings(method="blocks", size=10 * side)
    _, cells, weights = blocks_of_land(labels, folds, 0, [])
    assert largest <= 1024**2
    codes = read(labels, whole(labels.geobox)).codes
    expected = {
        (r // side, c // side): [int((codes[r : r + side, c : c + side] == k).sum()) for k in range(2)]
        for r in range(0, 3100, side)
        for c in range(0, 2100, side)
    }
    assert {tuple(c): w for c, w in zip(cells.tolist(), weights.tolist(), strict=True)} == {
        cell: w for cell, w in expected.items() if any(w)
    }


def _outline(geobox: GeoBox, window: Window) -> Polygon:
    corners = (window.x, window.y), (window.right, window.y), (window.right, window.bottom), (window.x, window.bottom)
    return Polygon([geobox.affine * c for c in corners])

"""Opening imagery: grids, places and areas, and a sentence for everything that is wrong with them."""

from __future__ import annotations

import warnings

import geopandas as gpd
import numpy as np
from affine import Affine
from cubes import opened, refused
from rasters import CRS, NORTH_UP, noise, write
from shapely.geometry import Point, box

from pipeline.grid import whole


def test_the_grid_of_the_first_source_is_the_default(tmp_path):
    a = write(tmp_path / "a.tif", noise(2, 30, 40), nodata=0)
    b = write(tmp_path / "b.tif", noise(1, 60, 80), transform=NORTH_UP * Affine.scale(0.5), names=("fine",), nodata=0)
    cube, notes = opened(a, b)
    assert (cube.geobox.affine, cube.shape[2:]) == (NORTH_UP, (30, 40))
    assert notes == ["not on the output grid, resampled (bilinear): b.tif"]
    assert cube.read(whole(cube.geobox)).valid.all()


def test_grids_that_are_asked_for(tmp_path):
    path = write(tmp_path / "a.tif", noise(2, 30, 40), nodata=0)
    like = write(tmp_path / "like.tif", noise(1, 5, 6), transform=NORTH_UP * Affine.translation(3, 4))
    cube, notes = opened(path, grid={"like": str(like)})
    assert (cube.shape[2:], notes) == ((5, 6), [])
    cube, notes = opened(path, grid={"bounds": (500_055, 4_999_805, 500_152, 4_999_907)})
    assert (cube.shape[2:], notes) == ((11, 11), [])
    assert cube.geobox.affine == NORTH_UP * Affine.translation(5, 9)
    cube, notes = opened(path, grid={"resolution": 20})
    assert (cube.shape[2:], len(notes)) == ((15, 20), 1)
    cube, notes = opened(path, grid={"crs": "EPSG:3035", "resolution": 10})
    assert cube.geobox.crs.epsg == 3035
    # Bands are resampled each by itself, but their nodata lies in one place.
    assert 0.5 < cube.read(whole(cube.geobox)).valid.mean() < 1


def test_grids_that_cannot_be(tmp_path):
    path = write(tmp_path / "a.tif", noise(1, 30, 40), nodata=0)
    assert "grid.crs differs from the CRS of the imagery: give grid.resolution" in refused(
        path, grid={"crs": "EPSG:3035"}
    )
    assert "expected left < right" in refused(path, grid={"bounds": (5, 5, 1, 9)})
    assert "grid.crs: the CRS is not understood" in refused(path, grid={"crs": "EPSG:0"})
    assert "more pixels than a raster can hold" in refused(path, grid={"resolution": 1e-8})


def test_imagery_across_the_antimeridian(tmp_path):
    across = Affine(1000, 0, 570_000, 0, -1000, 5_847_000)
    path = write(tmp_path / "a.tif", noise(1, 200, 230), crs="EPSG:32660", transform=across, nodata=0)
    cube, notes = opened(path)
    assert (cube.shape, notes) == ((1, 1, 200, 230), [])
    text = refused(path, grid={"crs": "EPSG:4326", "resolution": 0.01})
    assert "crosses the antimeridian, and EPSG:4326 has no rectangle around it" in text
    for bounds in ((178, 51, 180, 52), (-180, 51, -179, 52)):
        side, _ = opened(path, grid={"crs": "EPSG:4326", "resolution": 0.01, "bounds": bounds})
        assert side.read(whole(side.geobox)).valid.mean() > 0.6


def test_a_raster_without_a_crs(tmp_path):
    path = write(tmp_path / "a.tif", noise(1, 9, 9), crs=None)
    assert "a.tif states no CRS; give it with `crs`, such as crs: EPSG:32633" in refused(path)
    cube, _ = opened({"path": str(path), "crs": CRS})
    assert cube.geobox.crs.epsg == 32633
    assert cube.read(whole(cube.geobox)).valid.all()
    assert "imagery.crs: 'Bern' is no CRS" in refused({"path": str(path), "crs": "Bern"})


def test_a_raster_without_a_position(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = write(tmp_path / "a.tif", noise(1, 9, 9), transform=Affine.identity())
    assert "a.tif has no position: its transform is the identity" in refused(path)
    assert "has no position" in refused(path, grid={"crs": CRS, "resolution": 10, "bounds": (0, 0, 90, 90)})


def test_a_rotated_raster_needs_a_grid(tmp_path):
    path = write(tmp_path / "a.tif", noise(1, 40, 40), transform=NORTH_UP * Affine.rotation(20), nodata=0)
    assert "a.tif is rotated against the axes of its CRS; give the output `grid` (crs and resolution)" in refused(path)
    cube, _ = opened(path, grid={"crs": CRS, "resolution": 10})
    assert 0.4 < cube.read(whole(cube.geobox)).valid.mean() < 0.8


def test_south_up_is_made_north_up(tmp_path):
    stored = noise(1, 30, 20)
    path = write(tmp_path / "a.tif", stored, transform=Affine(10, 0, 500_000, 0, 10, 4_999_700), nodata=0)
    cube, notes = opened(path)
    assert cube.geobox.affine == NORTH_UP
    assert "stored south up" in notes[0]
    np.testing.assert_array_equal(cube.read(whole(cube.geobox)).values[0, 0], stored[0, ::-1])


def test_an_area(tmp_path):
    path = write(tmp_path / "a.tif", noise(1, 30, 40), nodata=0)
    inside = box(500_000, 4_999_900, 500_100, 5_000_000)
    frame = gpd.GeoDataFrame(geometry=[inside, Point(0, 0), None], crs=CRS)
    frame.to_crs("EPSG:4326").to_file(tmp_path / "area.gpkg")
    cube, _ = opened(path, area=str(tmp_path / "area.gpkg"))
    valid = cube.read(whole(cube.geobox)).valid[0]
    assert valid.sum() == 100
    assert valid[:10, :10].all()
    gpd.GeoDataFrame(geometry=[box(0, 0, 1, 1)], crs=CRS).to_file(tmp_path / "far.gpkg")
    assert "far.gpkg lies outside the grid: (0, 0) to (1, 1) against" in refused(path, area=str(tmp_path / "far.gpkg"))
    gpd.GeoDataFrame(geometry=[Point(0, 0)], crs=CRS).to_file(tmp_path / "point.gpkg")
    assert "point.gpkg holds no polygon" in refused(path, area=str(tmp_path / "point.gpkg"))
    assert "none.gpkg cannot be read" in refused(path, area=str(tmp_path / "none.gpkg"))

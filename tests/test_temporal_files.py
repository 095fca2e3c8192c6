"""The cube in time: files of the same date, dates that are missing, many files, and real series."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
from affine import Affine
from cubes import day, opened, refused, write_days
from oracles_imagery import naive_steps
from rasters import NORTH_UP, noise, write

from pipeline.grid import Window, whole
from pipeline.imagery import handles
from pipeline.imagery.dates import Period

# ---- duplicates


def test_files_of_one_date_and_grid_are_merged(tmp_path):
    one, two = noise(2, 9, 9), noise(2, 9, 9, seed=5)
    one[:, :4] = 0
    second = write(tmp_path / "b_20210101.tif", two, nodata=0)
    first = write(tmp_path / "a_20210101.tif", one, nodata=0)
    other = write(tmp_path / "c_20210301.tif", two, nodata=0)
    # The names decide, not the order of the list.
    cube, notes = opened({"path": [str(other), str(second), str(first)], "date": "%Y%m%d", "bands": ["red", "nir"]})
    assert cube.shape == (2, 2, 9, 9)
    np.testing.assert_array_equal(cube.read(whole(cube.geobox)).values[0], np.where(one == 0, two, one))
    said = [n for n in notes if n.startswith("given more than once, 2 in all: red on 2021-01-01, nir on 2021-01-01")]
    assert len(said) == 1


@pytest.mark.parametrize("how", ["size", "place"])
def test_files_of_one_date_on_different_grids_are_refused(tmp_path, how):
    write(tmp_path / "a_20210101.tif", noise(1, 9, 9), nodata=0, names=("red",))
    place = NORTH_UP if how == "size" else NORTH_UP @ Affine.translation(4, 0)
    second = noise(1, 9, 12 if how == "size" else 9)
    write(tmp_path / "b_20210101.tif", second, nodata=0, transform=place, names=("red",))
    text = refused({"path": str(tmp_path / "*.tif"), "date": "%Y%m%d", "bands": ["red"]})
    assert (
        "a_20210101.tif and b_20210101.tif hold the same band 'red' on 2021-01-01, and lie on different grids" in text
    )
    assert "9 x 9 pixels of 10 at (500000, 5000000) against " in text
    assert ("9 x 12 pixels" if how == "size" else "at (500040, 5000000)") in text
    # Entries of their own say which counts.
    entries = [{"path": str(tmp_path / f"{n}_20210101.tif"), "date": "%Y%m%d"} for n in "ab"]
    assert opened(*entries)[0].shape == (1, 1, 9, 9)


# ---- what is refused


def test_a_pattern_that_matches_no_date(tmp_path):
    write_days(tmp_path, [0, 5])
    assert "s_20210101: no date like '%Y-%m-%d' in the file's name" in refused(
        {"path": str(tmp_path / "*.tif"), "date": "%Y-%m-%d"}
    )


def test_a_list_of_dates_of_the_wrong_length(tmp_path):
    path = str(write(tmp_path / "ndvi.tif", noise(3, 9, 9)))
    text = refused({"path": path, "band": "ndvi", "dates": ["2021-01-01", "2021-01-02"]})
    assert "has 3 bands, and imagery.dates has 2 dates: one each is needed" in text


def test_imagery_of_which_no_date_is_complete(tmp_path):
    red = write(tmp_path / "red_20210101.tif", noise(1, 9, 9), nodata=0, names=("red",))
    nir = write(tmp_path / "nir_20210102.tif", noise(1, 9, 9), nodata=0, names=("nir",))
    text = refused(*({"path": str(p), "date": "%Y%m%d"} for p in (red, nir)))
    assert "no date has all bands (red, nir)" in text
    assert "missing: nir on 2021-01-01, red on 2021-01-02" in text


def test_a_band_missing_on_a_date_leaves_a_gap_that_is_filled(tmp_path):
    for number in (0, 10, 20):
        write(tmp_path / f"red_{day(number):%Y%m%d}.tif", noise(1, 9, 9, seed=number), nodata=0, names=("red",))
        if number != 10:
            write(tmp_path / f"nir_{day(number):%Y%m%d}.tif", noise(1, 9, 9, seed=number), nodata=0, names=("nir",))
    entries = [{"path": str(tmp_path / f"{b}_*.tif"), "date": "%Y%m%d"} for b in ("red", "nir")]
    plain, notes = opened(*entries)
    assert "missing, so these dates are invalid everywhere: nir on 2021-01-11" in notes
    assert plain.read(whole(plain.geobox)).valid.all((1, 2)).tolist() == [True, False, True]
    filled, _ = opened(*entries, temporal={"fill": "linear"})
    tile = filled.read(whole(plain.geobox))
    assert tile.valid.all()
    np.testing.assert_allclose(tile.values[1], (tile.values[0] + tile.values[2]) / 2, rtol=1e-6)


# ---- many files


def test_files_are_opened_once(tmp_path, monkeypatch):
    """Twice in all: once to learn what they hold, and once by each thread that reads them, while they are few."""
    write_days(tmp_path, range(20), tiled=True, blockxsize=16, blockysize=16)
    opens = []
    original = handles._open
    monkeypatch.setattr(handles, "_open", lambda path, *more: opens.append(path) or original(path, *more))
    cube, _ = opened({"path": str(tmp_path / "*.tif"), "date": "%Y%m%d"}, temporal={"every": 4, "fill": "linear"})
    assert len(opens) <= 20 + 1
    opens.clear()
    for x in (0, 8):
        cube.read(Window(y=0, x=x, height=8, width=8))
    assert len(opens) == 20
    opens.clear()
    part = cube.during(Period(day(8), day(11)))
    part.read(Window(y=0, x=0, height=8, width=8))
    assert not opens
    assert {s.source.path for s in part._plan} == {s.path for s in cube.sources if day(4) <= s.date <= day(12)}


def test_a_header_in_the_other_case_is_found(tmp_path):
    """Opening files faster, by not listing their folder, would lose it."""
    path = write(tmp_path / "b.bil", noise(1, 8, 8), driver="EHdr")
    (tmp_path / "b.hdr").rename(tmp_path / "b.HDR")
    assert opened(path)[0].shape == (1, 1, 8, 8)


# ---- real imagery


def test_cloud_masks_of_a_series(data):
    folder = data / "sentinel2_slovenia"
    entry = {
        "path": str(folder / "ndvi_68dates.tif"),
        "band": "ndvi",
        "dates": "bands",
        "mask": {"path": str(folder / "cloudmask_68dates.tif"), "exclude": [1]},
    }
    cube, notes = opened(entry, temporal={"every": 16, "fill": "linear"})
    assert notes[-1] == "67 images -> 56 steps of 16 days, filled linearly"
    assert any("ndvi on 2015-12-08" in n for n in notes)
    tile = cube.read(whole(cube.geobox))
    assert tile.valid.all()
    plain = opened(entry)[0]
    seen = plain.read(whole(plain.geobox))
    assert 0.4 < seen.valid.mean() < 0.8
    days = [(d - plain.dates[0]).days for d in plain.dates]
    rows, columns = slice(40, 46), slice(50, 57)
    expected, _ = naive_steps(
        seen.values[..., rows, columns], seen.valid[:, rows, columns], days, list(range(0, 891, 16)), 16, "linear"
    )
    np.testing.assert_array_equal(tile.values[..., rows, columns], expected)


def test_agricultural_years_of_modis(data):
    folder = data / "modis_matogrosso"
    entries = [
        {"path": str(folder / f"{b}.tif"), "band": b, "dates": str(folder / "timeline")} for b in ("red", "nir", "mir")
    ]
    cube, _ = opened(*entries, temporal={"every": 16, "fill": "linear"}, indices=["ndvi", "nbr"])
    years = [cube.during(Period(datetime.date(y, 9, 14), datetime.date(y + 1, 9, 13))) for y in range(2007, 2013)]
    assert {y.shape for y in years} == {(23, 5, 27, 37)}
    assert all(len(y.observed) <= 26 for y in years)
    tile = years[0].read(whole(cube.geobox))
    assert tile.valid.mean() > 0.99
    stored, _ = opened({"path": str(folder / "ndvi.tif"), "band": "n", "dates": str(folder / "timeline")})
    product = stored.read(whole(cube.geobox)).values[0, 0]
    difference = np.abs(tile.values[0, 3] - product)[tile.valid[0]]
    assert np.median(difference) < 0.01


def test_a_file_per_date_of_modis(data):
    entry = {"path": str(data / "modis_sinop" / "*.jp2"), "date": "%Y-%m-%d", "scale": 0.0001}
    cube, notes = opened(entry, temporal={"every": 16, "fill": "linear"})
    assert cube.shape == (22, 1, 147, 255)
    assert notes[-1] == "12 images -> 22 steps of 16 days, filled linearly"
    plain = opened(entry)[0].read(whole(cube.geobox))
    tile = cube.read(whole(cube.geobox))
    np.testing.assert_array_equal(tile.values[0], plain.values[0])
    # 2013-09-30 lies half way from the first image to the second, of 2013-10-16.
    np.testing.assert_array_equal(tile.values[1], plain.values[0] * np.float32(0.5) + plain.values[1] * np.float32(0.5))

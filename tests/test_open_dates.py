"""Opening imagery: dates in the names of files, in lists and in the names of bands."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
from cubes import opened, refused
from rasters import noise, write

from pipeline.errors import ImageryError
from pipeline.grid import whole
from pipeline.imagery.dates import date_in

FIRST, SECOND = datetime.date(1999, 11, 18), datetime.date(2002, 4, 16)


# ---- dates


def test_files_of_one_band_on_dates(tmp_path):
    for day in ("19991118", "20020416"):
        for name in ("red", "nir"):
            write(tmp_path / f"S2_{day}_{name}.tif", noise(1, 20, 20), nodata=0)
    cube, _ = opened({"path": str(tmp_path / "*.tif"), "date": "%Y%m%d"})
    assert set(cube.bands) == {"red", "nir"}
    assert cube.dates == (FIRST, SECOND)
    assert cube.read(whole(cube.geobox)).valid.all()


def test_one_band_on_dates_keeps_its_name(tmp_path):
    for day in ("2002-04-16", "1999-11-18"):
        write(tmp_path / f"ndvi_{day}.tif", noise(1, 20, 20), names=("NDVI",), nodata=0)
    cube, _ = opened({"path": str(tmp_path / "*.tif"), "date": "%Y-%m-%d"})
    assert (cube.bands, cube.dates) == (("NDVI",), (FIRST, SECOND))
    assert cube.time.tolist() == [0, 880]


@pytest.mark.parametrize(
    ("name", "pattern", "date", "rest"),
    [
        ("LE70220491999322EDC01_stack", "%Y%j", FIRST, "LE7022049EDC01_stack"),
        ("S2A_MSIL2A_20020416T105031", "%Y%m%d", SECOND, "S2A_MSIL2A_T105031"),
        ("NDVI_1999-11-18", "%Y-%m-%d", FIRST, "NDVI_"),
        ("anything", "2002-04-16", SECOND, "anything"),
    ],
)
def test_dates_in_names(name, pattern, date, rest):
    assert date_in(name, pattern) == (date, rest)


@pytest.mark.parametrize(("name", "pattern"), [("S2_20211399", "%Y%m%d"), ("scene", "%Y"), ("x", "1999-13-01")])
def test_names_without_a_date(name, pattern):
    with pytest.raises(ImageryError, match=r"no date like|expected a date such as 2021-06-30"):
        date_in(name, pattern)


def test_files_of_the_same_bands_need_dates(tmp_path):
    for day in ("19991118", "20020416"):
        write(tmp_path / f"s_{day}.tif", noise(2, 20, 20), nodata=0)
    text = refused(tmp_path / "*.tif")
    assert "s_19991118.tif and s_20020416.tif hold the same band 'band_1' and have no date" in text
    assert 'date: "%Y%m%d"' in text
    dated = {"path": str(tmp_path / "s_1999*.tif"), "date": "%Y%m%d"}
    other = {"path": str(tmp_path / "s_2002*.tif"), "bands": ["x", "y"]}
    assert "some imagery has dates and some has none: s_20020416.tif" in refused(dated, other)


def test_a_band_that_misses_a_date_is_said(tmp_path):
    a = write(tmp_path / "red_19991118.tif", noise(1, 20, 20), names=("red",), nodata=0)
    write(tmp_path / "red_20020416.tif", noise(1, 20, 20), names=("red",), nodata=0)
    b = write(tmp_path / "nir_19991118.tif", noise(1, 20, 20), names=("nir",), nodata=0)
    cube, notes = opened(
        {"path": str(a).replace("19991118", "*"), "date": "%Y%m%d"}, {"path": str(b), "date": "%Y%m%d"}
    )
    assert "missing, so these dates are invalid everywhere: nir on 2002-04-16" in notes
    assert cube.read(whole(cube.geobox)).valid.any((1, 2)).tolist() == [True, False]


@pytest.mark.parametrize("given_as", ["list", "file", "bands"])
def test_bands_that_are_dates(tmp_path, given_as):
    days = ["20020416", "19991118", "20020416"]
    stored = noise(3, 20, 20)
    stored[0, :5] = 0
    path = write(tmp_path / "ndvi.tif", stored, nodata=0, names=[f"NDVI {d}" for d in days])
    (tmp_path / "days.txt").write_text("\n".join(days) + "\n")
    dates = {"list": days, "file": str(tmp_path / "days.txt"), "bands": "bands"}[given_as]
    cube, notes = opened({"path": str(path), "band": "ndvi", "dates": dates})
    assert (cube.bands, cube.dates) == (("ndvi",), (FIRST, SECOND))
    assert len(notes) == 1
    assert notes[0].startswith(
        "given more than once, 1 in all: ndvi on 2002-04-16; the first with a value counts at each pixel, in order of"
    )
    values = cube.read(whole(cube.geobox)).values[:, 0]
    np.testing.assert_array_equal(values[0], stored[1])
    np.testing.assert_array_equal(values[1], np.where(stored[0] == 0, stored[2], stored[0]))


def test_dates_that_do_not_fit(tmp_path):
    path = str(write(tmp_path / "ndvi.tif", noise(3, 9, 9)))
    assert "has 3 bands, and imagery.dates has 2 dates" in refused(
        {"path": path, "dates": ["2001-01-01", "2002-01-01"]}
    )
    assert "imagery.dates, entry 2: expected a date" in refused({"path": path, "dates": ["2001-01-01", "soon"]})
    assert "there is no file nowhere.txt" in refused({"path": path, "dates": "nowhere.txt"})
    assert "the name of band 1: expected a date" in refused({"path": path, "dates": "bands"})


# ---- real imagery


def test_two_dates_of_a_landsat_stack(data):
    cube, _ = opened({"path": str(data / "landsat_chiapas" / "LE7*_stack.gtif"), "date": "%Y%j"})
    assert (cube.shape, cube.dates) == ((2, 7, 250, 250), (FIRST, SECOND))


def test_series_whose_bands_are_dates(data):
    folder = data / "modis_matogrosso"
    entries = [
        {"path": str(folder / f"{b}.tif"), "band": b, "dates": str(folder / "timeline")} for b in ("ndvi", "evi")
    ]
    cube, _ = opened(*entries)
    assert cube.shape == (137, 2, 27, 37)
    assert cube.read(whole(cube.geobox)).valid.mean() > 0.99
    jp2, _ = opened({"path": str(data / "modis_sinop" / "*.jp2"), "date": "%Y-%m-%d", "scale": 0.0001})
    assert jp2.shape == (12, 1, 147, 255)
    assert jp2.read(whole(jp2.geobox)).values.max() < 1.1
    slovenia, notes = opened(
        {"path": str(data / "sentinel2_slovenia" / "ndvi_68dates.tif"), "band": "ndvi", "dates": "bands"}
    )
    assert slovenia.shape == (67, 1, 101, 100)
    assert len(notes) == 1
    assert notes[0].startswith(
        "given more than once, 1 in all: ndvi on 2015-12-08; the first with a value counts at each pixel, in order of"
    )

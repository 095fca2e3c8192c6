"""Opening imagery: bands, dates, masks, grids, and a sentence for everything that is wrong."""

from __future__ import annotations

import datetime
import warnings

import geopandas as gpd
import numpy as np
import pytest
from affine import Affine
from rasterio.enums import ColorInterp
from rasters import CRS, NORTH_UP, noise, write
from shapely.geometry import Point, box

from pipeline.errors import ImageryError, ReadError
from pipeline.grid import whole
from pipeline.imagery.bands import stem_parts
from pipeline.imagery.dates import date_in
from pipeline.imagery.open import open_cube
from pipeline.settings import GridSettings, ImagerySettings

FIRST, SECOND = datetime.date(1999, 11, 18), datetime.date(2002, 4, 16)


def opened(*entries, grid=None, area=None, keep=()):
    settings = [ImagerySettings.model_validate(e if isinstance(e, dict) else {"path": str(e)}) for e in entries]
    return open_cube(settings, None if grid is None else GridSettings(**grid), area, keep)


def refused(*entries, **options):
    with pytest.raises(ImageryError) as caught:
        opened(*entries, **options)
    return str(caught.value)


# ---- names of bands


def test_the_files_own_band_names_are_taken(tmp_path):
    path = write(tmp_path / "a.tif", noise(3, 70, 70), names=("red", "", "nir"), nodata=0)
    cube, notes = opened(path)
    assert cube.bands == ("red", "band_2", "nir")
    assert (cube.dates, notes) == ((None,), [])
    assert cube.time.tolist() == [0]


def test_bands_by_number_and_by_list(tmp_path):
    stored = noise(3, 70, 70)
    path = str(write(tmp_path / "a.tif", stored, names=("blue", "green", "red"), nodata=0))
    cube, _ = opened({"path": path, "bands": {"r": 3, "b": 1}})
    assert cube.bands == ("r", "b")
    np.testing.assert_array_equal(cube.read(whole(cube.geobox)).values[0], stored[[2, 0]])
    assert opened({"path": path, "bands": ["x", "y", "z"]})[0].bands == ("x", "y", "z")
    picked, _ = opened({"path": path, "bands": ["red", "blue"]})
    np.testing.assert_array_equal(picked.read(whole(picked.geobox)).values[0], stored[[2, 0]])


def test_bands_that_are_not_there(tmp_path):
    path = str(write(tmp_path / "a.tif", noise(3, 20, 20), names=("blue", "green", "red")))
    assert "imagery.bands.nir is 4, and the file has bands 1 to 3" in refused({"path": path, "bands": {"nir": 4}})
    text = refused({"path": path, "bands": ["blue", "gren"]})
    assert "no band 'gren'; did you mean 'green'?; it has: blue, green, red" in text
    assert "has 3 bands, and imagery.bands names 4" in refused({"path": path, "bands": list("abcd")})


def test_files_of_one_band_are_named_by_what_differs(tmp_path):
    stored = noise(3, 20, 20)
    for i, name in enumerate(("B1", "B2", "B8A")):
        write(tmp_path / f"LT5_1988_{name}.TIF", stored[i : i + 1], nodata=0)
    cube, notes = opened(tmp_path / "LT5*.TIF")
    assert cube.bands == ("B1", "B2", "B8A")
    np.testing.assert_array_equal(cube.read(whole(cube.geobox)).values[0], stored)
    assert "a file per band: B1, B2, B8A" in notes[0]


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
    ("stems", "names"),
    [
        (["LT5_B1", "LT5_B2"], ["B1", "B2"]),
        (["a-2020-red", "a-2021-nir"], ["2020_red", "2021_nir"]),
        (["red", "nir"], ["red", "nir"]),
        (["a_red", "nir"], ["a_red", "nir"]),
    ],
)
def test_parts_of_names_that_differ(stems, names):
    assert stem_parts(stems) == names


# ---- bands that are no measurements


def masked_scene(path, mask, **profile):
    stored = noise(4, 200, 200, "int16")
    stored[3] = mask
    return write(path, stored, nodata=-9999, **profile)


def test_a_classification_among_bands_is_left_out_and_said(tmp_path):
    mask = np.where(np.arange(200) < 150, 0, 2)[:, None].repeat(200, 1)
    mask[190:, 190:] = 4
    path = masked_scene(tmp_path / "a.tif", mask)
    cube, notes = opened(path)
    assert cube.bands == ("band_1", "band_2", "band_3")
    assert "band 4 (band_4) is left out: it holds only the values 0, 2, 4" in notes[0]
    assert "mask: {band: 4, exclude: [2, 4]}" in notes[0]
    as_mask, _ = opened({"path": str(path), "mask": {"band": 4, "exclude": [2, 4]}})
    assert as_mask.bands == cube.bands
    np.testing.assert_array_equal(as_mask.read(whole(cube.geobox)).valid[0], mask == 0)
    named, notes = opened({"path": str(path), "bands": {"a": 1, "mask": 4}})
    assert (named.bands, notes) == (("a", "mask"), [])
    kept, notes = opened(path, keep=("band_4",))
    assert (len(kept.bands), notes) == (4, [])


def test_a_constant_band_is_left_out(tmp_path):
    cube, notes = opened(masked_scene(tmp_path / "a.tif", 0))
    assert len(cube.bands) == 3
    assert "band 4 (band_4) is left out: it holds nothing but 0" in notes[0]


@pytest.mark.parametrize("name", ["Fmask", "SCL", "pixel_qa", "cloud mask", "QA60", "BQA"])
def test_a_band_that_is_called_a_mask_is_left_out(tmp_path, name):
    path = masked_scene(tmp_path / "a.tif", noise(1, 200, 200)[0], names=("red", "nir", "swir", name))
    cube, notes = opened(path)
    assert cube.bands == ("red", "nir", "swir")
    assert "its name says it is a mask" in notes[0]


@pytest.mark.parametrize("name", ["scaled", "quarry", "qarth", "Smash", "b4"])
def test_a_name_that_only_looks_alike_is_no_mask(tmp_path, name):
    path = masked_scene(tmp_path / "a.tif", noise(1, 200, 200)[0], names=("red", "nir", "swir", name))
    assert len(opened(path)[0].bands) == 4


def test_alpha_is_never_a_measurement(tmp_path):
    stored = noise(4, 80, 80, "uint8", most=250)
    stored[3] = 255
    stored[3, :10] = 0
    interp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    for name, bands in (("a", stored), ("b", np.where(np.arange(4)[:, None, None] < 3, 9, stored).astype("uint8"))):
        cube, notes = opened(write(tmp_path / f"{name}.tif", bands, photometric="RGB", colorinterp=interp))
        assert len(cube.bands) == 3
        assert any("it is the alpha band" in n for n in notes)
        assert cube.read(whole(cube.geobox)).valid[0].sum() == 70 * 80


def test_a_band_that_is_constant_on_one_date_only_is_kept(tmp_path):
    stored = noise(3, 100, 100)
    write(tmp_path / "s_20020416.tif", stored, nodata=0)
    stored[2] = 17
    write(tmp_path / "s_19991118.tif", stored, nodata=0)
    cube, notes = opened({"path": str(tmp_path / "*.tif"), "date": "%Y%m%d"})
    assert (cube.shape[:2], notes) == ((2, 3), [])


def test_classes_alone_are_mapped(tmp_path):
    """A raster with nothing but few values may be all there is."""
    stored = noise(2, 100, 100, "uint8", most=4)
    assert len(opened(write(tmp_path / "a.tif", stored, nodata=0))[0].bands) == 2


# ---- nodata, scale, masks


def test_missing_nodata_is_said_once(tmp_path):
    for i in range(5):
        write(tmp_path / f"B{i}.tif", noise(1, 20, 20))
    notes = [n for n in opened(tmp_path / "B*.tif")[1] if "nodata" in n]
    assert notes == [
        "B0.tif, B1.tif, B2.tif and 2 more: no nodata value is declared; every pixel counts as valid (set `nodata` if not so)"
    ]


def test_nodata_that_cannot_be_is_said(tmp_path):
    path = str(write(tmp_path / "a.tif", noise(1, 20, 20, "uint8", most=200)))
    cube, notes = opened({"path": path, "nodata": -9999})
    assert "a.tif (uint8, nodata -9999): no pixel can have that nodata value" in notes[0]
    assert cube.read(whole(cube.geobox)).valid.all()


def test_the_files_scale_is_taken_and_the_jobs_wins(tmp_path):
    stored = noise(2, 20, 20)
    path = str(write(tmp_path / "a.tif", stored, nodata=0, scales=(0.1, 0.5), offsets=(0, -1)))
    cube, _ = opened(path)
    expected = stored * np.float32([0.1, 0.5])[:, None, None] + np.float32([0, -1])[:, None, None]
    np.testing.assert_allclose(cube.read(whole(cube.geobox)).values[0], expected, rtol=1e-6)
    own, _ = opened({"path": path, "scale": 2, "offset": 1})
    np.testing.assert_allclose(own.read(whole(cube.geobox)).values[0], stored * 2.0 + 1)


def test_masks_are_matched_by_date(tmp_path):
    for day in ("19991118", "20020416"):
        write(tmp_path / f"s_{day}.tif", noise(2, 20, 20), nodata=0)
    for day, row in (("20020416", 3), ("19991118", 9), ("20100101", 0)):
        mask = np.zeros((1, 20, 20), "uint8")
        mask[0, row] = 8
        write(tmp_path / f"m_{day}.tif", mask)
    entry = {
        "path": str(tmp_path / "s_*.tif"),
        "date": "%Y%m%d",
        "mask": {"path": str(tmp_path / "m_*.tif"), "exclude": [8]},
    }
    cube, _ = opened(entry)
    invalid = ~cube.read(whole(cube.geobox)).valid
    assert [np.unique(np.nonzero(t)[0]).tolist() for t in invalid] == [[9], [3]]
    (tmp_path / "m_19991118.tif").unlink()
    (tmp_path / "m_20100102.tif").write_bytes((tmp_path / "m_20100101.tif").read_bytes())
    assert "imagery.mask.path: no mask for 1999-11-18" in refused(entry)
    wrong = entry | {"mask": {"path": str(tmp_path / "m_20020416.tif"), "band": 2, "exclude": [8]}}
    assert "imagery.mask.band is 2, and" in refused(wrong)


# ---- dates


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


# ---- grids


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


# ---- files


def test_files_that_are_not_there(tmp_path):
    write(tmp_path / "scene_1999.tif", noise(1, 9, 9))
    assert "there is no such file; did you mean 'scene_1999.tif'?" in refused(tmp_path / "scene_1998.tif")
    assert "matches no file; did you mean 'scene_1999.tif'?" in refused(tmp_path / "scene_200*.tif")
    assert "the folder" in refused(tmp_path / "nowhere" / "a.tif")
    assert "it is a folder: give its files" in refused(tmp_path)
    assert "the list is empty" in refused({"path": []})


def test_sidecars_are_no_rasters(tmp_path):
    write(tmp_path / "s.tif", noise(2, 70, 70), nodata=0)
    for name in ("s.tif.aux.xml", "s.tif.ovr", "s.tfw"):
        (tmp_path / name).write_text("")
    (tmp_path / "s.tif.aux.xml").write_text("<PAMDataset></PAMDataset>")
    (tmp_path / "s.tif.ovr").unlink()
    assert opened(tmp_path / "s*")[0].bands == ("band_1", "band_2")
    (tmp_path / "s.txt").write_text("no raster")
    assert "s.txt cannot be opened as a raster" in refused(tmp_path / "s*")


def test_a_vrt_must_say_so_in_its_name(tmp_path):
    write(tmp_path / "a.tif", noise(1, 9, 9), nodata=0)
    text = (
        '<VRTDataset rasterXSize="9" rasterYSize="9"><SRS>EPSG:32633</SRS>'
        '<GeoTransform>500000, 10, 0, 5000000, 0, -10</GeoTransform><VRTRasterBand dataType="UInt16" band="1">'
        '<SimpleSource><SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )
    (tmp_path / "honest.vrt").write_text(text)
    assert opened(tmp_path / "honest.vrt")[0].shape == (1, 1, 9, 9)
    (tmp_path / "disguised.tif").write_text(text)
    assert "it is a VRT, which names other files, under another name" in refused(tmp_path / "disguised.tif")


def test_a_damaged_file_is_named(tmp_path):
    path = write(tmp_path / "a.tif", noise(2, 256, 256), tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ReadError, match=r"a\.tif: reading rows .* failed .*damaged or truncated"):
        opened(path)


def test_pieces_too_large_to_decode_are_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tif", noise(1, 256, 256), tiled=True, blockxsize=256, blockysize=256)
    monkeypatch.setattr("pipeline.imagery.handles.memory_budget", lambda: 256 * 256 * 2 * 9)
    assert "a.tif is stored in pieces of 256 x 256 pixels" in refused(path)
    monkeypatch.setattr("pipeline.imagery.handles.memory_budget", lambda: 256 * 256 * 2 * 11)
    opened(path)


def test_complex_numbers_are_refused(tmp_path):
    path = write(tmp_path / "a.tif", np.ones((1, 9, 9), "complex64"))
    assert "band 1 holds complex numbers (complex64)" in refused(path)


# ---- real imagery


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("LE70220491999322EDC01_stack.gtif", "it holds nothing but 0"),
        ("LE70220492002106EDC00_stack.gtif", "it holds only the values 0, 2, 4"),
    ],
)
def test_the_mask_of_a_landsat_stack_is_no_band(data, name, why):
    path = data / "landsat_chiapas" / name
    cube, notes = opened(path)
    assert len(cube.bands) == 7
    assert not any(b.lower().endswith("8") for b in cube.bands)
    assert any("band 8" in n and why in n and "mask: {band: 8, exclude:" in n for n in notes)
    masked, _ = opened({"path": str(path), "mask": {"band": 8, "exclude": [2, 4]}})
    assert masked.read(whole(masked.geobox)).valid.mean() < 1 or "1999" in name


def test_two_dates_of_a_landsat_stack(data):
    cube, _ = opened({"path": str(data / "landsat_chiapas" / "LE7*_stack.gtif"), "date": "%Y%j"})
    assert (cube.shape, cube.dates) == ((2, 7, 250, 250), (FIRST, SECOND))


def test_landsat_as_a_file_per_band(data):
    cube, notes = opened(data / "landsat_para" / "LT5*_B?.TIF")
    assert cube.bands == ("B1", "B2", "B3", "B4", "B5", "B6", "B7")
    assert (len(notes), cube.read(whole(cube.geobox)).valid.mean() > 0.99) == (1, True)
    assert "MTL.txt cannot be opened as a raster" in refused(data / "landsat_para" / "LT5*")
    geographic, _ = opened(data / "landsat_para" / "sen2.tif")
    assert (geographic.shape, geographic.geobox.crs.epsg) == ((1, 12, 237, 247), 4326)


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

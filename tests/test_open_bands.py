"""Opening imagery: the names of bands, and bands that are no measurements."""

from __future__ import annotations

import numpy as np
import pytest
from cubes import opened, refused
from rasterio.enums import ColorInterp
from rasters import noise, write

from pipeline.grid import whole
from pipeline.imagery.bands import stem_parts

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


def test_landsat_as_a_file_per_band(data):
    cube, notes = opened(data / "landsat_para" / "LT5*_B?.TIF")
    assert cube.bands == ("B1", "B2", "B3", "B4", "B5", "B6", "B7")
    assert (len(notes), cube.read(whole(cube.geobox)).valid.mean() > 0.99) == (1, True)
    assert "MTL.txt cannot be opened as a raster" in refused(data / "landsat_para" / "LT5*")
    geographic, _ = opened(data / "landsat_para" / "sen2.tif")
    assert (geographic.shape, geographic.geobox.crs.epsg) == ((1, 12, 237, 247), 4326)

"""The cube in time: masks by date; scale, offset and nodata by date."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
from affine import Affine
from cubes import day, opened, refused, write_days
from pydantic import ValidationError
from rasters import NORTH_UP, noise, write

from pipeline.grid import Window, whole
from pipeline.imagery.dates import Period
from pipeline.settings import ImagerySettings, MaskSettings

# ---- masks


def dated_bands(path, stored, days, **profile):
    return str(write(path, stored, names=[f"{day(n):%Y-%m-%d}T10:00:00" for n in days], **profile))


@pytest.mark.parametrize("band", [None, "dates"])
def test_a_mask_whose_bands_are_the_dates(tmp_path, band):
    days = list(range(70))
    stored = noise(70, 12, 13)
    cloud = noise(70, 12, 13, "uint8", seed=3, most=4)
    path, mask = dated_bands(tmp_path / "ndvi.tif", stored, days), dated_bands(tmp_path / "cloud.tif", cloud, days)
    entry = {"path": path, "band": "ndvi", "dates": "bands", "mask": {"path": mask, "exclude": [1, 3], "band": band}}
    cube, _ = opened(entry)
    assert len(cube._plan) == 3
    assert [len(p.source.mask.bands) for p in cube._plan] == [32, 32, 6]
    tile = cube.read(whole(cube.geobox))
    np.testing.assert_array_equal(tile.valid, cloud == 2)
    np.testing.assert_array_equal(tile.values[:, 0], np.where(cloud == 2, stored, 0))
    one, _ = opened(entry | {"mask": {"path": mask, "exclude": [1], "band": 2}})
    assert [p.source.mask.bands for p in one._plan] == [(2,)] * 3
    np.testing.assert_array_equal(one.read(whole(cube.geobox)).valid, np.broadcast_to(cloud[1] != 1, stored.shape))
    single = str(write(tmp_path / "one.tif", cloud[:1]))
    alike, _ = opened(entry | {"mask": {"path": single, "exclude": [1]}})
    np.testing.assert_array_equal(alike.read(whole(cube.geobox)).valid, np.broadcast_to(cloud[0] != 1, stored.shape))


def test_a_mask_of_dates_on_another_grid_takes_the_nearest(tmp_path):
    days = [0, 1, 2]
    stored, cloud = noise(3, 12, 12), noise(3, 6, 6, "uint8", most=3)
    path = dated_bands(tmp_path / "ndvi.tif", stored, days)
    mask = dated_bands(tmp_path / "cloud.tif", cloud, days, transform=NORTH_UP @ Affine.scale(2))
    entry = {"path": path, "band": "ndvi", "dates": "bands", "mask": {"path": mask, "bits": [1]}}
    cube, _ = opened(entry)
    expected = np.kron(cloud & 2, np.ones((1, 2, 2))) == 0
    np.testing.assert_array_equal(cube.read(whole(cube.geobox)).valid, expected)
    np.testing.assert_array_equal(
        cube.select(["ndvi"]).read(Window(y=3, x=2, height=5, width=7)).valid, expected[:, 3:8, 2:9]
    )


def test_a_year_of_a_masked_series_reads_its_own_masks(tmp_path):
    days = list(range(0, 90, 10))
    stored, cloud = noise(9, 8, 8), noise(9, 8, 8, "uint8", seed=2, most=3)
    path, mask = dated_bands(tmp_path / "ndvi.tif", stored, days), dated_bands(tmp_path / "cloud.tif", cloud, days)
    cube, _ = opened({"path": path, "band": "ndvi", "dates": "bands", "mask": {"path": mask, "exclude": [2]}})
    part = cube.during(Period(day(25), day(65)))
    assert [p.source.indexes for p in part._plan] == [p.source.mask.bands for p in part._plan] == [(4, 5, 6, 7)]
    np.testing.assert_array_equal(part.read(whole(cube.geobox)).valid, cloud[3:7] != 2)


def test_masks_that_do_not_fit_the_dates(tmp_path):
    path = dated_bands(tmp_path / "ndvi.tif", noise(3, 9, 9), [0, 1, 2])
    entry = {"path": path, "band": "ndvi", "dates": "bands"}
    two = dated_bands(tmp_path / "two.tif", noise(2, 9, 9), [0, 1])
    turned = dated_bands(tmp_path / "turned.tif", noise(3, 9, 9), [0, 2, 1])
    floats = str(write(tmp_path / "floats.tif", noise(1, 9, 9, "float32")))

    def of(**mask):
        return refused(entry | {"mask": {"exclude": [1]} | mask})

    assert "dates needs as many bands as the imagery has;" in of(path=two, band="dates")
    assert "band 2 of" in (text := of(path=turned))
    assert "is of 2021-01-03, and that of" in text
    assert "holds float32, and only whole numbers have bits" in of(path=floats, bits=[1])
    assert "holds uint16, which has bits 0 to 15; found 16" in of(path=two, bits=[3, 16])
    assert "`dates` is for files whose bands are dates" in refused(
        {"path": path, "mask": {"path": two, "band": "dates", "exclude": [1]}}
    )


def test_a_mask_says_something():
    with pytest.raises(ValidationError, match=r"a mask needs `exclude` .*, `bits` .*, or both; found neither"):
        MaskSettings(path="a.tif")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "int32"])
def test_bits_of_a_mask(tmp_path, dtype):
    top = 8 * np.dtype(dtype).itemsize - 1
    values = np.random.default_rng(0).integers(0, 2 ** (top + 1), (1, 20, 20), np.uint64).astype(dtype)
    path, mask = write(tmp_path / "a.tif", noise(2, 20, 20), nodata=0), write(tmp_path / "qa.tif", values)
    for bits in ([3], [1, 4], [top]):
        cube, _ = opened(
            {"path": str(path), "mask": {"path": str(mask), "bits": bits, "exclude": [int(values[0, 5, 5])]}}
        )
        expected = np.ones((20, 20), bool)
        for y, x in np.ndindex(20, 20):
            text = np.binary_repr(int(values[0, y, x]), top + 1)[::-1]
            expected[y, x] = not any(text[b] == "1" for b in bits) and values[0, y, x] != values[0, 5, 5]
        np.testing.assert_array_equal(cube.read(whole(cube.geobox)).valid[0], expected)


def test_masks_named_by_another_pattern(tmp_path):
    days = [0, 40, 80]
    write_days(tmp_path, days)
    for i, number in enumerate(days):
        mask = np.zeros((1, 21, 17), "uint8")
        mask[0, i] = 8
        # Their names sort in another order than those of the images.
        write(tmp_path / "masks" / f"qa_{9 - i}_{day(number):%Y%j}.tif", mask)
    entry = {"path": str(tmp_path / "s_*.tif"), "date": "%Y%m%d"}
    mask = {"path": str(tmp_path / "masks" / "*.tif"), "exclude": [8], "date": "%Y%j"}
    plain = opened(entry)[0]
    valid = plain.read(whole(plain.geobox)).valid
    found = opened(entry | {"mask": mask})[0].read(whole(plain.geobox)).valid
    for i in range(3):
        valid[i, i] = False
    np.testing.assert_array_equal(found, valid)
    write(tmp_path / "masks" / f"qb_{day(40):%Y%j}.tif", np.zeros((1, 21, 17), "uint8"))
    assert "2 masks on 2021-02-10 (qa_8_2021041.tif, qb_2021041.tif) for 1 files" in refused(entry | {"mask": mask})


# ---- scale, offset, nodata by date


def test_scale_offset_and_nodata_by_date(tmp_path):
    for number in (0, 10, 20, 30):
        write(tmp_path / f"s_{day(number):%Y%m%d}.tif", np.uint16([[[1, 2, 3, 1000]]]), nodata=1)
    entry = {
        "path": str(tmp_path / "*.tif"),
        "date": "%Y%m%d",
        "scale": {day(5): 0.5, day(20): 2},
        "offset": {day(20): -0.25},
        "nodata": {day(30): 3},
    }
    tile = opened(entry)[0].read(Window(y=0, x=0, height=1, width=4))
    assert tile.values[:, 0, 0].tolist() == [
        [0, 2, 3, 1000],
        [0, 1, 1.5, 500],
        [0, 3.75, 5.75, 1999.75],
        [1.75, 3.75, 0, 1999.75],
    ]
    assert tile.valid[:, 0].tolist() == [[False, True, True, True]] * 3 + [[True, True, False, True]]
    assert "imagery.scale gives values by date, and the imagery has no dates" in refused(
        {"path": str(tmp_path / "s_20210101.tif"), "scale": {day(0): 1}}
    )


def test_dates_of_settings_survive_a_job_file():
    import yaml

    text = "{path: a.tif, offset: {2015-06-23: 0, 2022-01-25: -0.1}, nodata: 0}"
    entry = ImagerySettings.model_validate(yaml.safe_load(text))
    assert entry.offset == {datetime.date(2015, 6, 23): 0, datetime.date(2022, 1, 25): -0.1}
    assert ImagerySettings.model_validate(yaml.safe_load(yaml.safe_dump(entry.model_dump(mode="json")))) == entry


def test_scales_by_date_of_bands_that_are_dates(tmp_path):
    path = dated_bands(tmp_path / "a.tif", np.full((3, 4, 4), 8, "int16"), [0, 10, 20])
    cube, _ = opened({"path": path, "band": "a", "dates": "bands", "scale": {day(10): 0.5}, "offset": {day(20): 1}})
    assert cube.read(whole(cube.geobox)).values[:, 0, 0, 0].tolist() == [8, 4, 5]
    # One read, whatever the scale of each.
    assert len(cube._plan) == 1

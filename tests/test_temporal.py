"""The cube in time: steps against plain loops, periods, masks by date, scales by date, duplicates, indices."""

from __future__ import annotations

import datetime
import pickle
import subprocess
import sys
from dataclasses import replace

import dask
import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import naive_steps
from pydantic import ValidationError
from rasters import NORTH_UP, noise, write

from pipeline.errors import ImageryError
from pipeline.grid import Window, whole
from pipeline.imagery import handles
from pipeline.imagery.dataset import to_xarray
from pipeline.imagery.dates import Period
from pipeline.imagery.indices import _ROLES, find_indices
from pipeline.imagery.open import open_cube
from pipeline.imagery.steps import stepped
from pipeline.settings import ImagerySettings, MaskSettings, TemporalSettings

KINDS = [
    {"every": 5},
    {"every": 5, "fill": "linear"},
    {"every": 4, "fill": "nearest"},
    {"fill": "linear"},
    {"fill": "nearest"},
    {"every": 7, "composite": "median"},
    {"every": 6, "composite": "median", "fill": "linear"},
    {"every": 5, "composite": "best"},
    {"every": 4, "composite": "best", "fill": "nearest"},
]


def opened(*entries, temporal=None, **options):
    return open_cube(
        [ImagerySettings.model_validate(e if isinstance(e, dict) else {"path": str(e)}) for e in entries],
        None,
        None,
        temporal=None if temporal is None else TemporalSettings.model_validate(temporal),
        **options,
    )


def refused(*entries, **options):
    with pytest.raises(ImageryError) as caught:
        opened(*entries, **options)
    return str(caught.value)


def day(number):
    return datetime.date(2021, 1, 1) + datetime.timedelta(number)


def write_days(folder, days, bands=1, height=21, width=17, names=(), **profile):
    """Write a file per day; zero is no data, and is strewn over each. Return what is stored (T, C, h, w)."""
    stored = noise(bands * len(days), height, width, most=9).reshape(len(days), bands, height, width)
    stored = np.where(
        stored < 4, 0, stored * 100 + noise(len(days) * bands, height, width, seed=1).reshape(stored.shape)
    )
    stored = stored.astype("uint16")
    for number, values in zip(days, stored, strict=True):
        write(folder / f"s_{day(number):%Y%m%d}.tif", values, nodata=0, names=names, **profile)
    return stored


# ---- steps against plain loops


@settings(max_examples=150, deadline=None)
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_steps_equal_plain_loops(data, kind):
    days = sorted(data.draw(st.sets(st.integers(0, 40), min_size=1, max_size=12)))
    shape = (len(days), data.draw(st.integers(1, 3)), 3, 4)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    values = rng.normal(0, 1000, shape).astype(np.float32)
    valid = rng.random((shape[0], *shape[2:])) < data.draw(st.sampled_from([0.1, 0.5, 0.9, 1.0]))
    # What is invalid may hold anything.
    values[~np.broadcast_to(valid[:, None], shape)] = rng.choice([np.nan, np.inf, -np.inf, 7])
    every = kind.get("every")
    at = days if every is None else list(range(data.draw(st.integers(-5, 5)), 44, every))
    found, good = stepped(values, valid, days, at, **kind)
    expected, where = naive_steps(values, valid, days, at, **kind)
    np.testing.assert_array_equal(good, where)
    np.testing.assert_array_equal(found, expected)
    assert (found.dtype, good.dtype) == (np.float32, bool)
    for columns in (slice(0, 1), slice(1, 4)):
        part, seen = stepped(values[..., columns], valid[..., columns], days, at, **kind)
        assert part.tobytes() == np.ascontiguousarray(found[..., columns]).tobytes()
        np.testing.assert_array_equal(seen, good[..., columns])


def test_steps_stated_by_hand():
    values = np.float32([10, 0, 40, 50]).reshape(4, 1, 1, 1)
    valid = np.array([1, 0, 1, 1], bool).reshape(4, 1, 1)
    days, at = [0, 4, 12, 16], [-4, 0, 4, 8, 12, 16, 20]

    def row(**kind):
        found, good = stepped(values, valid, days, at, **kind)
        return [float(v) if g else None for v, g in zip(found[:, 0, 0, 0], good[:, 0, 0], strict=True)]

    assert row(fill="linear") == [10, 10, 20, 30, 40, 50, 50]
    assert row(fill="nearest", every=4) == [10, 10, 10, 40, 40, 50, 50]
    assert row(every=4) == [None, 10, None, None, 40, 50, None]
    # Half a step is near enough, from either side, and of two the earlier counts.
    assert row(every=8) == [10, 10, 10, 40, 40, 50, 50]
    assert row(every=4, composite="best", fill="linear")[1:6] == [10, 20, 30, 40, 50]
    assert row(every=8, composite="median") == [10, 10, None, 40, 45, 50, None]


def test_no_images_and_no_steps_are_no_fault():
    nothing = np.zeros((0, 2, 3, 3), np.float32)
    found, good = stepped(nothing, np.zeros((0, 3, 3), bool), [], [1, 2], fill="linear")
    assert (found.shape, good.any(), found.any()) == ((2, 2, 3, 3), False, False)
    assert stepped(nothing, np.zeros((0, 3, 3), bool), [], [], every=3, composite="best")[0].shape == (0, 2, 3, 3)


def test_memory_is_bounded():
    """Beside observations and steps, no more than one thing of their size."""
    import tracemalloc

    values = np.zeros((60, 4, 64, 64), np.float32)
    valid = np.random.default_rng(0).random((60, 64, 64)) < 0.6
    days, at = list(range(0, 600, 10)), list(range(0, 600, 12))
    out = np.empty((len(at), 4, 64, 64), np.float32)
    for kind in ({"fill": "linear"}, {"fill": "linear", "composite": "median"}, {"composite": "best"}):
        tracemalloc.start()
        stepped(values, valid, days, at, every=12, out=out, **kind)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1.6 * values.nbytes, (kind, peak / values.nbytes)


# ---- the cube


@pytest.mark.parametrize("kind", KINDS)
def test_a_cube_of_steps(tmp_path, kind):
    days = [0, 3, 4, 9, 17, 18, 30]
    stored = write_days(tmp_path, days, bands=2, tiled=True, blockxsize=16, blockysize=16)
    cube, notes = opened({"path": str(tmp_path / "*.tif"), "date": "%Y%m%d"}, temporal=kind)
    every = kind.get("every")
    at = days if every is None else list(range(0, 31, every))
    assert cube.dates == tuple(day(n) for n in at)
    assert cube.observed == tuple(day(n) for n in days)
    assert cube.shape == (len(at), 2, 21, 17)
    assert cube.time.tolist() == at
    assert any(n.startswith("7 images") for n in notes)
    window = Window(y=-3, x=-2, height=27, width=22)
    tile = cube.read(window)
    good = (stored != 0).all(1)
    values, valid = naive_steps(stored.astype(np.float32), good, days, at, **kind)
    np.testing.assert_array_equal(tile.valid[:, 3:24, 2:19], valid)
    np.testing.assert_array_equal(tile.values[:, :, 3:24, 2:19], values)
    assert tile.valid.sum() == valid.sum()
    for y in range(0, 21, 8):
        part = cube.read(Window(y=y, x=5, height=8, width=7))
        rows = slice(y + 3, y + 11)
        assert part.values.tobytes() == np.ascontiguousarray(tile.values[:, :, rows, 7:14]).tobytes()
    view = to_xarray(cube, chunk=9)
    assert view["values"].shape == cube.shape
    loaded = view.compute(scheduler="threads")
    np.testing.assert_array_equal(loaded["values"], values)
    np.testing.assert_array_equal(loaded["valid"], valid)
    again = pickle.loads(pickle.dumps(cube))
    assert again == cube
    assert dask.base.tokenize(again) == dask.base.tokenize(cube)


def test_all_that_makes_a_cube_is_in_its_token(tmp_path):
    write_days(tmp_path, [0, 5, 11], bands=2, names=("red", "nir"))
    entry = {"path": str(tmp_path / "*.tif"), "date": "%Y%m%d"}
    cubes = [opened(entry, temporal=t)[0] for t in (None, *KINDS)]
    cubes.append(opened(entry, indices=["ndvi"])[0])
    cubes.append(opened(entry, indices=["ndvi"], roles={"nir": "red"})[0])
    base = cubes[2]
    cubes.append(replace(base, series=replace(base.series, observed=base.observed[1:])))
    assert len({dask.base.tokenize(c) for c in cubes}) == len(cubes)


def test_what_was_decided_is_said(tmp_path):
    write_days(tmp_path, range(0, 12 * 32, 32))
    entry = {"path": str(tmp_path / "*.tif"), "date": "%Y%m%d"}

    def said(**temporal):
        return opened(entry, temporal=temporal)[1][-1]

    assert said(every=16, fill="linear") == "12 images -> 23 steps of 16 days, filled linearly"
    assert said(every=16) == "12 images -> 23 steps of 16 days, the nearest image within half a step"
    assert (
        said(every=64, composite="median", fill="nearest")
        == "12 images -> 6 steps of 64 days (median of the days of each), filled with the nearest"
    )
    assert said(fill="linear") == "12 images on their own dates, filled linearly"
    assert opened(entry, temporal={})[0].series is None


def test_steps_need_dates(tmp_path):
    path = write(tmp_path / "a.tif", noise(1, 5, 5), nodata=0)
    assert "temporal: the imagery has no dates; say how a date stands" in refused(path, temporal={"every": 8})


def test_a_composite_needs_its_days():
    with pytest.raises(ValidationError, match=r"composite: median needs `every`"):
        TemporalSettings(composite="median")


@pytest.mark.parametrize("kind", KINDS)
def test_a_period_has_steps_of_its_own(tmp_path, kind):
    days = list(range(0, 120, 3))
    stored = write_days(tmp_path, days, height=6, width=7)
    cube, _ = opened({"path": str(tmp_path / "*.tif"), "date": "%Y%m%d"}, temporal=kind)
    every = kind.get("every")
    lengths = set()
    for start in (20, 31, 47):
        period = Period(day(start), day(start + 29))
        part = cube.during(period)
        at = [n for n in days if start <= n < start + 30] if every is None else list(range(start, start + 30, every))
        assert part.dates == tuple(day(n) for n in at)
        assert part.time.tolist() == [n - start for n in at]
        lengths.add(len(at))
        seen = [n for n in days if day(n) in part.observed]
        assert len(seen) < len(days) / 2
        assert set(seen) >= {n for n in days if start <= n < start + 30}
        chosen = [days.index(n) for n in seen]
        good = (stored[chosen] != 0).all(1)
        values, valid = naive_steps(stored[chosen].astype(np.float32), good, seen, at, **kind)
        tile = part.read(whole(part.geobox))
        np.testing.assert_array_equal(tile.valid, valid)
        np.testing.assert_array_equal(tile.values, values)
        padded = cube.during(period, len(at) + 2)
        assert padded.dates[-2:] == (None, None)
        tile = padded.read(whole(part.geobox))
        np.testing.assert_array_equal(tile.values[:-2], values)
        assert not tile.valid[-2:].any()
        assert not tile.values[-2:].any()
    assert len(lengths) == 1 or every is None
    with pytest.raises(ImageryError, match=r"there is no image from 2023.*it reaches from 2021-01-01 to 2021-04-28"):
        cube.during(Period(datetime.date(2023, 1, 1), datetime.date(2023, 12, 31)))


def test_bands_are_selected_of_steps(tmp_path):
    write_days(tmp_path, [0, 5, 11], bands=2, names=("red", "nir"))
    cube, _ = opened({"path": str(tmp_path / "*.tif"), "date": "%Y%m%d"}, temporal={"every": 3, "fill": "nearest"})
    both = cube.read(whole(cube.geobox))
    turned = cube.select(["nir", "red"]).read(whole(cube.geobox))
    np.testing.assert_array_equal(turned.values, both.values[:, ::-1])


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


# ---- indices


def scene(path, names=("blue", "green", "red", "nir", "swir2"), **profile):
    stored = noise(len(names), 20, 20, most=10_000)
    return write(path, stored, names=names, nodata=0, **profile), stored.astype(np.float32)


def test_indices_are_those_of_the_books(tmp_path):
    path, stored = scene(tmp_path / "a.tif", scales=(0.0001,) * 5)
    names = ["NDVI", "ndwi", "evi", "nbr", "savi"]
    cube, _ = opened(path, indices=names)
    assert cube.bands == ("blue", "green", "red", "nir", "swir2", "ndvi", "ndwi", "evi", "nbr", "savi")
    blue, green, red, nir, swir = stored * np.float32(0.0001)
    tile = cube.read(whole(cube.geobox))
    found = dict(zip(cube.bands, tile.values[0], strict=True))
    valid = tile.valid[0]
    for name, expected in {
        "ndvi": (nir - red) / (nir + red),
        "ndwi": (green - nir) / (green + nir),
        "evi": 2.5 * (nir - red) / (nir + 6 * red - 7.5 * blue + 1),
        "nbr": (nir - swir) / (nir + swir),
        "savi": 1.5 * (nir - red) / (nir + red + 0.5),
    }.items():
        np.testing.assert_allclose(found[name][valid], expected[valid], rtol=2e-4, atol=1e-6)
    assert valid.mean() > 0.99


def test_every_index_of_the_library_is_as_the_library_computes_it():
    import spyndex

    rng = np.random.default_rng(0)
    roles = {role: f"x{i}" for i, role in enumerate(_ROLES)}
    planes = {band: rng.uniform(0.01, 0.9, (7, 9)).astype(np.float32) for band in roles.values()}
    params = {k: c.default for k, c in spyndex.constants.items()}
    params |= {sign: planes[roles[role]] for role, (sign, _) in _ROLES.items()}
    # SAVI takes a constant of its own; some need numbers that nobody knows.
    usual = [k for k, i in spyndex.indices.items() if k != "SAVI" and all(params.get(b) is not None for b in i.bands)]
    assert len(usual) > 200
    with np.errstate(all="ignore"):
        expected = spyndex.computeIndex(usual, params=params, returnOrigin=False)
    for key, value in zip(usual, expected, strict=True):
        (index,) = find_indices([key], tuple(roles.values()), roles)
        np.testing.assert_array_equal(index.of(planes), value, err_msg=key)
        assert index.of(planes).dtype == np.float32, key


def test_an_index_reads_bands_that_it_does_not_give(tmp_path):
    path, _ = scene(tmp_path / "a.tif")
    cube, _ = opened(path, indices=["ndvi", "nbr"])
    full = cube.read(whole(cube.geobox))
    part = cube.select(["nbr", "green"])
    assert part.shape == (1, 2, 20, 20)
    tile = part.read(whole(cube.geobox))
    np.testing.assert_array_equal(tile.values[0], full.values[0][[6, 1]])
    assert sorted(part._planes[2:]) == ["nir", "swir2"]
    assert cube.select(["red"])._planes == ("red",)
    with pytest.raises(ImageryError, match=r"no band 'ndvy'; did you mean 'ndvi'"):
        cube.select(["ndvy"])


def test_where_an_index_is_not_defined_the_date_is_invalid(tmp_path):
    stored = np.float32([[[1, 0, 2]], [[3, 0, -2]]])
    path = write(tmp_path / "a.tif", stored, names=("red", "nir"), nodata=-9)
    cube, _ = opened(path, indices=["ndvi"])
    tile = cube.read(whole(cube.geobox))
    assert tile.valid[0, 0].tolist() == [True, False, False]
    assert tile.values[0, :, 0].tolist() == [[1, 0, 0], [3, 0, 0], [0.5, 0, 0]]


def test_indices_come_before_steps(tmp_path):
    write_days(tmp_path, [0, 10], bands=2, names=("red", "nir"))
    entry = {"path": str(tmp_path / "*.tif"), "date": "%Y%m%d"}
    plain = opened(entry, indices=["ndvi"])[0]
    seen = plain.read(whole(plain.geobox))
    cube = opened(entry, indices=["ndvi"], temporal={"every": 5, "fill": "linear"})[0].select(["ndvi"])
    values, valid = naive_steps(seen.values[:, 2:], seen.valid, [0, 10], [0, 5, 10], every=5, fill="linear")
    tile = cube.read(whole(cube.geobox))
    np.testing.assert_array_equal(tile.valid, valid)
    np.testing.assert_array_equal(tile.values, values)


@pytest.mark.parametrize("names", [("B04", "B08"), ("red", "B8A"), ("RED", "Nir")])
def test_bands_are_known_by_the_names_people_use(tmp_path, names):
    path, stored = scene(tmp_path / "a.tif", names=names)
    cube, _ = opened(path, indices=["ndvi"])
    red, nir = stored
    np.testing.assert_allclose(cube.read(whole(cube.geobox)).values[0, 2], (nir - red) / (nir + red), rtol=1e-5)


def test_roles_are_stated_where_names_do_not_say_them(tmp_path):
    path, stored = scene(tmp_path / "a.tif", names=("B3", "B4"))
    text = refused(path, indices=["ndvi"])
    assert (
        "'ndvi' needs the role nir, and no band is called so; there are: B3, B4. Say which it is: roles: {nir:" in text
    )
    cube, _ = opened(path, indices=["ndvi"], roles={"red": "B3", "nir": "B4"})
    red, nir = stored
    np.testing.assert_allclose(cube.read(whole(cube.geobox)).values[0, 2], (nir - red) / (nir + red), rtol=1e-5)
    assert "roles: no role 'nirr'; did you mean 'nir'?; there are:" in refused(path, roles={"nirr": "B3"})
    assert "roles.nir: the imagery has no band 'B9'" in refused(path, roles={"nir": "B9"})


def test_indices_that_cannot_be(tmp_path):
    path, _ = scene(tmp_path / "a.tif", names=("red", "nir", "ndvi"))
    assert "no index 'ndvii' is known; did you mean 'ndvi'?" in refused(path, indices=["ndvii"])
    assert "has a band 'ndvi' already" in refused(path, indices=["ndvi"])
    assert "'kndvi' needs 'kNN', which is no band and has no usual value" in refused(path, indices=["kndvi"])


def test_the_catalogue_of_indices_is_loaded_where_it_is_used():
    code = "import sys, pipeline.imagery.open; sys.exit('spyndex' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_constants_want_reflectance(tmp_path):
    path, _ = scene(tmp_path / "a.tif")
    notes = opened(path, indices=["ndvi", "evi"])[1]
    assert len(notes) == 1
    assert notes[0].startswith("evi: the constants of the formula are for reflectance between 0 and 1")
    assert opened({"path": str(path), "scale": 0.0001}, indices=["ndvi", "evi"])[1] == []


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

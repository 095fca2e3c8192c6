"""The cube in time: steps against plain loops, and the steps of periods."""

from __future__ import annotations

import datetime
import pickle
from dataclasses import replace

import dask
import numpy as np
import pytest
from cubes import day, opened, refused, write_days
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles_imagery import naive_steps
from pydantic import ValidationError
from rasters import noise, write

from pipeline.errors import ImageryError
from pipeline.grid import Window, whole
from pipeline.imagery.dates import Period
from pipeline.imagery.steps import stepped
from pipeline.settings import TemporalSettings

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
    view = cube.to_xarray(chunk=9)
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

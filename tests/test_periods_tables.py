"""Labels that hold for periods: the periods of a table, and the images of each."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rasters import write
from years import DATES, YEARS

from pipeline.errors import ImageryError, LabelError
from pipeline.grid import Window
from pipeline.imagery.cube import Cube
from pipeline.imagery.open import open_cube
from pipeline.imagery.periods import cubes_of
from pipeline.samples.periods import days, periods_of
from pipeline.settings import ImagerySettings, TemporalSettings

# -- periods of a table


def table(**columns: Sequence[Any]) -> pd.DataFrame:
    found = pd.DataFrame(columns)
    return found.set_index(pd.RangeIndex(1, len(found) + 1))


def test_periods_are_distinct_and_sorted() -> None:
    rows = table(a=["2021-09-01", "2019-09-01", "2021-09-01", "2019-09-01"], b=["2022-08-31", "2020-08-31"] * 2)
    periods, number = periods_of(rows, "a", "b", "x.gpkg")
    assert periods == (YEARS[0], YEARS[2])
    assert (number.tolist(), number.dtype) == ([1, 0, 1, 0], np.int64)


@pytest.mark.parametrize(
    "values",
    [
        ["2021-06-30", "2020-01-01"],
        [datetime.date(2021, 6, 30), datetime.date(2020, 1, 1)],
        [pd.Timestamp("2021-06-30 17:00"), pd.Timestamp("2020-01-01")],
        ["2021-06-30T01:00:00Z", "2020-01-01T00:00:00Z"],
        ["20210630", "2020-01-01"],
        [20210630, 20200101],
        [20210630.0, 20200101.0],
    ],
)
def test_days_are_read_however_they_are_written(values: list[Any]) -> None:
    found = days(table(a=values), "a", "x.gpkg")
    assert found.dtype == np.dtype("datetime64[D]")
    assert found.astype(str).tolist() == ["2021-06-30", "2020-01-01"]


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (
            ["2020-01-01", "soon"],
            ["2020-12-31"] * 2,
            "row 2: expected a date such as 2021-06-30 in 'from', found 'soon'",
        ),
        (["2020-01-01"] * 2, ["2020-12-31", None], "row 2: expected a date such as 2021-06-30 in 'to', found nothing"),
        (["2020-01-01"] * 2, ["2020-12-31", "31.12.2020"], "row 2: .* found '31.12.2020'"),
        ([20200101, 20200101], [20201231, np.nan], "row 2: .* in 'to', found nothing"),
        (["2020-01-01", "2020-06"], ["2020-12-31"] * 2, "row 2: .* in 'from', found '2020-06'"),
        ([2019, 2020], [2020, 2021], "row 1: .* in 'from', found '2019'"),
        (
            ["2020-01-01", "2020-02-01"],
            ["2020-12-31", "2020-01-31"],
            "label 2 ends before it starts: 'from' is 2020-02-01, 'to' is 2020-01-31",
        ),
    ],
)
def test_what_is_no_period_is_refused_with_its_row(start: list[Any], end: list[Any], message: str) -> None:
    with pytest.raises(LabelError, match=f"x.gpkg: {message}"):
        periods_of(table(**{"from": start, "to": end}), "from", "to", "x.gpkg")


def test_a_missing_column_names_the_nearest() -> None:
    with pytest.raises(LabelError, match=r"x\.gpkg has no field 'form'; did you mean 'from'.* It has from, to"):
        periods_of(table(**{"from": ["2020-01-01"], "to": ["2020-01-01"]}), "form", "to", "x.gpkg")


# -- imagery of each period


def scenes(folder: Path, dates: Sequence[datetime.date], **options: Any) -> Cube:
    """Open a cube of one band and a file per date, which holds the number of the date plus one."""
    for i, date in enumerate(dates):
        write(folder / f"s_{date:%Y%m%d}.tif", np.full((1, 60, 60), i + 1, "uint16"))
    entry = ImagerySettings(path=str(folder / "s_*.tif"), date="%Y%m%d")
    return open_cube([entry], None, None, **options)[0]


def test_imagery_of_periods_is_of_one_length(tmp_path: Path) -> None:
    cube = scenes(tmp_path, [*DATES[:2], datetime.date(2020, 7, 1), *DATES[2:5]])
    (first, second, third), notes = cubes_of(cube, YEARS)
    assert first.dates == (*DATES[:2], datetime.date(2020, 7, 1))
    assert second.dates == (*DATES[2:4], None)
    assert third.dates == (DATES[4], None, None)
    for own, year in zip((first, second, third), YEARS, strict=True):
        expected = [(d - year.start).days if d else 0 for d in own.dates]
        assert own.time.tolist() == expected
        tile = own.read(Window(y=0, x=0, height=2, width=2))
        assert tile.valid[:, 0, 0].tolist() == [d is not None for d in own.dates]
        assert (tile.values[~tile.valid.any((1, 2))] == 0).all()
    assert third.read(Window(y=0, x=0, height=1, width=1)).values[0].item() == 6
    assert notes == [
        "labels hold for 3 periods (first: 2019-09-01 to 2020-08-31); a sample sees the images of its own, 3 dates",
        "periods have 1 to 3 dates; masked dates follow the shorter ones",
    ]


def test_without_periods_the_imagery_is_as_it_is(tmp_path: Path) -> None:
    cube = scenes(tmp_path, DATES[:2])
    assert cubes_of(cube, (None,)) == ((cube,), [])


def test_steps_of_periods_start_on_their_first_day(tmp_path: Path) -> None:
    cube = scenes(tmp_path, DATES, temporal=TemporalSettings(every=60, fill="linear"))
    (first, second, third), notes = cubes_of(cube, YEARS)
    for own, year in zip((first, second, third), YEARS, strict=True):
        assert own.time.tolist() == [0, 60, 120, 180, 240, 300, 360]
        assert own.dates[0] == year.start
        assert own.read(Window(y=0, x=0, height=1, width=1)).valid.all()
    assert len(notes) == 1


def test_a_period_without_an_image_is_refused(tmp_path: Path) -> None:
    cube = scenes(tmp_path, DATES[:2])
    with pytest.raises(ImageryError, match="no image from 2020-09-01 to 2021-08-31: it reaches from 2020-02-05 to"):
        cubes_of(cube, YEARS[:2])

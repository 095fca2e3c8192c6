"""Tables of labelled series: read as plain loops read them."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from series_tables import BANDS, END, HELD, START, made_up, opened, written

from pipeline.imagery.dates import Period
from pipeline.samples.series import SeriesTable, open_series
from pipeline.settings import ClassSettings


def by_hand(
    long: pd.DataFrame, samples: pd.DataFrame, periods: bool, bands: list[str] = BANDS
) -> list[list[tuple[int, list[float]]]]:
    """Return, per sample, day and values of each of its dates; a date counts where all bands have a value."""
    found = []
    for _, sample in samples.iterrows():
        dates: dict[datetime.date, list[float]] = {}
        for _, row in long.iterrows():
            date = row["date"] if isinstance(row["date"], datetime.date) else datetime.date.fromisoformat(row["date"])
            if row["sample_id"] == sample["sample_id"] and date not in dates:
                values = [float(row[b]) for b in bands]
                dates[date] = values if np.isfinite(values).all() else [np.nan] * len(bands)
        if periods:
            first, last = (datetime.date.fromisoformat(sample[name]) for name in ("from", "to"))
            dates = {d: v for d, v in dates.items() if first <= d <= last}
        else:
            first = min(dates)
        found.append([((d - first).days, dates[d]) for d in sorted(dates)])
    return found


def assert_equal(table: SeriesTable, expected: list[list[tuple[int, list[float]]]]) -> None:
    most = max(map(len, expected))
    assert table.values.shape == (len(expected), most, len(table.bands))
    assert (table.values.dtype, table.time.dtype) == (np.float32, np.float32)
    for i, dates in enumerate(expected):
        rest = most - len(dates)
        np.testing.assert_array_equal(table.time[i], [d for d, _ in dates] + [0] * rest)
        values = [v for _, v in dates] + [[np.nan] * len(table.bands)] * rest
        np.testing.assert_array_equal(table.values[i], np.float32(values))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("periods", [True, False])
@pytest.mark.parametrize("joined", [True, False])
def test_a_table_is_read_as_plain_loops_read_it(tmp_path: Path, suffix: str, periods: bool, joined: bool) -> None:
    long, samples = made_up()
    options = HELD if periods else {}
    if joined:
        # In one table what describes the sample stands in each of its rows; samples come in the order of their first row.
        long = long.merge(samples.drop(columns="score"), on="sample_id", how="left")
        samples = long.drop_duplicates("sample_id")
        table = opened(tmp_path, long, None, suffix=suffix, **options)
    else:
        table = opened(tmp_path, long, samples, suffix=suffix, **options)
    assert_equal(table, by_hand(long, samples, periods))
    assert table.bands == ("red", "nir")
    assert [c.name for c in table.legend.classes] == ["field", "forest"]
    assert [table.legend.classes[t].name for t in table.target] == samples["label"].tolist()
    assert table.frame["sample_id"].tolist() == samples["sample_id"].tolist()
    np.testing.assert_allclose(np.asarray(table.places), samples[["longitude", "latitude"]].to_numpy())
    if periods:
        assert table.periods == (Period(datetime.date(2019, 9, 1), datetime.date(2020, 8, 31)), Period(START, END))
        assert [str(table.periods[p].start) for p in table.period] == samples["from"].tolist()  # type: ignore[union-attr]
    else:
        assert (table.periods, table.period.tolist()) == ((None,), [0] * len(samples))
    assert table.report() == [
        {"label": "field", "class": "field", "samples": 6},
        {"label": "forest", "class": "forest", "samples": 6},
    ]
    assert table.notes == ["samples have 4 to 5 dates; the shorter ones are followed by masked dates"]


def test_of_two_rows_on_a_date_the_first_counts(tmp_path: Path) -> None:
    long, samples = made_up()
    again = long.iloc[[3, 17, 3]].assign(red=1.0, nir=2.0)
    long = pd.concat([long, again], ignore_index=True)
    table = opened(tmp_path, long, samples)
    assert_equal(table, by_hand(long, samples, periods=False))
    assert "3 rows stand for a sample and date that has one already: the first counts" in table.notes


def test_a_date_counts_where_all_bands_have_a_value(tmp_path: Path) -> None:
    long, samples = made_up()
    long.loc[[0, 7, 30], "red"] = np.nan
    long.loc[7, "nir"] = np.nan
    table = opened(tmp_path, long, samples)
    assert_equal(table, by_hand(long, samples, periods=False))
    assert int(np.isnan(table.values[..., 0]).sum()) == 6 + 3


def test_rows_outside_the_period_are_left_out(tmp_path: Path) -> None:
    long, samples = made_up(spread=450, before=60)
    table = opened(tmp_path, long, samples, **HELD)
    expected = by_hand(long, samples, periods=True)
    assert_equal(table, expected)
    out = len(long) - sum(map(len, expected))
    assert out > 4
    assert f"{out} rows lie outside the period of their sample and are left out" in table.notes
    assert table.time.min() >= 0
    assert table.time.max() <= 365


def test_bands_are_what_is_left_or_what_is_named(tmp_path: Path) -> None:
    long, samples = made_up()
    long = long.assign(note="cloudy", score=1, longitude=2.0, Label=3)
    # `score` and `longitude` stand in the table of samples; text is no band.
    assert opened(tmp_path, long, samples).bands == ("red", "nir", "Label")
    named = opened(tmp_path, long, samples, bands=["nir"])
    assert named.bands == ("nir",)
    assert_equal(named, by_hand(long, samples, periods=False, bands=["nir"]))


def test_columns_have_the_names_that_are_given(tmp_path: Path) -> None:
    long, samples = made_up()
    plain = opened(tmp_path, long, samples)
    table = opened(
        tmp_path,
        long.rename(columns={"sample_id": "number", "date": "Index"}),
        samples.rename(columns={"sample_id": "number", "label": "cover"}),
        id="number",
        date="Index",
        field="cover",
    )
    np.testing.assert_array_equal(table.values, plain.values)
    np.testing.assert_array_equal(table.target, plain.target)
    assert table.bands == plain.bands


def test_classes_are_those_of_the_job(tmp_path: Path) -> None:
    long, samples = made_up()
    samples.loc[[2, 4], "label"] = "lake"
    classes = [ClassSettings(name="Wood", labels=["forest"], code=7), ClassSettings(name="field")]
    table = open_series(written(tmp_path, long, samples), classes)
    kept = samples[samples["label"] != "lake"]
    assert_equal(table, by_hand(long, kept, periods=False))
    names = ["Wood" if v == "forest" else v for v in kept["label"]]
    assert [table.legend.classes[t].name for t in table.target] == names
    assert [c.code for c in table.legend.classes if c.name == "Wood"] == [7]
    assert "label values of no class are left out: 'lake' (2)" in table.notes[0]
    assert [r["class"] for r in table.report()] == ["field", "Wood", "none"]


def test_samples_without_a_series_are_left_out_and_it_is_said(tmp_path: Path) -> None:
    long, samples = made_up()
    table = opened(tmp_path, long[long["sample_id"] > 90], samples)
    assert len(table) == 10
    assert "2 of 12 samples have no series and are left out" in table.notes

"""Tables of labelled series that are wrong: refused, with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from series_tables import HELD, made_up, opened, written

from pipeline.errors import LabelError
from pipeline.samples.series import open_series
from pipeline.settings import LabelSettings


def refused(folder: Path, long: pd.DataFrame, samples: pd.DataFrame | None, **options: Any) -> str:
    with pytest.raises(LabelError) as caught:
        opened(folder, long, samples, **options)
    return str(caught.value)


def test_a_series_without_a_label_is_refused(tmp_path: Path) -> None:
    long, samples = made_up()
    message = refused(tmp_path, long, samples.iloc[2:])
    assert "2 samples have no label in" in message
    assert "(100, 99)" in message or "(99, 100)" in message
    samples.loc[4, "label"] = np.nan
    assert "1 samples have no label" in refused(tmp_path, long, samples)


def test_a_sample_that_stands_twice_is_refused(tmp_path: Path) -> None:
    long, samples = made_up()
    twice = pd.concat([samples, samples.iloc[[3]]])
    assert "samples.csv: sample 97 stands there twice" in refused(tmp_path, long, twice)
    both = long.merge(samples[["sample_id", "label"]], on="sample_id")
    both.loc[both["sample_id"].eq(95).idxmax(), "label"] = "other"
    assert "series.csv: sample 95 has two labels" in refused(tmp_path, both, None)


@pytest.mark.parametrize(
    ("which", "column", "options", "message"),
    [
        ("long", "sample_id", {}, "labels.id: .*series.csv has no column 'sample_id'; did you mean 'sample_ids'"),
        ("samples", "sample_id", {}, "labels.id: .*samples.csv has no column 'sample_id'; did you mean 'sample_ids'"),
        ("samples", "label", {}, "labels.field: .*samples.csv has no column 'label'; did you mean 'labels'"),
        ("long", "date", {}, "series.csv has no field 'date'; did you mean 'dates'"),
        ("long", "red", {"bands": ["red"]}, "labels.bands: .*series.csv has no column 'red'; did you mean 'reds'"),
        ("samples", "from", HELD, "samples.csv has no field 'from'; did you mean 'froms'"),
    ],
)
def test_a_missing_column_names_the_nearest(
    tmp_path: Path, which: str, column: str, options: dict[str, Any], message: str
) -> None:
    long, samples = made_up()
    tables = {"long": long, "samples": samples}
    tables[which] = tables[which].rename(columns={column: f"{column}s"})
    with pytest.raises(LabelError, match=message):
        opened(tmp_path, tables["long"], tables["samples"], **options)


def test_what_is_no_number_and_no_date_is_refused(tmp_path: Path) -> None:
    long, samples = made_up()
    text = long.assign(red=long["red"].astype(str).where(long.index != 8, "cloud"))
    message = refused(tmp_path, text, samples, bands=["red", "nir"])
    assert "series.csv: expected numbers in column 'red', found 'cloud' in row 9" in message
    assert "no column of numbers is left for a band" in refused(tmp_path, long[["sample_id", "date"]], samples)
    dates = long.assign(date=long["date"].astype(str).where(long.index != 8, "soon"))
    assert "row 9: expected a date such as 2021-06-30 in 'date', found 'soon'" in refused(tmp_path, dates, samples)


def test_a_sample_without_any_whole_date_is_refused(tmp_path: Path) -> None:
    long, samples = made_up()
    long.loc[long["sample_id"] == 97, "red"] = np.nan
    assert "1 samples have no date with a value of every band (first: 97)" in refused(tmp_path, long, samples)
    long, samples = made_up()
    samples["from"], samples["to"] = "2001-01-01", "2001-12-31"
    message = refused(tmp_path, long, samples, **HELD)
    assert "12 samples have no date with a value of every band within their period (first: 100)" in message


def test_one_class_is_refused(tmp_path: Path) -> None:
    long, samples = made_up()
    assert "needs two classes at least, found one: 'x'" in refused(tmp_path, long, samples.assign(label="x"))
    empty = refused(tmp_path, long.iloc[:0], samples)
    assert "needs two classes at least, found one: 'none'" in empty


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    long, samples = made_up()
    settings = written(tmp_path, long, samples)
    wrong = str(tmp_path / "serise.csv")
    with pytest.raises(LabelError, match=r"labels.series: there is no file .*; did you mean 'series.csv'"):
        open_series(settings.model_copy(update={"series": wrong}), None)
    with pytest.raises(LabelError, match=r"labels.samples: there is no file"):
        open_series(settings.model_copy(update={"samples": str(tmp_path / "none" / "a.csv")}), None)
    (tmp_path / "a.xlsx").write_text("x")
    with pytest.raises(LabelError, match=r"labels.series: expected a table as .parquet or .csv, found .*a.xlsx"):
        open_series(settings.model_copy(update={"series": str(tmp_path / "a.xlsx")}), None)
    for name, text in (("a.parquet", "no parquet"), ("a.csv", "")):
        (tmp_path / name).write_text(text)
        with pytest.raises(LabelError, match=f"labels.series: .*{name} cannot be read as a table"):
            open_series(settings.model_copy(update={"series": str(tmp_path / name)}), None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "give `path` .* `series` .* or `chips` .*, found none"),
        ({"path": "a.gpkg", "series": "b.csv"}, "found path and series"),
        ({"series": "b.csv", "from": "from"}, "`from` and `to` go together"),
        ({"path": "a.gpkg", "samples": "b.csv"}, "`samples` and `bands` belong to a table of series"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelSettings.model_validate(values)

"""Tables of labelled series: read as plain loops read them, brought to steps, divided, stored, and refused with reasons."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import ImageryError, LabelError
from pipeline.imagery.dates import Period
from pipeline.imagery.steps import stepped
from pipeline.samples.chips import ALL
from pipeline.samples.folds import TEST, TRAIN, VAL, Folds
from pipeline.samples.pixels import places_of
from pipeline.samples.regular import regular
from pipeline.samples.series import SeriesTable, open_series
from pipeline.samples.standalone import divide_samples, store_samples
from pipeline.settings import ClassSettings, FoldSettings, LabelSettings, TemporalSettings

START = datetime.date(2020, 9, 1)
END = datetime.date(2021, 8, 31)
BANDS = ["red", "nir"]
HELD = {"from": "from", "to": "to"}


def day(number: int) -> datetime.date:
    return START + datetime.timedelta(number)


def made_up(
    n: int = 12, dates: int = 5, seed: int = 0, spread: int = 300, before: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a table of series, its rows in any order, and a table of samples in two periods."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        start = START if i % 3 else datetime.date(2019, 9, 1)
        for number in rng.choice(np.arange(-before, spread), dates - i % 2, replace=False).tolist():
            red, nir = rng.uniform(100, 4000, 2).round().tolist()
            rows.append({"sample_id": 100 - i, "date": start + datetime.timedelta(number), "red": red, "nir": nir})
    samples = pd.DataFrame(
        {
            "sample_id": [100 - i for i in range(n)],
            "longitude": rng.uniform(-55, -54, n),
            "latitude": rng.uniform(-12, -11, n),
            "label": ["forest" if i % 2 else "field" for i in range(n)],
            "from": [str(START) if i % 3 else "2019-09-01" for i in range(n)],
            "to": [str(END) if i % 3 else "2020-08-31" for i in range(n)],
            "score": rng.uniform(0, 1, n),
        }
    )
    order = rng.permutation(len(rows))
    return pd.DataFrame(rows).iloc[order].reset_index(drop=True), samples


def written(
    folder: Path, long: pd.DataFrame, samples: pd.DataFrame | None, suffix: str = ".csv", **options: Any
) -> LabelSettings:
    """Write tables; return the settings that name them."""
    given: dict[str, Any] = {}
    for name, table in (("series", long), ("samples", samples)):
        if table is not None:
            path = folder / f"{name}{suffix}"
            if suffix == ".parquet":
                table.to_parquet(path, index=False)
            else:
                table.to_csv(path, index=False)
            given[name] = str(path)
    return LabelSettings.model_validate(given | options)


def opened(folder: Path, long: pd.DataFrame, samples: pd.DataFrame | None, **options: Any) -> SeriesTable:
    return open_series(written(folder, long, samples, **options), None)


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


# -- reading


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


# -- what is refused


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


# -- steps in time, and indices


def stepped_by_hand(
    long: pd.DataFrame, samples: pd.DataFrame, temporal: TemporalSettings, periods: bool
) -> list[tuple[list[int], Any]]:
    """Bring each sample to steps by itself, as a pixel; with periods, by the dates that serve imagery too."""
    every = temporal.every
    found = []
    for _, sample in samples.iterrows():
        rows = long[long["sample_id"] == sample["sample_id"]].sort_values("date")
        first = datetime.date.fromisoformat(sample["from"]) if periods else min(rows["date"])
        days = np.array([(d - first).days for d in rows["date"]])
        values = rows[BANDS].to_numpy(np.float32)
        span = (datetime.date.fromisoformat(sample["to"]) - first).days if periods else int(days[-1])
        at = days.tolist() if every is None else list(range(0, span + 1, every))
        if periods:
            assert every is not None
            last = at[-1] + every + (every - 1 if temporal.composite != "none" else 0)
            inside = (days >= -every) & (days <= last)
            days, values = days[inside], values[inside]
        valid = np.isfinite(values).all(1)
        made, good = stepped(
            np.where(valid[:, None], values, 0)[..., None, None], valid[:, None, None], days.tolist(), at,
            every=every, fill=temporal.fill, composite=temporal.composite,
        )  # fmt: skip
        found.append((at, np.where(good[:, None], made, np.nan)[..., 0, 0]))
    return found


@pytest.mark.parametrize("periods", [True, False])
@pytest.mark.parametrize(
    "kind",
    [
        {"every": 30, "fill": "linear"},
        {"every": 30, "fill": "nearest"},
        {"every": 45},
        {"every": 60, "composite": "median"},
        {"every": 60, "composite": "best", "fill": "linear"},
        {"fill": "linear"},
        {"fill": "nearest"},
    ],
)
def test_series_are_brought_to_steps_as_pixels_are(tmp_path: Path, kind: dict[str, Any], periods: bool) -> None:
    temporal = TemporalSettings.model_validate(kind)
    if periods and temporal.every is None:
        pytest.skip("without regular steps a period has dates of its own alone")
    long, samples = made_up(dates=9, spread=480 if periods else 300, before=120 if periods else 0, seed=2)
    long.loc[::7, "red"] = np.nan
    # Two samples on the same days are brought to steps together.
    twin = long[long["sample_id"] == 97].assign(sample_id=94, red=5.0)
    long = pd.concat([long[long["sample_id"] != 94], twin], ignore_index=True)
    table = open_series(written(tmp_path, long, samples, **(HELD if periods else {})), None, temporal)
    expected = stepped_by_hand(long, samples, temporal, periods)
    most = max(len(at) for at, _ in expected)
    assert table.values.shape == (12, most, 2)
    for i, (at, values) in enumerate(expected):
        assert table.time[i, : len(at)].tolist() == at
        np.testing.assert_array_equal(table.values[i, : len(at)], values)
        assert np.isnan(table.values[i, len(at) :]).all()
    assert np.isfinite(table.values).any(2).mean() > 0.3


def test_without_steps_series_are_as_they_are() -> None:
    values, time = np.ones((2, 3, 1), np.float32), np.zeros((2, 3), np.float32)
    found = regular(values, time, np.array([3, 3]), np.array([0, 0]), TemporalSettings())
    assert found[0] is values
    assert found[1] is time


def test_indices_are_added_to_the_bands(tmp_path: Path) -> None:
    long, samples = made_up()
    long.loc[5, BANDS] = 0.0
    table = open_series(written(tmp_path, long, samples), None, None, ["ndvi"])
    assert table.bands == ("red", "nir", "ndvi")
    red, nir, found = np.moveaxis(table.values, -1, 0)
    np.testing.assert_allclose(found, (nir - red) / (nir + red), rtol=1e-5)
    # Where the index is not defined the date does not count.
    plain = opened(tmp_path, long, samples)
    undefined = (plain.values == 0).all(2)
    assert undefined.sum() == 1
    assert np.isnan(table.values[undefined]).all()
    with pytest.raises(ImageryError, match=r"ndwi|green"):
        open_series(written(tmp_path, long, samples), None, None, ["ndwi"])
    by_role = open_series(
        written(tmp_path, long.rename(columns={"nir": "b8"}), samples), None, None, ["ndvi"], {"nir": "b8"}
    )
    np.testing.assert_array_equal(by_role.values, table.values)


# -- folds


def scattered(folder: Path, n: int = 120, **columns: Any) -> SeriesTable:
    long, samples = made_up(n, dates=2)
    return opened(folder, long, samples.assign(**columns), **({"fold": "part"} if "part" in columns else {}))


def divided(table: SeriesTable, fold: str | None = None, **options: Any) -> Folds:
    settings = LabelSettings.model_validate({"series": "x.csv", "fold": fold})
    return divide_samples(table, FoldSettings.model_validate(options), settings)


def test_samples_with_coordinates_are_divided_by_blocks_of_land(tmp_path: Path) -> None:
    table = scattered(tmp_path)
    folds = divided(table, size=0.1)
    assert (folds.method, folds.names, folds.buffer) == ("blocks", ("train", "val", "test"), 0)
    assert folds.of_feature is not None
    assert table.places is not None
    of_block: dict[tuple[int, int], set[int]] = {}
    for (x, y), fold in zip(table.places, folds.of_feature, strict=True):
        of_block.setdefault((int(np.floor(x / 0.1)), int(np.floor(y / 0.1))), set()).add(int(fold))
    assert len(of_block) > 50
    assert all(len(found) == 1 for found in of_block.values())
    for k in range(2):
        shares = np.bincount(folds.of_feature[table.target == k], minlength=3) / 60
        assert np.abs(shares - (0.6, 0.2, 0.2)).max() < 0.1
    assert folds.notes == ["folds: blocks of land, so that no sample is tested beside one that trains"]
    chosen = divided(table)
    assert "set folds.size to change it" in chosen.notes[1]
    np.testing.assert_array_equal(divided(table, size=0.1).of_feature, folds.of_feature)


def test_samples_without_coordinates_are_divided_at_random_and_it_is_said(tmp_path: Path) -> None:
    long, samples = made_up(60, dates=2)
    table = opened(tmp_path, long, samples.drop(columns=["longitude", "latitude"]))
    assert table.places is None
    folds = divided(table)
    assert folds.method == "features"
    assert "figures are optimistic" in folds.notes[0]
    assert folds.of_feature is not None
    assert np.bincount(folds.of_feature).tolist() == [36, 12, 12]
    with pytest.raises(
        LabelError, match="blocks of land need the samples' coordinates: columns longitude and latitude"
    ):
        divided(table, method="blocks")


def test_samples_of_one_place_stay_together(tmp_path: Path) -> None:
    long, samples = made_up(60, dates=2)
    samples.loc[30:, ["longitude", "latitude"]] = samples.loc[:29, ["longitude", "latitude"]].to_numpy()
    folds = divided(opened(tmp_path, long, samples), method="features")
    assert folds.of_feature is not None
    np.testing.assert_array_equal(folds.of_feature[:30], folds.of_feature[30:])
    assert set(folds.of_feature.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("value", [np.nan, "unknown"])
def test_samples_of_which_some_have_no_place_are_refused(tmp_path: Path, value: Any) -> None:
    long, samples = made_up(60, dates=2)
    samples["latitude"] = samples["latitude"].astype(object)
    samples.loc[[3, 9], "latitude"] = value
    table = opened(tmp_path, long, samples)
    with pytest.raises(LabelError, match=r"2 samples have none \(first: 97\); add them, or use folds.method: features"):
        divided(table)
    assert divided(table, method="features").of_feature is not None


def test_samples_on_a_line_are_divided_along_it(tmp_path: Path) -> None:
    table = scattered(tmp_path, latitude=-11.5)
    folds = divided(table)
    assert folds.of_feature is not None
    along = np.argsort(np.asarray(table.places)[:, 0])
    changes = int((np.diff(folds.of_feature[along].astype(int)) != 0).sum())
    assert changes < 64


def test_a_column_divides(tmp_path: Path) -> None:
    part = ["train", "train", "val", "val", "test", "test"] * 20
    table = scattered(tmp_path, part=part)
    folds = divided(table, fold="part")
    assert folds.method == "field"
    assert folds.of_feature is not None
    assert [folds.names[f] for f in folds.of_feature] == part
    with pytest.raises(LabelError, match=r"folds.field: the labels have no field 'parts'; did you mean 'part'"):
        divided(table, fold="parts")
    numbers = scattered(tmp_path, part=[i // 2 % 4 for i in range(120)])
    assert divided(numbers, method="field", field="part").k == 4


# -- the store


@pytest.mark.parametrize("k", [0, 3, 10])
def test_what_is_stored_is_what_was_read(tmp_path: Path, k: int) -> None:
    long, samples = made_up(80, dates=4)
    table = opened(tmp_path, long, samples, **HELD)
    folds = divided(table, size=0.2, k=k)
    store = store_samples(table, folds, radius=0, path=tmp_path / "chips.zarr", key="k")
    assert (len(store), store.size, store.rounds, store.buffer) == (80, 1, k or 1, 0)
    values, truth = store.read(np.arange(80))
    np.testing.assert_array_equal(values[..., 0, 0], table.values)
    np.testing.assert_array_equal(store.time, table.time)
    np.testing.assert_array_equal(store.period, table.period)
    assert store.attrs["periods"] == [["2019-09-01", "2020-08-31"], [str(START), str(END)]]
    assert store.attrs["bands"] == BANDS
    assert folds.of_feature is not None
    for r, round_ in enumerate(folds.rounds):
        for role in (TRAIN, VAL, TEST):
            has = np.array([round_.roles[f, t] == role for f, t in zip(folds.of_feature, table.target, strict=True)])
            np.testing.assert_array_equal(store.indices(r, role), np.flatnonzero(has))
            assert store.counts(r, role).tolist() == [int((has & (table.target == c)).sum()) for c in range(2)]
            places = places_of(store, r, role)
            np.testing.assert_array_equal(places.target, table.target[has])
            np.testing.assert_array_equal(places.rows, np.flatnonzero(has))
            np.testing.assert_array_equal(places.period, table.period[has])
    np.testing.assert_array_equal(store.targets_of(truth, ALL, TRAIN)[:, 0, 0], table.target)
    assert [row["class"] for row in store.table()] == ["field", "forest"]
    assert sum(row["pixels"] for row in store.table()) == 80


def lonely(folder: Path) -> SeriesTable:
    """A table whose class `lake` lies in one block of land."""
    long, samples = made_up(60, dates=2)
    samples.loc[:4, "label"] = "lake"
    samples.loc[:4, ["longitude", "latitude"]] = [-54.95, -11.95]
    return opened(folder, long, samples)


def test_a_class_in_one_block_alone_is_measured_and_it_is_said(tmp_path: Path) -> None:
    table = lonely(tmp_path)
    with pytest.raises(LabelError, match=r"'lake' has labels in 1 of the blocks of land.*with folds.k: 5 it goes on"):
        divided(table, size=0.1)
    folds = divided(table, size=0.1, k=5)
    assert any("class 'lake' lies in one fold alone" in note for note in folds.notes)
    store = store_samples(table, folds, radius=0, path=tmp_path / "chips.zarr", key="k")
    lake = [c.name for c in table.legend.classes].index("lake")
    assert [int(store.counts(r, TEST)[lake]) for r in range(5)].count(5) == 1
    for r in range(5):
        assert (store.counts(r, TRAIN)[lake] == 0) == (store.counts(r, TEST)[lake] == 5)
        assert store.counts(r, VAL).any()


def test_a_fold_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    table = scattered(tmp_path, part=["train", "train", "val", "test"] * 30)
    folds = divided(table, fold="part")
    assert folds.of_feature is not None
    folds.of_feature[folds.of_feature == 1] = 0
    with pytest.raises(LabelError, match="the validation fold is empty"):
        store_samples(table, folds, radius=0, path=tmp_path / "chips.zarr", key="k")
    assert not (tmp_path / "chips.zarr").exists()
    assert not (tmp_path / ".chips.zarr.tmp").exists()

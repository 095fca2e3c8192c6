"""Tables of labelled series: divided into folds, and stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from series_tables import BANDS, END, HELD, START, made_up, opened

from pipeline.errors import LabelError
from pipeline.samples.chips import ALL
from pipeline.samples.folds import TEST, TRAIN, VAL, Folds
from pipeline.samples.pixels import places_of
from pipeline.samples.series import SeriesTable
from pipeline.samples.standalone import divide_samples, store_samples
from pipeline.settings import FoldSettings, LabelSettings

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

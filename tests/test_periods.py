"""Labels that hold for periods: read per period, divided by place, cut with the images of their own time."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from oracles import buffered_by_hand
from places import MadeUpCube, frame, grid, opened, square
from rasters import write
from shapely.geometry import Point

from pipeline.cluster import dask_client
from pipeline.errors import ImageryError, LabelError
from pipeline.grid import Window, whole
from pipeline.imagery.cube import Cube, Tile
from pipeline.imagery.dates import Period
from pipeline.imagery.open import open_cube
from pipeline.imagery.periods import cubes_of
from pipeline.samples import cutting
from pipeline.samples.chips import ALL, ChipStore
from pipeline.samples.cutting import cut_chips
from pipeline.samples.features import open_labels
from pipeline.samples.folds import TEST, TRAIN, VAL, Folds, make_folds
from pipeline.samples.labels import IGNORE
from pipeline.samples.periods import days, periods_of
from pipeline.samples.pixels import places_of
from pipeline.samples.shapes import VectorLabels
from pipeline.samples.truth import roles_of
from pipeline.samples.units import together
from pipeline.settings import ComputeSettings, FoldSettings, ImagerySettings, LabelSettings, TemporalSettings

if TYPE_CHECKING:
    from distributed import Client

YEARS = tuple(Period(datetime.date(y, 9, 1), datetime.date(y + 1, 8, 31)) for y in (2019, 2020, 2021))
DATES = tuple(datetime.date(y, m, 5) for y in (2020, 2021, 2022) for m in (2, 5))
HELD = {"from": "from", "to": "to"}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with dask_client(ComputeSettings(threads=1)) as found:
        yield found


def dated(shapes: Sequence[Any], values: Sequence[str], years: Sequence[int], **columns: Any) -> Any:
    """Return features that hold in a year, by its number."""
    ends = {"from": [str(YEARS[i].start) for i in years], "to": [str(YEARS[i].end) for i in years]}
    return frame(shapes, values, **ends, **columns)


def lattice(path: Path, years: int = 2, side: int = 4, turned: int = 1) -> VectorLabels:
    """Open 36 squares of three classes in each year; each year every class is another, or with 0 the same."""
    places = [square(10 * r + 3, 10 * c + 3, side) for r in range(6) for c in range(6)]
    classes = np.random.default_rng(0).permutation(36)
    values = [f"class {(i + turned * y) % 3}" for y in range(years) for i in classes]
    of = [y for y in range(years) for _ in places]
    return opened(path, dated(places * years, values, of), dates=DATES, **HELD)


def divided(labels: VectorLabels, halo: int = 0, **options: Any) -> Folds:
    return make_folds(labels, FoldSettings.model_validate(options), halo)


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


# -- labels of each period


def test_a_pixel_has_the_label_of_each_year(tmp_path: Path) -> None:
    shapes = [square(3, 3, 8), square(3, 3, 8), square(3, 7, 8), square(40, 40)]
    labels = opened(tmp_path / "a.gpkg", dated(shapes, list("abca"), [0, 1, 1, 2]), dates=DATES, **HELD)
    assert labels.periods == YEARS
    assert labels.feature_period.tolist() == [0, 1, 1, 2]
    codes = [labels.read(whole(labels.geobox), p).codes for p in range(3)]
    assert [c[5, 5] for c in codes] == [0, 1, IGNORE]
    assert [c[5, 8] for c in codes] == [0, 2, IGNORE]
    assert [int((c >= 0).sum()) for c in codes] == [64, 96, 16]
    assert [[(w.y, w.x) for w in labels.windows(20, p)] for p in range(3)] == [
        [(0, 0)],
        [(0, 0)],
        [(20, 20), (20, 40), (40, 20), (40, 40)],
    ]
    assert [n for n in labels.notes if "overlap" in n] == [
        "1 pairs of features of different classes overlap (first: 2 and 3, b and c); the later in the file counts"
    ]


def test_labels_of_different_years_do_not_overlap(tmp_path: Path) -> None:
    place = Point(500_035, 4_999_965)
    shapes = [square(20, 20), square(20, 20), place, place]
    labels = opened(tmp_path / "a.gpkg", dated(shapes, list("abab"), [0, 1, 0, 1]), dates=DATES, **HELD)
    assert labels.notes == []
    again = opened(tmp_path / "b.gpkg", dated(shapes, list("abab"), [0, 1, 0, 0]), dates=DATES, **HELD)
    assert again.notes == ["1 pixels hold points of different classes; the later in the file counts"]


def test_labels_of_periods_without_images_are_left_out_and_it_is_said(tmp_path: Path) -> None:
    features = dated([square(3, 3), square(20, 3), square(40, 3)], list("aba"), [0, 0, 1])
    labels = opened(tmp_path / "a.gpkg", features, dates=DATES[:2], **HELD)
    assert labels.periods == YEARS[:1]
    assert "1 of 3 labels hold for periods without any image and are left out" in labels.notes
    with pytest.raises(
        LabelError, match=r"no label holds while there are images\n.*2019-09-01 to 2021-08-31\n.*2010-01-01"
    ):
        opened(tmp_path / "b.gpkg", features, dates=[datetime.date(2010, 1, 1)], **HELD)
    with pytest.raises(LabelError, match=r"labels hold for periods.*but the imagery has no dates; say how they stand"):
        opened(tmp_path / "c.gpkg", features, dates=[None], **HELD)


def test_a_raster_holds_at_any_time(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.ones((1, 60, 60), "uint8"))
    with pytest.raises(LabelError, match=r"labels\.from: .*a\.tif is a raster, which has no fields"):
        open_labels(LabelSettings.model_validate({"path": str(path)} | HELD), None, grid(), DATES)


def test_a_wrong_date_in_a_file_names_its_row(tmp_path: Path) -> None:
    features = dated([square(3, 3), square(20, 3), square(40, 3)], list("aba"), [0, 0, 1])
    features.loc[2, "to"] = "never"
    with pytest.raises(LabelError, match=r"a\.gpkg: row 3: expected a date such as 2021-06-30 in 'to', found 'never'"):
        opened(tmp_path / "a.gpkg", features, dates=DATES, **HELD)


# -- folds: a place is in one of them at any time


def test_places_of_several_years_stay_together(tmp_path: Path) -> None:
    labels = lattice(tmp_path / "a.gpkg", years=3)
    place = together(labels)
    assert place.tolist() == list(range(36)) * 3
    folds = divided(labels)
    assert (folds.method, folds.of_feature is not None) == ("features", True)
    assert folds.of_feature is not None
    of_place = folds.of_feature.reshape(3, 36)
    assert (of_place == of_place[0]).all()
    assert set(of_place[0].tolist()) == {0, 1, 2}
    assert "folds: 108 labels lie on 36 places; what is one place in several periods stays together" in folds.notes


def test_places_that_touch_over_the_years_are_one(tmp_path: Path) -> None:
    # 0 and 2 share no ground, but both share some with 1; 3 touches 0 in the same year, which is no reason.
    shapes = [square(0, 0, 4), square(2, 2, 4), square(5, 5, 4), square(0, 4, 1), square(30, 30, 4)]
    labels = opened(tmp_path / "a.gpkg", dated(shapes, list("ababa"), [0, 1, 0, 0, 1]), dates=DATES, **HELD)
    place = together(labels)
    naive = linked_by_hand(labels)
    assert place.tolist() == naive == [0, 0, 0, 1, 2]


def linked_by_hand(labels: VectorLabels) -> list[int]:
    """Number features so that those of different periods that share ground have one number."""
    number = list(range(labels.n_features))
    shapes = list(labels.frame.geometry)
    for _ in number:
        for i, a in enumerate(shapes):
            for j, b in enumerate(shapes):
                if labels.feature_period[i] != labels.feature_period[j] and a.intersects(b):
                    number[i] = number[j] = min(number[i], number[j])
    return [sorted(set(number)).index(n) for n in number]


def test_places_are_those_of_an_oracle(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    shapes = [square(*rng.uniform(0, 50, 2), rng.uniform(1, 6)) for _ in range(40)]
    years = rng.integers(0, 3, 40).tolist()
    labels = opened(tmp_path / "a.gpkg", dated(shapes, list("ab") * 20, years), dates=DATES, **HELD)
    found = together(labels)
    assert found.tolist() == linked_by_hand(labels)
    assert 1 < found.max() < 39


def test_points_in_one_pixel_are_one_place(tmp_path: Path) -> None:
    shapes = [Point(500_001, 4_999_999), Point(500_009, 4_999_991), Point(500_011, 4_999_991), square(30, 30)]
    labels = opened(tmp_path / "a.gpkg", dated(shapes, list("abab"), [0, 1, 1, 0]), dates=DATES, **HELD)
    assert together(labels).tolist() == [0, 0, 1, 2]


def test_without_periods_each_feature_is_a_place(tmp_path: Path) -> None:
    labels = opened(tmp_path / "a.gpkg", frame([square(0, 0), square(0, 0)], list("ab")))
    assert together(labels).tolist() == [0, 1]


def test_blocks_of_land_are_the_same_in_all_years(tmp_path: Path) -> None:
    labels = lattice(tmp_path / "a.gpkg")
    folds = divided(labels, method="blocks", size=100)
    full = whole(labels.geobox)
    first, second = (folds.read(full, labels.read(full, p)) for p in range(2))
    np.testing.assert_array_equal(first, second)
    assert set(np.unique(first)) == {-1, 0, 1, 2}
    # Labels of both years weigh: a class of one year alone is known too.
    shapes = [*(square(10 * i + 3, 3) for i in range(6)), *(square(10 * i + 3, 33) for i in range(6))]
    some = opened(tmp_path / "b.gpkg", dated(shapes, ["a"] * 6 + ["b"] * 6, [0] * 6 + [1] * 6), dates=DATES, **HELD)
    assert divided(some, method="blocks", size=100, k=3).k == 3


# -- chips: each sample sees its own time


@dataclass(frozen=True)
class Year(MadeUpCube):
    """Imagery of one year; its values tell which."""

    number: int = 0

    @property
    def time(self) -> Any:
        return np.arange(len(self.dates), dtype=np.float32) * 16 + 3 * self.number

    def read(self, window: Window) -> Tile:
        tile = super().read(window)
        return Tile((tile.values + 7000 * self.number) * tile.valid[:, None], tile.valid)


def years_of(labels: VectorLabels, dates: int = 2) -> list[Any]:
    return [
        Year(labels.geobox, dates=(None,) * dates, number=p, invalid=(Window(y=0, x=20 * p, height=9, width=9),))
        for p in range(len(labels.periods))
    ]


def cut(labels: VectorLabels, client: Client, path: Path, size: int, folds: Folds, most: int = 10**6) -> ChipStore:
    return cut_chips(
        years_of(labels), labels, folds, size=size, path=path / "chips.zarr", key="k", max_per_class=most, seed=0,
        client=client,
    )  # fmt: skip


def roles_by_hand(labels: VectorLabels, folds: Folds, round_: int) -> list[Any]:
    """Return the role of every pixel in every period, buffered by those of all periods, on valid imagery alone."""
    full = whole(labels.geobox)
    roles = []
    for p in range(len(labels.periods)):
        tile = labels.read(full, p)
        roles.append(np.where(tile.codes == IGNORE, 0, folds.rounds[round_].roles[folds.read(full, tile), tile.codes]))
    return [
        buffered_by_hand(r, folds.buffer, TRAIN, VAL, TEST, elsewhen=[*roles[:p], *roles[p + 1 :]])
        for p, r in enumerate(roles)
    ]


@pytest.mark.parametrize("size", [1, 16])
@pytest.mark.parametrize(("k", "buffer"), [(0, 0), (0, 7), (3, 2)])
def test_chips_of_several_periods_are_those_of_plain_loops(
    client: Client, tmp_path: Path, size: int, k: int, buffer: int
) -> None:
    # The second year's fields are larger and lie elsewhere: they reach into the buffer of the first year's.
    places = [square(10 * r + 3, 10 * c + 3, 4) for r in range(6) for c in range(6)]
    moved = [square(10 * r + 1, 10 * c + 5, 6) for r in range(6) for c in range(5)]
    values = [f"class {i % 3}" for i in range(66)]
    labels = opened(tmp_path / "a.gpkg", dated(places + moved, values, [0] * 36 + [1] * 30), dates=DATES, **HELD)
    folds = divided(labels, k=k, buffer=buffer, method="blocks", size=200)
    store = cut(labels, client, tmp_path, size, folds)
    assert not any("keep" in note for note in store.notes), store.notes
    assert store.attrs["periods"] == [[str(p.start), str(p.end)] for p in YEARS[:2]]
    expected = {}
    roles = [roles_by_hand(labels, folds, r) for r in range(len(folds.rounds))]
    for p, cube in enumerate(years_of(labels)):
        codes = labels.read(Window(y=0, x=0, height=64, width=64), p).codes
        for y in range(0, 60, size):
            for x in range(0, 60, size):
                if (codes[y : y + size, x : x + size] != IGNORE).any():
                    expected[p, y, x] = cube.read(Window(y=y, x=x, height=size, width=size)), codes
    found = list(zip(store.period.tolist(), *store.origins.T.tolist(), strict=True))
    assert sorted(found) == sorted(expected)
    values_, truth = store.read(np.arange(len(store)))
    lost = 0
    for i, (p, y, x) in enumerate(found):
        tile, codes = expected[p, y, x]
        np.testing.assert_array_equal(values_[i], np.where(tile.valid[:, None], tile.values, np.nan))
        assert store.time[i].tolist() == [3 * p, 16 + 3 * p]
        inside = slice(y, y + size), slice(x, x + size)
        known = np.where(tile.valid.any(0), codes[inside], IGNORE)
        np.testing.assert_array_equal(store.targets_of(truth[i], ALL, TRAIN), known)
        for r in range(store.rounds):
            role = np.pad(roles[r][p], ((0, 4), (0, 4)))[inside] * (known != IGNORE)
            np.testing.assert_array_equal(roles_of(truth[i], r), role)
            lost += int(((role == 0) & (known != IGNORE)).sum())
    assert (lost > 0) == (buffer > 0)
    places_ = places_of(store, 0, TEST)
    assert set(places_.period.tolist()) == {0, 1}
    for y, x, target, p in zip(places_.rows, places_.columns, places_.target, places_.period, strict=True):
        assert roles[0][p][y, x] == TEST
        assert labels.read(whole(labels.geobox), int(p)).codes[y, x] == target


def test_what_one_year_tests_is_not_learned_in_another(client: Client, tmp_path: Path) -> None:
    # The field of 2020 lies two pixels beside the one that is tested in 2019.
    shapes = [square(3, 3), square(3, 9), square(40, 3), square(40, 20), square(40, 40), square(20, 40)]
    features = dated(
        shapes, list("aababb"), [0, 1, 0, 0, 1, 1], fold=["test", "train", "train", "train", "test", "val"]
    )
    labels = opened(tmp_path / "a.gpkg", features, dates=DATES, **HELD)
    for buffer, trains in ((0, 48), (2, 48), (3, 44), (6, 32)):
        store = cut(labels, client, tmp_path / str(buffer), 16, divided(labels, buffer=buffer))
        assert int(store.counts(0, TRAIN).sum()) == trains, buffer


@pytest.mark.parametrize("size", [1, 16])
def test_how_the_land_is_divided_changes_nothing(
    client: Client, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = lattice(tmp_path / "a.gpkg")
    folds = divided(labels, buffer=7)
    found = []
    for land in (512, 32):
        monkeypatch.setattr(cutting, "_LAND", land)
        store = cut(labels, client, tmp_path / str(land), size, folds, most=80)
        keys = zip(store.period.tolist(), *store.origins.T.tolist(), strict=True)
        found.append({k: (store.values[i].tobytes(), store.truth[i].tobytes()) for i, k in enumerate(keys)})
    assert found[0] == found[1]


def test_single_pixels_are_drawn_over_all_periods(client: Client, tmp_path: Path) -> None:
    labels = lattice(tmp_path / "a.gpkg", turned=0)
    folds = divided(labels)
    full, some = (cut(labels, client, tmp_path / str(n), 1, folds, most=n) for n in (10**6, 100))
    assert full.counts(0, TRAIN).max() > 200
    for role in (TRAIN, VAL, TEST):
        assert (np.abs(some.counts(0, role) - np.minimum(full.counts(0, role), 100)) < 30).all()
    kept, all_ = (set(zip(s.period.tolist(), *s.origins.T.tolist(), strict=True)) for s in (some, full))
    assert kept < all_
    # Each year is drawn by itself: not the same places in all.
    by_year = [{(y, x) for p, y, x in kept if p == year} for year in range(2)]
    assert by_year[0] != by_year[1]
    assert all(by_year)

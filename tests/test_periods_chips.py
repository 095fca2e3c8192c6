"""Labels that hold for periods: cut with the images of their own time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from oracles_samples import buffered_by_hand
from places import MadeUpCube, opened, square
from years import DATES, HELD, YEARS, dated, divided, lattice

from pipeline.cluster import dask_client
from pipeline.grid import Window, whole
from pipeline.imagery.cube import Tile
from pipeline.samples import cutting
from pipeline.samples.chips import ALL, ChipStore
from pipeline.samples.cutting import cut_chips
from pipeline.samples.folds import TEST, TRAIN, VAL, Folds
from pipeline.samples.labels import IGNORE
from pipeline.samples.pixels import places_of
from pipeline.samples.shapes import VectorLabels
from pipeline.samples.truth import roles_of
from pipeline.settings import ComputeSettings

if TYPE_CHECKING:
    from distributed import Client


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with dask_client(ComputeSettings(threads=1)) as found:
        yield found


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

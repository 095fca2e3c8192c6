"""Chips: cut the same however the land is divided, buffered as an oracle says, whole or absent."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import buffered_by_hand
from places import MadeUpCube, codes, frame, grid, opened, scattered, square

from pipeline.cluster import dask_client
from pipeline.errors import LabelError, ReadError, RunError
from pipeline.grid import Window, whole
from pipeline.imagery.cube import Tile
from pipeline.imagery.statistics import Statistics
from pipeline.samples import cutting
from pipeline.samples.chips import ALL, ChipStore
from pipeline.samples.cutter import Cutter, Land, buffered
from pipeline.samples.cutting import cut_chips
from pipeline.samples.folds import TEST, TRAIN, VAL, Folds, make_folds
from pipeline.samples.labels import IGNORE
from pipeline.samples.pixels import covariance_of, labelled, moments_of, pixels_of, places_of
from pipeline.samples.shapes import VectorLabels
from pipeline.samples.truth import planes
from pipeline.settings import ComputeSettings, FoldSettings

if TYPE_CHECKING:
    from distributed import Client

DATES = (datetime.date(2020, 1, 1), datetime.date(2020, 1, 17))


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with dask_client(ComputeSettings(threads=2)) as found:
        yield found


@pytest.fixture
def labels(tmp_path: Path) -> VectorLabels:
    return scattered(tmp_path / "labels.gpkg", [12, 8, 6])


def cut(
    labels: VectorLabels,
    client: Client,
    path: Path,
    *,
    size: int,
    margin: int = 0,
    buffer: int = 0,
    cube: Any = None,
    most: int = 10**6,
    seed: int = 0,
    **folds: Any,
) -> tuple[ChipStore, Folds]:
    divided = make_folds(labels, FoldSettings.model_validate(folds), buffer)
    cube = cube or MadeUpCube(labels.geobox, dates=DATES)
    store = cut_chips(
        [cube],
        labels,
        divided,
        size=size,
        margin=margin,
        path=path / "chips.zarr",
        key="k",
        max_per_class=most,
        seed=seed,
        client=client,
    )
    return store, divided


def roles_by_hand(labels: VectorLabels, folds: Folds, round_: int) -> tuple[Any, Any]:
    """Return classes and buffered roles of the whole grid."""
    tile = labels.read(whole(labels.geobox))
    fold = folds.read(whole(labels.geobox), tile)
    role = np.where(tile.codes == IGNORE, 0, folds.rounds[round_].roles[fold, tile.codes])
    return tile.codes, buffered_by_hand(role, folds.buffer, TRAIN, VAL, TEST)


def mosaic(store: ChipStore, shape: tuple[int, int], round_: int | str, role: int) -> Any:
    """Put the targets of all chips on the grid."""
    size = store.size
    found = np.full((shape[0] + size, shape[1] + size), IGNORE)
    for i, (y, x) in enumerate(store.origins):
        found[y : y + size, x : x + size] = store.targets(i, round_, role)
    return found[: shape[0], : shape[1]]


@pytest.mark.parametrize("size", [1, 8, 16, 64])
@pytest.mark.parametrize(("k", "buffer"), [(0, 0), (0, 7), (3, 4)])
def test_chips_hold_each_label_once_in_its_role(
    labels: VectorLabels, client: Client, tmp_path: Path, size: int, k: int, buffer: int
) -> None:
    store, folds = cut(labels, client, tmp_path, size=size, k=k, buffer=buffer)
    assert (store.size, store.rounds, store.buffer) == (size, k or 1, buffer)
    for round_ in range(store.rounds):
        truth, expected = roles_by_hand(labels, folds, round_)
        for role in (TRAIN, VAL, TEST):
            found = mosaic(store, (60, 60), round_, role)
            np.testing.assert_array_equal(found, np.where(expected == role, truth, IGNORE))
            counts = np.bincount(found[found >= 0], minlength=3)
            np.testing.assert_array_equal(store.counts(round_, role), counts)
            np.testing.assert_array_equal(store.chip_counts(round_, role).sum(0), counts)
            places = places_of(store, round_, role)
            np.testing.assert_array_equal(found[places.rows, places.columns], places.target)
            assert len(places.target) == counts.sum()
    np.testing.assert_array_equal(mosaic(store, (60, 60), ALL, TRAIN), codes(labels))
    assert not store.counts(ALL, VAL).any()
    assert len(store.indices(ALL, TRAIN)) == len(store)


@pytest.mark.parametrize("size", [1, 16])
def test_chips_hold_the_imagery_of_their_place(labels: VectorLabels, client: Client, tmp_path: Path, size: int) -> None:
    cube = MadeUpCube(labels.geobox, dates=DATES)
    store, _ = cut(labels, client, tmp_path, size=size, cube=cube)
    assert store.values.shape[1:] == (2, 2, size, size)
    for i in range(0, len(store), 7):
        y, x = (int(v) for v in store.origins[i])
        tile = cube.read(Window(y=y, x=x, height=size, width=size))
        np.testing.assert_array_equal(store.values[i], np.where(tile.valid[:, None], tile.values, np.nan))
    assert store.attrs["periods"] == [None]
    assert store.time.tolist() == [[0, 16]] * len(store)
    assert store.attrs["bands"] == ["red", "nir"]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 6), st.booleans())
def test_the_buffer_is_what_an_oracle_says(seed: int, buffer: int, exempt: bool) -> None:
    rng = np.random.default_rng(seed)
    role = np.where(rng.random((15, 17)) < 0.15, rng.integers(1, 4, (15, 17)), 0).astype(np.int8)
    classes = np.where(role > 0, rng.integers(0, 2, role.shape), IGNORE).astype(np.int16)
    spared = np.zeros((4, 2), bool)
    spared[TRAIN, 1] = exempt
    kept = [tuple(p) for p in np.argwhere((role == TRAIN) & (classes == 1))] if exempt else []
    expected = buffered_by_hand(role, buffer, TRAIN, VAL, TEST, kept)
    np.testing.assert_array_equal(buffered(role, classes, buffer, spared), expected)


def everything(store: ChipStore) -> dict[tuple[int, int], tuple[Any, ...]]:
    held = zip(store.origins.tolist(), store.values[:], store.truth[:], strict=True)
    return {(y, x): (values.tobytes(), truth.tobytes()) for (y, x), values, truth in held}


@pytest.mark.parametrize(("size", "margin"), [(1, 0), (8, 0), (7, 3)])
def test_how_the_land_is_divided_among_tasks_changes_nothing(
    labels: VectorLabels, client: Client, tmp_path: Path, size: int, margin: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for land in (512, 24, 8):
        monkeypatch.setattr(cutting, "_LAND", land)
        store, _ = cut(labels, client, tmp_path / str(land), size=size, margin=margin, buffer=5, most=40, k=3)
        found.append(everything(store))
    assert found[0] == found[1] == found[2]


# -- chips with a margin


@pytest.mark.parametrize(("size", "margin"), [(9, 4), (14, 4)])
def test_a_margin_holds_values_and_no_labels(
    labels: VectorLabels, client: Client, tmp_path: Path, size: int, margin: int
) -> None:
    cube = MadeUpCube(labels.geobox, dates=DATES)
    store, folds = cut(labels, client, tmp_path, size=size, margin=margin, cube=cube, k=3, buffer=4)
    assert (store.size, store.margin, store.kind) == (size, margin, "patches" if size == 9 else "chips")
    assert store.origins.min() < 0, "a chip reaches outside the raster"
    for i, (y, x) in enumerate(store.origins.tolist()):
        tile = cube.read(Window(y=y, x=x, height=size, width=size))
        np.testing.assert_array_equal(store.values[i], np.where(tile.valid[:, None], tile.values, np.nan))
        known = store.truth[i]
        assert known[0, margin : size - margin, margin : size - margin].any()
        known[:, margin : size - margin, margin : size - margin] = 0
        assert not known.any()
    for round_ in range(3):
        truth, expected = roles_by_hand(labels, folds, round_)
        for role in (TRAIN, VAL, TEST):
            places = places_of(store, round_, role)
            found = sorted(zip(places.rows.tolist(), places.columns.tolist(), places.target.tolist(), strict=True))
            assert found == [(y, x, int(truth[y, x])) for y, x in np.argwhere(expected == role).tolist()]
            assert store.counts(round_, role).tolist() == np.bincount(places.target, minlength=3).tolist()


def test_patches_are_drawn_and_described_as_single_pixels_are(
    labels: VectorLabels, client: Client, tmp_path: Path
) -> None:
    cube = MadeUpCube(labels.geobox, dates=DATES)
    pixels, _ = cut(labels, client, tmp_path / "pixels", size=1, cube=cube, most=20)
    patches, _ = cut(labels, client, tmp_path / "patches", size=7, margin=3, cube=cube, most=20)
    assert len(patches) == len(pixels) < (codes(labels) >= 0).sum()
    assert {tuple(o) for o in (patches.origins + 3).tolist()} == {tuple(o) for o in pixels.origins.tolist()}
    assert patches.notes == pixels.notes
    assert patches.table() == pixels.table()
    for of in (lambda s: pixels_of(s, 0, TEST, None), lambda s: labelled(s, 0, TRAIN, s.indices(0, TRAIN))):
        rows = [
            sorted(zip(v.reshape(len(v), -1).tolist(), t.tolist(), strict=True)) for v, t in map(of, (patches, pixels))
        ]
        assert rows[0] == rows[1]
    found, expected = (Statistics.from_moments(moments_of(s, 0)) for s in (patches, pixels))
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-5)
    np.testing.assert_allclose(found.std, expected.std, rtol=1e-4)


# -- what is left out, and said


def test_single_pixels_are_drawn_by_place_and_it_is_said(labels: VectorLabels, client: Client, tmp_path: Path) -> None:
    full, _ = cut(labels, client, tmp_path / "full", size=1)
    store, _ = cut(labels, client, tmp_path / "some", size=1, most=60)
    other, _ = cut(labels, client, tmp_path / "other", size=1, most=60, seed=1)
    assert full.counts(0, TRAIN).max() > 100
    for role in (TRAIN, VAL, TEST):
        assert (np.abs(store.counts(0, role) - np.minimum(full.counts(0, role), 60)) < 25).all()
    assert everything(store).keys() < everything(full).keys()
    assert everything(store).keys() != everything(other).keys()
    assert "class 'class 0': about" in store.notes[0]
    assert "of 192 labelled pixels are drawn" in store.notes[0]
    assert [row["pixels"] for row in store.table()] == store.counts(ALL, TRAIN).tolist()


def test_a_class_that_the_buffer_would_empty_keeps_its_labels_and_it_is_said(client: Client, tmp_path: Path) -> None:
    shapes = [square(r, c) for r, c in [(2, 2), (2, 30), (2, 50), (30, 2), (30, 50), (50, 30)]]
    rare = [square(2, 8), square(34, 50)]
    features = frame(
        [*shapes, *rare],
        ["a"] * 6 + ["b"] * 2,
        fold=["test", "train", "val", "train", "test", "train", "train", "test"],
    )
    labels = opened(tmp_path / "labels.gpkg", features)
    store, _ = cut(labels, client, tmp_path, size=16, buffer=6)
    assert store.counts(0, TRAIN).tolist() == [48, 16]
    assert store.notes == [
        "buffer of 6 px between folds: 16 of 64 training labels are left out",
        "class 'b' keeps its training labels inside the buffer: none would be left; its figures are somewhat optimistic",
    ]
    assert [row["in buffer"] for row in store.table()] == [0, 0]


def test_a_validation_fold_that_the_buffer_would_empty_keeps_its_labels(client: Client, tmp_path: Path) -> None:
    shapes = [square(2, 2), square(2, 30), square(2, 8), square(30, 30), square(50, 2), square(50, 30)]
    features = frame(shapes, list("ababab"), fold=["val", "train", "test", "test", "train", "train"])
    labels = opened(tmp_path / "labels.gpkg", features)
    store, _ = cut(labels, client, tmp_path, size=16, buffer=6)
    assert store.counts(0, VAL).tolist() == [16, 0]
    assert store.notes == ["validation keeps its labels inside the buffer: none would be left to stop by"]


def test_labels_on_invalid_imagery_do_not_count(labels: VectorLabels, client: Client, tmp_path: Path) -> None:
    hole = Window(y=0, x=0, height=25, width=60)
    cube = MadeUpCube(labels.geobox, invalid=(hole,))
    for size in (1, 16):
        store, folds = cut(labels, client, tmp_path / str(size), size=size, cube=cube)
        for role in (TRAIN, VAL, TEST):
            truth, expected = roles_by_hand(labels, folds, 0)
            truth[:25] = IGNORE
            expected[:25] = 0
            np.testing.assert_array_equal(mosaic(store, (60, 60), 0, role), np.where(expected == role, truth, IGNORE))


def test_the_table_says_what_each_class_matched(labels: VectorLabels, client: Client, tmp_path: Path) -> None:
    store, folds = cut(labels, client, tmp_path, size=16, buffer=7)
    for i, row in enumerate(store.table()):
        assert row["class"] == row["labels"] == f"class {i}"
        assert row["features"] == (12, 8, 6)[i]
        assert row["pixels"] == 16 * row["features"] == sum(row[name] for name in folds.names)
        assert row["train"] - row["in buffer"] == store.counts(0, TRAIN)[i]


# -- what is made of chips


@pytest.mark.parametrize("size", [1, 16])
def test_statistics_are_those_of_the_labelled_training_pixels(
    labels: VectorLabels, client: Client, tmp_path: Path, size: int
) -> None:
    cube = MadeUpCube(labels.geobox, dates=DATES)
    store, _ = cut(labels, client, tmp_path, size=size, cube=cube, k=3)
    for round_ in (0, 2, ALL):
        target = mosaic(store, (60, 60), round_, TRAIN)
        values = cube.read(whole(labels.geobox)).values[:, :, target >= 0]
        found = Statistics.from_moments(moments_of(store, round_))
        np.testing.assert_allclose(found.mean, values.mean((0, 2)), rtol=1e-5)
        np.testing.assert_allclose(found.std, values.std((0, 2)), rtol=1e-4)
        normal = (values - found.mean[:, None]) / found.std[:, None]
        expected = np.cov(np.moveaxis(normal, 1, 0).reshape(len(found.mean), -1))
        np.testing.assert_allclose(covariance_of(store, round_, found), expected, atol=1e-5)


@pytest.mark.parametrize("size", [1, 16])
def test_pixels_for_a_forest(labels: VectorLabels, client: Client, tmp_path: Path, size: int) -> None:
    cube = MadeUpCube(labels.geobox, dates=DATES)
    store, _ = cut(labels, client, tmp_path, size=size, cube=cube)
    target = mosaic(store, (60, 60), 0, TEST)
    expected = cube.read(whole(labels.geobox)).values[:, :, target >= 0].reshape(4, -1).T
    values, classes = pixels_of(store, 0, TEST, None)
    assert sorted(map(tuple, values.tolist())) == sorted(map(tuple, expected.tolist()))
    assert np.bincount(classes).tolist() == store.counts(0, TEST).tolist()
    some, few = pixels_of(store, 0, TRAIN, 50)
    assert some.shape == (50, 4)
    assert len(few) == 50
    assert np.isfinite(some).all()


def test_dates_without_data_hold_the_mean_of_a_band(labels: VectorLabels, client: Client, tmp_path: Path) -> None:
    class Gaps(MadeUpCube):
        def read(self, window: Window) -> Tile:
            tile = super().read(window)
            tile.valid[1, ::2] = False
            return tile

    store, _ = cut(labels, client, tmp_path, size=16, cube=Gaps(labels.geobox, dates=DATES))
    values, _ = pixels_of(store, 0, TRAIN, None)
    filled = values[:, 2] < 900
    assert 0 < filled.sum() < len(values)
    known = np.concatenate([values[:, 0], values[~filled, 2]])
    np.testing.assert_allclose(values[filled, 2], known.mean(), rtol=1e-5)


def test_many_rounds_take_more_planes(labels: VectorLabels, client: Client, tmp_path: Path) -> None:
    assert [planes(n) for n in (1, 8, 9, 16)] == [2, 2, 3, 3]
    store, _ = cut(labels, client, tmp_path, size=16, k=11)
    assert store.truth.shape[1] == 3
    tested = np.stack([mosaic(store, (60, 60), r, TEST) for r in range(11)])
    assert ((tested >= 0).sum(0) == (codes(labels) >= 0)).all()


# -- when it fails


def test_an_empty_fold_is_refused_and_nothing_is_left(client: Client, tmp_path: Path) -> None:
    shapes = [square(2, 2), square(2, 30), square(30, 2), square(30, 30), square(50, 2), square(50, 30)]
    features = frame(shapes, list("ababab"), fold=["val", "val", "test", "test", "train", "train"])
    labels = opened(tmp_path / "labels.gpkg", features)
    cube = MadeUpCube(labels.geobox, invalid=(Window(y=0, x=0, height=10, width=60),))
    with pytest.raises(LabelError, match="the validation fold is empty: no label of it lies on valid imagery"):
        cut(labels, client, tmp_path, size=16, cube=cube)
    cube = MadeUpCube(labels.geobox, invalid=(Window(y=45, x=25, height=10, width=30),))
    with pytest.raises(LabelError, match="no training labels on valid imagery for 'b'"):
        cut(labels, client, tmp_path, size=1, cube=cube)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["labels.gpkg"]


class Broken(MadeUpCube):
    """A cube whose file is damaged."""

    def read(self, window: Window) -> Tile:
        raise ReadError("scene.tif: reading rows 0..511 failed")


def test_a_store_is_whole_or_absent_and_an_old_one_is_kept(
    labels: VectorLabels, client: Client, tmp_path: Path
) -> None:
    with pytest.raises(ReadError, match=r"scene\.tif: reading rows 0\.\.511"):
        cut(labels, client, tmp_path, size=16, cube=Broken(labels.geobox))
    assert not (tmp_path / "chips.zarr").exists()
    store, _ = cut(labels, client, tmp_path, size=16)
    before = everything(store)
    with pytest.raises(ReadError):
        cut(labels, client, tmp_path, size=16, cube=Broken(labels.geobox))
    assert everything(ChipStore.open(store.path)) == before
    (tmp_path / ".chips.zarr.tmp").mkdir()
    again, _ = cut(labels, client, tmp_path, size=8)
    assert again.size == 8
    assert [p.name for p in tmp_path.iterdir() if "zarr" in p.name] == ["chips.zarr"]


def test_a_task_that_keeps_failing_names_its_place(
    labels: VectorLabels, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Cutter, land: Land) -> None:
        raise MemoryError("no more")

    monkeypatch.setattr(Cutter, "survey", fails)
    with pytest.raises(
        RunError, match=r"cutting chips failed at rows 0\.\.511, columns 0\.\.511: MemoryError: no more"
    ):
        cut(labels, client, tmp_path, size=16)


def test_progress_ends_at_the_whole(labels: VectorLabels, client: Client, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    folds = make_folds(labels, FoldSettings(), 5)
    cut_chips(
        [MadeUpCube(labels.geobox)], labels, folds, size=8, path=tmp_path / "c.zarr", key="k", max_per_class=9, seed=0,
        client=client, progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert [done for done, _ in told] == list(range(1, len(told) + 1))
    assert told[-1][0] == told[-1][1]


def test_chips_are_single_uncompressed_chunks(labels: VectorLabels, client: Client, tmp_path: Path) -> None:
    store, _ = cut(labels, client, tmp_path, size=16)
    group = zarr.open_group(store.path, mode="r")
    values = group["values"]
    assert isinstance(values, zarr.Array)
    assert values.chunks == (1, *values.shape[1:])
    assert values.compressors == ()
    assert values.shards is None


@pytest.mark.parametrize("size", [1, 16])
def test_batches_are_read_as_zarr_reads_them(labels: VectorLabels, client: Client, tmp_path: Path, size: int) -> None:
    # A hole makes chips of nothing but zeros in the truth.
    cube = MadeUpCube(labels.geobox, invalid=(Window(y=0, x=0, height=16, width=60),))
    store, _ = cut(labels, client, tmp_path, size=size, cube=cube)
    chips = np.random.default_rng(0).permutation(len(store))
    values, truth = store.read(chips)
    np.testing.assert_array_equal(values, store.values[:][chips])
    np.testing.assert_array_equal(truth, store.truth[:][chips])


@pytest.mark.parametrize("left", [0, 100, None])
def test_a_damaged_chip_is_named(labels: VectorLabels, client: Client, tmp_path: Path, left: int | None) -> None:
    store, _ = cut(labels, client, tmp_path, size=16)
    file = store.path / "values" / "c" / "3" / "0" / "0" / "0" / "0"
    if left is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(ReadError, match=f"values/c/3/0/0/0/0: a chip is damaged, {left or 0} of 4096 bytes"):
        store.read(np.array([0, 3]))


def test_labels_over_a_wide_land_are_cut_by_many_tasks(client: Client, tmp_path: Path) -> None:
    geobox = grid(1500, 1300)
    shapes = [square(r, c, 9) for r in range(20, 1480, 130) for c in range(20, 1280, 130)]
    labels = opened(tmp_path / "labels.gpkg", frame(shapes, ["abc"[i % 3] for i in range(len(shapes))]), geobox)
    store, folds = cut(labels, client, tmp_path, size=32, buffer=8)
    found = sum(store.counts(0, role).sum() for role in (TRAIN, VAL, TEST))
    assert found == store.counts(ALL, TRAIN).sum() == 81 * len(shapes)
    assert folds.method == "features"

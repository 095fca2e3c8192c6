"""Chips: cut the same however the land is divided, buffered as an oracle says, and what is left out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from cuts import DATES, cut, everything, mosaic, roles_by_hand, running, squares  # noqa: F401 - two are fixtures
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles_samples import buffered_by_hand
from places import MadeUpCube, codes, frame, opened, square

from pipeline.grid import Window
from pipeline.imagery.statistics import Statistics
from pipeline.samples import cutting
from pipeline.samples.chips import ALL
from pipeline.samples.cutter import buffered
from pipeline.samples.folds import TEST, TRAIN, VAL
from pipeline.samples.labels import IGNORE
from pipeline.samples.pixels import labelled, moments_of, pixels_of, places_of
from pipeline.samples.shapes import VectorLabels

if TYPE_CHECKING:
    from distributed import Client


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

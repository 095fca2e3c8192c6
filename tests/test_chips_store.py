"""Chips: what is made of them, how they are stored, and what happens when that fails."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr
from cuts import DATES, cut, everything, mosaic, running, squares  # noqa: F401 - two are fixtures
from places import MadeUpCube, codes, frame, grid, opened, square

from pipeline.errors import LabelError, ReadError, RunError
from pipeline.grid import Window, whole
from pipeline.imagery.cube import Tile
from pipeline.imagery.statistics import Statistics
from pipeline.samples.chips import ALL, ChipStore
from pipeline.samples.cutter import Cutter, Land
from pipeline.samples.cutting import cut_chips
from pipeline.samples.folds import TEST, TRAIN, VAL, make_folds
from pipeline.samples.pixels import covariance_of, moments_of, pixels_of
from pipeline.samples.shapes import VectorLabels
from pipeline.samples.truth import planes
from pipeline.settings import FoldSettings

if TYPE_CHECKING:
    from distributed import Client


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

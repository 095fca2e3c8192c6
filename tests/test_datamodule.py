"""Batches of chips: contract, order, augmentation, balanced sampling."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from places import MadeUpCube, frame, grid, opened, scattered, square

from pipeline.cluster import dask_client
from pipeline.errors import ReadError
from pipeline.grid import Window
from pipeline.imagery.statistics import Statistics
from pipeline.samples.chips import ALL, ChipStore
from pipeline.samples.cutting import cut_chips
from pipeline.samples.datamodule import ChipDataModule
from pipeline.samples.folds import TRAIN, VAL, make_folds
from pipeline.samples.labels import IGNORE
from pipeline.samples.pixels import moments_of
from pipeline.samples.shapes import VectorLabels
from pipeline.settings import ComputeSettings, FoldSettings


def store_of(path: Path, size: int, labels: VectorLabels | None = None) -> ChipStore:
    labels = labels or scattered(path / "labels.gpkg", [12, 8, 6])
    cube = MadeUpCube(labels.geobox, dates=(None, None), invalid=(Window(y=0, x=0, height=5, width=60),))
    folds = make_folds(labels, FoldSettings(), 2)
    with dask_client(ComputeSettings(threads=1)) as client:
        return cut_chips(
            [cube], labels, folds, size=size, path=path / f"{size}.zarr", key="k", max_per_class=10**6, seed=0, client=client
        )  # fmt: skip


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[int, ChipStore]:
    path = tmp_path_factory.mktemp("stores")
    return {size: store_of(path, size) for size in (1, 16)}


def module(store: ChipStore, round_: int | str = 0, **options: Any) -> ChipDataModule:
    statistics = Statistics.from_moments(moments_of(store, round_))
    return ChipDataModule(store.path, round_, statistics, **({"batch_size": 4} | options))


def drawn(data: ChipDataModule, epoch: int = 0) -> Iterator[dict[str, torch.Tensor]]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    return iter(loader)


@pytest.mark.parametrize("size", [1, 16])
def test_a_batch_is_what_networks_expect(stores: dict[int, ChipStore], size: int) -> None:
    store = stores[size]
    batch = next(drawn(module(store)))
    assert {k: (tuple(v.shape), v.dtype) for k, v in batch.items()} == {
        "cube": ((4, 2, 2, size, size), torch.float32),
        "valid": ((4, 2, size, size), torch.bool),
        "time": ((4, 2), torch.float32),
        "labels": ((4, size, size), torch.int64),
    }
    assert batch["time"].tolist() == [[0, 16]] * 4


@pytest.mark.parametrize("size", [1, 16])
def test_an_epoch_holds_every_label_once_normalised(stores: dict[int, ChipStore], size: int) -> None:
    store = stores[size]
    data = module(store)
    for loader, role in ((data.train_dataloader(), TRAIN), (data.val_dataloader(), VAL)):
        batches = list(loader)
        labels = torch.cat([b["labels"] for b in batches])
        counts = np.bincount(labels[labels != IGNORE].numpy(), minlength=3)
        assert counts.tolist() == store.counts(0, role).tolist()
        assert len(labels) == len(store.indices(0, role))
        valid = torch.cat([b["valid"] for b in batches])
        cube = torch.cat([b["cube"] for b in batches])
        assert torch.isfinite(cube).all()
        assert (cube[~valid[:, :, None].expand_as(cube)] == 0).all()
        assert (labels[~valid.any(1)] == IGNORE).all()
        if role == TRAIN:
            known = cube.movedim(2, -1)[(labels != IGNORE)[:, None].expand_as(valid)]
            assert known.mean(0).abs().max() < 1e-4
            assert (known.std(0) - 1).abs().max() < 1e-2


def fingerprints(batches: Iterator[dict[str, torch.Tensor]]) -> list[float]:
    return [float(chip.sum()) for b in batches for chip in b["cube"]]


@pytest.mark.parametrize("size", [1, 16])
def test_order_depends_on_seed_and_epoch_only(stores: dict[int, ChipStore], size: int) -> None:
    first = fingerprints(drawn(module(stores[size], seed=3), 5))
    assert fingerprints(drawn(module(stores[size], seed=3), 5)) == first
    for seed, epoch in ((3, 6), (4, 5)):
        other = fingerprints(drawn(module(stores[size], seed=seed), epoch))
        assert other != first
        assert sorted(other) == pytest.approx(sorted(first))


def test_a_batch_is_the_same_whatever_was_made_before(stores: dict[int, ChipStore]) -> None:
    data = module(stores[16], augment=("flip", "noise"), unlabelled=stores[16].path)
    batches = list(drawn(data, 2))
    assert not torch.equal(batches[0]["unlabelled"]["cube"], batches[1]["unlabelled"]["cube"])
    torch.rand(17)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(2)  # type: ignore[attr-defined]
    draws = list(loader.sampler)
    for i in reversed(range(len(draws))):
        again = loader.dataset[draws[i]]
        assert torch.equal(again["cube"], batches[i]["cube"])
        assert torch.equal(again["unlabelled"]["cube"], batches[i]["unlabelled"]["cube"])


def test_a_damaged_chip_ends_the_epoch_with_its_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.samples.batches._HELD", 0)
    store = store_of(tmp_path, 16)
    chip = store.indices(0, TRAIN)[3]
    (store.path / f"values/c/{chip}/0/0/0/0").write_bytes(b"half")
    with pytest.raises(ReadError, match=r"a chip is damaged, 4 of \d+ bytes are there"):
        list(drawn(module(store)))


def test_whoever_takes_no_more_batches_leaves_nothing_running(stores: dict[int, ChipStore]) -> None:
    batches = drawn(module(stores[16], batch_size=1))
    next(batches)
    assert [t for t in threading.enumerate() if t.name.startswith("loader")]
    batches.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("loader")]


def test_batches_are_of_even_size(stores: dict[int, ChipStore]) -> None:
    n = len(stores[16].indices(0, TRAIN))
    sizes = [len(b["labels"]) for b in drawn(module(stores[16], batch_size=n - 1))]
    assert len(sizes) == 2
    assert max(sizes) - min(sizes) <= 1


def test_all_labels_train_without_a_validation_fold(stores: dict[int, ChipStore]) -> None:
    data = module(stores[16], ALL)
    labels = torch.cat([b["labels"] for b in data.train_dataloader()])
    assert int((labels != IGNORE).sum()) == stores[16].counts(ALL, TRAIN).sum()
    assert list(data.val_dataloader()) == []


def turns(chip: torch.Tensor) -> list[torch.Tensor]:
    """Return the eight ways to lay down a square."""
    return [m for k in range(4) for t in [torch.rot90(chip, k, (-2, -1))] for m in (t, t.flip(-1))]


def test_augmentation_lays_down_values_validity_and_labels_alike(stores: dict[int, ChipStore]) -> None:
    store = stores[16]
    plain = dict(enumerate(drawn(module(store, batch_size=1))))
    seen: set[int] = set()
    for seed in range(6):
        # One batch: its order is that of the seed, its changes too.
        data = module(store, batch_size=1, augment=("flip", "rotate"))
        for i, draw in enumerate(data.train_dataloader().sampler):
            batch = data.train_dataloader().dataset[replace(draw, seed=seed * 1000 + i)]
            ways = [
                w
                for w in range(8)
                if all(torch.equal(turns(plain[i][name])[w], batch[name]) for name in ("cube", "valid", "labels"))
            ]
            assert ways
            seen.update(ways if len(ways) == 1 else ())
    assert seen == set(range(8))


@pytest.mark.parametrize(("augment", "allowed"), [(("flip",), {0, 1}), (("rotate",), {0, 2, 4, 6}), ((), {0})])
def test_each_augmentation_does_only_its_own(
    stores: dict[int, ChipStore], augment: tuple[str, ...], allowed: set[int]
) -> None:
    plain = list(drawn(module(stores[16], batch_size=1)))
    for before, after in zip(plain, drawn(module(stores[16], batch_size=1, augment=augment)), strict=True):
        assert any(torch.equal(turns(before["cube"])[w], after["cube"]) for w in allowed)


def test_validation_is_not_augmented(stores: dict[int, ChipStore]) -> None:
    for store in stores.values():
        options = {"augment": ("flip", "rotate")}
        loaders = [module(store, **o).val_dataloader() for o in ({}, options)]
        for a, b in zip(*loaders, strict=True):
            assert torch.equal(a["cube"], b["cube"])


@pytest.mark.parametrize("size", [1, 8])
def test_balanced_sampling_draws_rare_classes_as_often(tmp_path: Path, size: int) -> None:
    shapes = [square(8 * r, 8 * c, 8) for r in range(7) for c in range(7)]
    values = ["rare" if i % 12 == 0 else "common" for i in range(len(shapes))]
    labels = opened(tmp_path / "labels.gpkg", frame(shapes, values), grid())
    store = store_of(tmp_path, size, labels)
    shares = {}
    for sampling in ("natural", "balanced"):
        data = module(store, sampling=sampling, batch_size=256)
        counts = np.zeros(2)
        for epoch in range(40 if size > 1 else 2):
            for batch in drawn(data, epoch):
                found = batch["labels"]
                counts += np.bincount(found[found != IGNORE].numpy(), minlength=2)
        shares[sampling] = counts[1] / counts.sum()
    assert shares["natural"] < 0.2
    assert abs(shares["balanced"] - 0.5) < 0.07

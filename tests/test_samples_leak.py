"""No leak: what trains lies further from what is tested than the network sees, and every label is tested once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import write_labels, write_scene
from oracles_samples import nearest_distance

from pipeline.cluster import dask_client
from pipeline.imagery.open import open_cube
from pipeline.samples.chips import ALL, ChipStore
from pipeline.samples.cutting import cut_chips
from pipeline.samples.features import open_labels
from pipeline.samples.folds import TEST, TRAIN, VAL, make_folds
from pipeline.samples.pixels import labelled, moments_of, places_of
from pipeline.settings import ComputeSettings, FoldSettings, ImagerySettings, LabelSettings


def cut(folder: Path, size: int, halo: int, folds: dict[str, object]) -> ChipStore:
    cube, _ = open_cube([ImagerySettings(path=str(folder / "scene.tif"))], None, None)
    labels = open_labels(LabelSettings(path=str(folder / "fields.gpkg"), field="class"), None, cube.geobox)
    divided = make_folds(labels, FoldSettings.model_validate(folds), halo)
    with dask_client(ComputeSettings(threads=2)) as client:
        return cut_chips(
            [cube], labels, divided, size=size, path=folder / f"chips{size}.zarr", key="k", max_per_class=10_000, seed=0,
            client=client,
        )  # fmt: skip


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    write_scene(tmp_path / "scene.tif", side=120)
    write_labels(tmp_path / "fields.gpkg", side=120)
    return tmp_path


@pytest.mark.parametrize("size", [1, 16])
@pytest.mark.parametrize("folds", [{"k": 0}, {"k": 4}, {"method": "blocks", "size": 360, "k": 0}])
def test_roles_are_further_apart_than_the_halo(scene: Path, size: int, folds: dict[str, object]) -> None:
    halo = 7
    store = cut(scene, size, halo, folds)
    for r in range(store.rounds):
        train, val, test = (places_of(store, r, role) for role in (TRAIN, VAL, TEST))
        assert len(train.rows)
        assert len(val.rows)
        assert len(test.rows)
        assert nearest_distance(train, test) > halo
        assert nearest_distance(train, val) > halo
        assert nearest_distance(val, test) > halo


def test_every_label_is_tested_once(scene: Path) -> None:
    store = cut(scene, 16, 3, {"k": 4})
    tested = np.concatenate([np.stack([p.rows, p.columns]) for r in range(4) for p in [places_of(store, r, TEST)]], 1)
    every = places_of(store, ALL, TRAIN)
    assert sorted(zip(*tested.tolist(), strict=True)) == sorted(
        zip(every.rows.tolist(), every.columns.tolist(), strict=True)
    )


def test_chips_of_one_pixel_and_of_many_hold_the_same_labels(scene: Path) -> None:
    one, many = (cut(scene, size, 3, {"k": 0}) for size in (1, 24))
    for role in (TRAIN, VAL, TEST):
        a, b = places_of(one, 0, role), places_of(many, 0, role)
        assert sorted(zip(a.rows.tolist(), a.columns.tolist(), a.target.tolist(), strict=True)) == sorted(
            zip(b.rows.tolist(), b.columns.tolist(), b.target.tolist(), strict=True)
        )
        np.testing.assert_array_equal(one.counts(0, role), many.counts(0, role))
    x, y = moments_of(one, 0), moments_of(many, 0)
    np.testing.assert_allclose(x.mean, y.mean)
    np.testing.assert_allclose(x.m2, y.m2)


def test_statistics_come_from_the_training_fold_only(scene: Path) -> None:
    store = cut(scene, 16, 3, {"k": 0})
    values, _ = labelled(store, 0, TRAIN, store.indices(0, TRAIN))
    moments = moments_of(store, 0)
    np.testing.assert_allclose(moments.mean, values[:, 0].astype(np.float64).mean(0))
    np.testing.assert_allclose(moments.m2 / moments.count, values[:, 0].astype(np.float64).var(0))

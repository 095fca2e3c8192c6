"""Labelled chips in folders: how they are divided and stored, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import CRS, NAMES, TRANSFORM, write_chips
from oracles_samples import centre_by_hand
from rasters import pattern, write

from models.forest import Forest
from pipeline.errors import LabelError
from pipeline.imagery.statistics import Statistics
from pipeline.samples.chipfiles import read_chip
from pipeline.samples.chips import ALL
from pipeline.samples.folders import ChipFolder, open_chips
from pipeline.samples.folds import TEST, TRAIN, VAL, Folds
from pipeline.samples.pixels import moments_of, pixels_of, places_of
from pipeline.samples.standalone import divide_samples, store_samples
from pipeline.settings import FoldSettings, LabelSettings


def opened(folder: Path, **options: Any) -> ChipFolder:
    return open_chips(LabelSettings(chips=str(folder)), None, **options)


def divided(chips: ChipFolder, **options: Any) -> Folds:
    return divide_samples(chips, FoldSettings.model_validate(options), LabelSettings(chips="chips"))


# -- folders and folds


def test_folders_are_classes(tmp_path: Path) -> None:
    folder = write_chips(tmp_path / "chips", per_class=3)
    (folder / "field" / "notes.txt").write_text("x")
    (folder / "forest" / ".DS_Store").write_text("x")
    chips = opened(folder)
    assert [c.name for c in chips.legend.classes] == ["field", "forest", "water"]
    assert [f.parent.name for f in chips.files] == [chips.legend.classes[t].name for t in chips.target]
    assert (len(chips), chips.bands, chips.facts.shape, chips.reach, chips.fold) == (9, NAMES, (5, 5), 2, None)
    assert chips.report() == [{"label": n, "class": n, "chips": 3} for n in ("field", "forest", "water")]
    assert chips.notes == [f"1 files in {folder} are no chips and are left alone: notes.txt"]
    values, time = chips.read(slice(2, 5), 1)
    assert (values.shape, time.tolist()) == ((3, 1, 3, 3, 3), [[0]] * 3)
    np.testing.assert_array_equal(values[1, 0], read_chip(chips.files[3])[:, 1:4, 1:4])


def test_indices_are_added_to_the_bands_of_chips(tmp_path: Path) -> None:
    chips = opened(write_chips(tmp_path / "chips", per_class=3), indices=["ndvi"])
    assert chips.bands == (*NAMES, "ndvi")
    values, _ = chips.read(slice(0, 9), 2)
    red, nir = values[:, 0, 1], values[:, 0, 2]
    np.testing.assert_allclose(values[:, 0, 3], (nir - red) / (nir + red), rtol=1e-4)


def test_the_folds_of_folders_are_kept_and_a_part_of_train_stops(tmp_path: Path) -> None:
    folder = write_chips(tmp_path / "chips", per_class=8, folds=("Training", "test"))
    chips = opened(folder)
    found = divided(chips)
    assert found.of_feature is not None
    given = np.array([f.parts[-3] for f in chips.files])
    assert (found.method, found.names) == ("field", ("train", "val", "test"))
    np.testing.assert_array_equal(found.of_feature == 2, given == "test")
    for k in range(3):
        assert np.bincount(found.of_feature[(chips.target == k) & (given == "Training")]).tolist() == [7, 1]
    assert any(
        note.startswith("folds: there is no val, so 3 of the 24 chips of train are kept") for note in found.notes
    )
    np.testing.assert_array_equal(divided(chips).of_feature, found.of_feature)
    assert (np.asarray(divided(chips, seed=1).of_feature) != found.of_feature).any()
    # Folds of its own are kept whole, and folders can be left out of account.
    write_chips(folder / "more", per_class=2)
    (folder / "more").rename(folder / "valid")
    kept = divided(opened(folder))
    assert kept.of_feature is not None
    assert np.bincount(kept.of_feature).tolist() == [24, 6, 24]
    assert divided(chips, method="features", k=3).k == 3


def test_chips_with_places_are_divided_by_blocks_of_land(tmp_path: Path) -> None:
    for i in range(36):
        at = TRANSFORM * TRANSFORM.translation(100 * (i % 6), 100 * (i // 6))
        write(tmp_path / "chips" / "ab"[i % 2] / f"{i}.tif", pattern(1, 3, 3), transform=at, crs=CRS)
    chips = opened(tmp_path / "chips")
    assert chips.places is not None
    assert np.abs(chips.places - (15.0, 45.15)).max() < 0.1
    assert divided(chips).method == "blocks"
    write(tmp_path / "chips" / "a" / "bare.png", pattern(1, 3, 3), driver="PNG", crs=None)
    bare = opened(tmp_path / "chips")
    assert bare.places is None
    found = divided(bare)
    assert (found.method, found.notes[0]) == (
        "features",
        "folds: chips at random, stratified by class: they have no coordinates, so neighbours may be divided, and figures are "
        "optimistic",
    )


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "there is no folder .*chips"),
        (["a.tif"], "holds no folders; expected one per class"),
        (["train/a/1.tif", "test/a/1.tif", "other/a/1.tif"], r"holds a folder train and others \(other\)"),
        (["train/a/1.tif", "val/a/1.tif"], "holds a folder train and none called test"),
        (["a/deep/1.tif", "b/1.tif"], r"chips/a holds no chip; expected <class>/<file>"),
        (["a/1.tif"], "a map needs two classes at least"),
        (["a/1.tif", "b/2x.tif"], r"same bands, and these differ:\n  .*a/1.tif: band_1\n  .*b/2x.tif: band_1, band_2"),
        (["a/1.tif", "b/5s.tif"], r"same size, and these differ:\n  .*a/1.tif: 3 x 3 px\n  .*b/5s.tif: 5 x 5 px"),
        (["a/1.tif", "b/1f.tif"], r"same scale and offset, and these differ"),
    ],
)
def test_folders_from_which_nothing_can_be_learned_are_refused(tmp_path: Path, files: list[str], message: str) -> None:
    for name in files:
        side = 5 if "s." in name else 3
        options: dict[str, Any] = {"scales": (0.1,)} if "f." in name else {}
        write(tmp_path / "chips" / name, pattern(2 if "x." in name else 1, side, side), **options)
    with pytest.raises(LabelError, match=message):
        opened(tmp_path / "chips")


def test_settings_that_mean_nothing_for_chips_are_refused() -> None:
    with pytest.raises(ValueError, match="a folder of chips says all by its folders, so `field` means nothing"):
        LabelSettings(chips="chips", field="class")
    assert LabelSettings.model_validate(LabelSettings(chips="chips").model_dump(by_alias=True)).chips == "chips"


# -- the store


@pytest.mark.parametrize("radius", [0, 1, 2])
def test_the_store_holds_what_is_around_the_labels(
    tmp_path: Path, radius: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Chunks of a few chips, the last of them not full.
    monkeypatch.setattr("pipeline.samples.standalone._VALUES", 7 * 3 * (2 * radius + 1) ** 2)
    chips = opened(write_chips(tmp_path / "chips", per_class=8))
    folds = divided(chips, method="features", seed=2)
    store = store_samples(chips, folds, radius=radius, path=tmp_path / "c.zarr", key="k")
    assert (len(store), store.size, store.margin) == (24, 2 * radius + 1, radius)
    assert (store.kind, store.standalone) == ("patches" if radius else "pixels", True)
    order = np.random.default_rng(0).permutation(24)
    values, truth = store.read(order)
    expected = np.stack([centre_by_hand(read_chip(f), radius) for f in chips.files])
    np.testing.assert_array_equal(values[:, 0], expected[order])
    known = store.targets_of(truth, ALL, TRAIN)
    assert (known >= 0).sum() == 24
    np.testing.assert_array_equal(known[:, radius, radius], chips.target[order])
    assert folds.of_feature is not None
    for role, fold in ((TRAIN, 0), (VAL, 1), (TEST, 2)):
        of = np.flatnonzero(folds.of_feature == fold)
        places = places_of(store, 0, role)
        assert (places.rows.tolist(), places.target.tolist()) == (of.tolist(), chips.target[of].tolist())
        x, y = pixels_of(store, 0, role, None)
        assert y.tolist() == chips.target[of].tolist()
        np.testing.assert_array_equal(x, expected[of].reshape(len(of), -1))
    few, _ = pixels_of(store, 0, TRAIN, 5)
    assert len(few) == 5
    middle = expected[folds.of_feature == 0][:, :, radius, radius]
    found = Statistics.from_moments(moments_of(store, 0))
    np.testing.assert_allclose(found.mean, middle.mean(0), rtol=1e-5)
    assert len(store.notes) == (radius < 2)


def test_a_forest_is_shown_figures_of_large_patches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.samples.pixels._FOREST_VALUES", 20)
    folder = write_chips(tmp_path / "chips", per_class=6)
    with rasterio.open(folder / "field" / "0.tif", "r+") as raster:
        raster.nodata = -1
        values = raster.read()
        values[1, 0, 0] = values[2] = -1
        raster.write(values)
    chips = opened(folder)
    store = store_samples(chips, divided(chips, method="features"), radius=2, path=tmp_path / "c.zarr", key="k")
    rows = []
    for role in (TRAIN, VAL, TEST):
        x, _ = pixels_of(store, 0, role, None)
        rows += x.tolist()
        for row, i in zip(x, store.indices(0, role), strict=True):
            cube = read_chip(chips.files[i])
            there = [np.isfinite(band).any() for band in cube]
            mean = [np.nanmean(band) for band in cube[there]]
            spread = [np.nanstd(band) for band in cube[there]]
            found = row.reshape(3, 2)
            assert np.isfinite(found).all()
            np.testing.assert_allclose(found[there], np.stack([mean, spread], 1), rtol=1e-4)
    assert len(rows) == 18


def test_real_chips_say_more_than_their_centres(data: Path, tmp_path: Path) -> None:
    """Statlog (Landsat Satellite): on its own split, published forests of all 36 values reach 0.91."""
    archive = data / "statlog_landsat" / "satellite_chips.npz"
    if not archive.is_file():
        pytest.skip(f"{archive} is absent")
    with np.load(archive, allow_pickle=True) as real:
        chips = list(zip(real["X"], real["y"], real["split"], strict=True))[::4]
    for i, (values, label, fold) in enumerate(chips):
        path = tmp_path / "chips" / str(fold) / str(label) / f"{i}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, values)
    found = opened(tmp_path / "chips")
    assert (len(found), len(found.legend.classes), found.facts.shape) == (len(chips), 6, (3, 3))
    overall = []
    for radius in (0, 1):
        store = store_samples(found, divided(found), radius=radius, path=tmp_path / f"{radius}.zarr", key="k")
        forest = Forest(trees=60, jobs=1).fit(*pixels_of(store, 0, TRAIN, None))
        values, target = pixels_of(store, 0, TEST, None)
        overall.append(float((forest.predict(values) == target).mean()))
    assert overall[1] > overall[0] > 0.75
    assert overall[1] > 0.85

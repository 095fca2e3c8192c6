"""Labelled chips in folders: what is read, how they are divided and stored, what is refused, and the class of other chips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
from conftest import CRS, MEANS, TRANSFORM, write_chips, write_job, write_scene
from oracles import centre_by_hand
from rasters import write
from test_patch_samples import around  # noqa: F401 - a fixture
from test_run import cli

from models.forest import Forest
from pipeline.errors import ImageryError, LabelError, ReadError
from pipeline.imagery.statistics import Statistics
from pipeline.samples.chipfiles import around_centre, facts_of, reach, read_chip
from pipeline.samples.chips import ALL, ChipStore
from pipeline.samples.folders import ChipFolder, open_chips
from pipeline.samples.folds import TEST, TRAIN, VAL, Folds
from pipeline.samples.pixels import moments_of, pixels_of, places_of
from pipeline.samples.standalone import divide_samples, store_samples
from pipeline.settings import FoldSettings, LabelSettings

NAMES = ("green", "red", "nir")


def opened(folder: Path, **options: Any) -> ChipFolder:
    return open_chips(LabelSettings(chips=str(folder)), None, **options)


def divided(chips: ChipFolder, **options: Any) -> Folds:
    return divide_samples(chips, FoldSettings.model_validate(options), LabelSettings(chips="chips"))


def pattern(bands: int, height: int, width: int, dtype: str = "uint8") -> Any:
    """Values of which no two are alike."""
    return np.arange(bands * height * width).reshape(bands, height, width).astype(dtype)


# -- one file


@pytest.mark.parametrize("suffix", [".tif", ".png", ".npz"])
def test_a_chip_is_read_as_it_was_written(tmp_path: Path, suffix: str) -> None:
    values, path = pattern(3, 6, 6), tmp_path / f"a{suffix}"
    if suffix == ".npz":
        np.savez(path, values)
    else:
        write(path, values, driver="GTiff" if suffix == ".tif" else "PNG", names=NAMES if suffix == ".tif" else ())
    np.testing.assert_array_equal(read_chip(path), values.astype(np.float32))
    facts = facts_of(path)
    assert facts.bands == (NAMES if suffix == ".tif" else ("band_1", "band_2", "band_3"))
    assert (facts.shape, facts.scaling) == ((6, 6), ((1.0, 0.0),) * 3)


def test_scale_nodata_and_alpha_are_as_the_file_says(tmp_path: Path) -> None:
    stored = pattern(2, 4, 4, "uint16")
    path = write(tmp_path / "a.tif", stored, nodata=5, scales=(0.5, 2.0), offsets=(1.0, 0.0))
    expected = stored * np.array([0.5, 2.0])[:, None, None] + np.array([1.0, 0.0])[:, None, None]
    np.testing.assert_array_equal(read_chip(path), np.where(stored == 5, np.nan, expected).astype(np.float32))
    assert (facts_of(path).scaling, facts_of(path).nodata) == (((0.5, 1.0), (2.0, 0.0)), 5)
    picture = pattern(4, 5, 5)
    picture[3] = 255
    picture[3, 1, 2] = 0
    path = write(tmp_path / "a.png", picture, driver="PNG")
    found = read_chip(path)
    assert found.shape == (3, 5, 5)
    assert np.isnan(found[:, 1, 2]).all()
    assert np.isfinite(found).sum() == 3 * 24


@pytest.mark.parametrize(("shape", "first"), [((4, 3, 3), True), ((3, 3, 4), False), ((3, 3, 3), True), ((5, 5), True)])
def test_the_axes_of_an_array_are_told_by_its_square(tmp_path: Path, shape: tuple[int, ...], first: bool) -> None:
    values = np.random.default_rng(0).normal(size=shape)
    np.savez(tmp_path / "a.npz", x=values, y=3)
    expected = values.reshape(-1, *shape[-2:]) if first else values.transpose(2, 0, 1)
    np.testing.assert_array_equal(read_chip(tmp_path / "a.npz"), expected.astype(np.float32))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros((2, 3, 3)), "b": np.zeros(3)}, r"holds 2 arrays \(a, b\); one of them must be 'x'"),
        ({"x": np.zeros((2, 3, 4))}, r"the array 'x' is \(2, 3, 4\); a chip is square"),
        ({"x": np.zeros(4)}, r"the array 'x' is \(4,\); a chip is square"),
        ({"x": np.full((3, 3), "a")}, "the array 'x' holds no numbers"),
    ],
)
def test_an_array_that_is_no_chip_is_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(LabelError, match=f"a.npz.*{message}|{message}"):
        facts_of(tmp_path / "a.npz")


def test_a_file_that_is_no_chip_is_refused(tmp_path: Path) -> None:
    for name in ("a.npz", "a.tif", "a.png"):
        (tmp_path / name).write_bytes(b"no chip")
        with pytest.raises((ReadError, ImageryError), match=f"{name} cannot be"):
            read_chip(tmp_path / name)
    path = tmp_path / "palette.png"
    with rasterio.open(write(path, pattern(1, 4, 4), driver="GTiff"), "r+") as raster:
        raster.write_colormap(1, {i: (i, i, i, 255) for i in range(16)})
    with pytest.raises(LabelError, match="a picture with a palette"):
        read_chip(path)


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (4, 4), (5, 8), (6, 5)])
def test_the_centre_is_the_pixel_at_half_height_and_width(shape: tuple[int, int]) -> None:
    values = pattern(2, *shape)
    most = reach(shape)
    for radius in range(most + 1):
        np.testing.assert_array_equal(around_centre(values, radius), centre_by_hand(values, radius))
    with pytest.raises(IndexError):
        centre_by_hand(values, most + 1)


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


# -- the whole job


@pytest.mark.usefixtures("around")
def test_chips_train_a_network_that_classifies_chips_and_maps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_chips(Path("chips"), side=9, per_class=12, folds=("train", "test"))
    job = write_job(Path("job.yaml"), labels={"chips": "chips"}, model={"name": "around"}, folds={})
    values = job.read_text().replace("imagery:\n- path: scene.tif\n", "")
    job.write_text(values)
    assert cli("check", job) == 0
    told = capsys.readouterr().err
    assert "72 of 9 x 9 px" in told
    assert "is shown 7 x 7 px, the label at their centre" in told
    assert cli("run", job, "--set", "training.epochs=12") == 0
    told = capsys.readouterr().err
    assert "of the chips the 7 x 7 px around the centre are used, all that the network sees" in told
    assert "the chips come without imagery: nothing is mapped" in told
    store = ChipStore.open(Path("out/chips.zarr"))
    assert (store.size, store.kind) == (7, "patches")
    accuracy = json.loads(Path("out/report/accuracy.json").read_text())
    assert accuracy["overall"] > 0.9
    assert accuracy["forest"]["overall"] > 0.9, "the forest sees what is around the centre, which says little"
    assert Path("out/report/index.html").is_file()
    # What is said of chips one by one is what was measured.
    capsys.readouterr()
    assert cli("classify", "out/model", "chips/test", "-o", "t.parquet") == 0
    assert "mean confidence" in capsys.readouterr().err
    table = pd.read_parquet("t.parquet")
    assert list(table.columns) == ["file", "class", "confidence", "p_field", "p_forest", "p_water"]
    right = (table["class"] == [Path(f).parent.name for f in table["file"]]).mean()
    assert right == pytest.approx(accuracy["overall"])
    np.testing.assert_allclose(table[["p_field", "p_forest", "p_water"]].sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(table["confidence"], table[["p_field", "p_forest", "p_water"]].max(axis=1))
    # Bands by name, whatever their order; a chip without any value gets no class.
    with rasterio.open(table["file"][0]) as first:
        mixed = first.read()[[2, 0, 1]]
    write(Path("new/a.tif"), mixed, names=("nir", "green", "red"))
    write(Path("new/b.tif"), np.zeros_like(mixed), names=("nir", "green", "red"), nodata=0)
    assert cli("classify", "out/model", "new/*.tif", "-o", "new.csv") == 0
    assert "1 chips hold no valid pixel around their centre" in capsys.readouterr().err
    new = pd.read_csv("new.csv")
    assert new["class"][0] == table["class"][0]
    assert new["confidence"][0] == pytest.approx(table["confidence"][0], rel=1e-5)
    assert new.loc[1, ["class", "confidence", "p_field"]].isna().all()
    # A moving window maps imagery.
    write_scene(Path("scene.tif"), side=48)
    assert cli("apply", "out/model", "scene.tif", "-o", "mapped", "--set", "predict.layers=[classes]", "-q") == 0
    with rasterio.open("mapped/maps/classes.tif") as raster:
        names = np.array(["field", "forest", "water"])[raster.read(1)[18::12, 18::12] - 1]
    centres = np.array(list(MEANS))[(np.arange(1, 4)[:, None] * 2 + np.arange(1, 4)[None]) % 3]
    assert (names == centres).mean() > 0.8
    # What does not fit.
    write(Path("bad/names.tif"), mixed, names=("a", "b", "c"))
    write(Path("bad/small.tif"), mixed[:, :4, :4], names=("nir", "green", "red"))
    write(Path("bad/scaled.tif"), mixed, names=("nir", "green", "red"), scales=(0.1,) * 3)
    Path("empty").mkdir()
    for arguments, message in (
        (("out/model", "bad/names.tif"), "lacks bands that the model was trained on"),
        (("out/model", "bad/small.tif"), "is 4 x 4 px, and the network 'around' looks at 7 x 7 px around the centre"),
        (("out/model", "bad/scaled.tif"), "values are not scaled like those the model was trained on"),
        (("out/model", "empty"), "empty holds no chip"),
        (("out/model", "bad/x*.tif"), "FILE: bad/x*.tif matches no file"),
        (("out/model", "new", "-o", "t.xlsx"), "-o: expected a table as .parquet or .csv, found t.xlsx"),
        (("out", "new"), "holds no bundle.json"),
    ):
        assert cli("classify", *arguments) == 2
        assert message in " ".join(capsys.readouterr().err.split())


def test_other_chips_make_other_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_chips(tmp_path / "chips", per_class=8)
    job = tmp_path / "job.yaml"
    job.write_text("labels: {chips: chips}\noutput: out\nmodel: {name: mlp}\nfolds: {method: features}\n")
    assert cli("prepare", job) == 0
    assert "of the chips it is shown the pixel at the centre alone" in capsys.readouterr().err
    assert cli("prepare", job) == 0
    assert "up to date" in capsys.readouterr().err
    (folder / "field" / "0.tif").unlink()
    assert cli("prepare", job) == 2
    assert "labels.files.0.files: 24 -> 23" in capsys.readouterr().err
    for options, message in (
        ("chips.size=3", "learns from patches of 1 x 1 pixels"),
        ("model={name: unet}", "the network 'unet' takes squares of"),
        (
            "model={name: convlstm, layers: 3}",
            "sees 3 pixels around the label, a patch of 7 x 7, and the chips hold 2, 5 x 5",
        ),
        ("temporal.every=16", "temporal: a chip has one date"),
    ):
        assert cli("check", job, "--set", options) == 2
        assert message in " ".join(capsys.readouterr().err.split())


def test_bands_without_names_are_taken_in_their_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for name, means in MEANS.items():
        (tmp_path / "chips" / name).mkdir(parents=True)
        for i in range(20):
            values = np.array(means)[:, None, None] + rng.normal(0, 120, (3, 3, 3))
            np.savez(tmp_path / "chips" / name / f"{i}.npz", values)
    job = tmp_path / "job.yaml"
    job.write_text(
        "labels: {chips: chips}\noutput: out\nmodel: {name: mlp, hidden: [8]}\ntraining: {epochs: 20, optimizer: {lr: 0.03}}\n"
    )
    assert cli("train", job, "-q") == 0
    scene = write_scene(tmp_path / "scene.tif", side=48)
    arguments = (
        "apply",
        tmp_path / "out" / "model",
        scene,
        "-o",
        tmp_path / "map",
        "--set",
        "predict.layers=[classes]",
    )
    assert cli(*arguments) == 0
    assert "they are taken to be, in this order, green, red, nir" in " ".join(capsys.readouterr().err.split())
    with rasterio.open(tmp_path / "map" / "maps" / "classes.tif") as raster:
        names = np.array(["field", "forest", "water"])[raster.read(1)[18::12, 18::12] - 1]
    expected = np.array(list(MEANS))[(np.arange(1, 4)[:, None] * 2 + np.arange(1, 4)[None]) % 3]
    assert (names == expected).mean() > 0.8
    assert cli(*arguments, "--set", "imagery.0.bands={green: 1, red: 2}", "--overwrite") == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "the model wants band_1, band_2, band_3 the imagery has green, red" in message
    assert "those of this model have no names, and are taken in their order where there are as many" in message


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

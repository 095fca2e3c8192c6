"""Labelled chips in folders: a job of them, and the class of other chips."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
from conftest import MEANS, write_chips, write_job, write_scene
from rasters import write
from test_patch_samples import around  # noqa: F401 - a fixture
from test_run import cli

from pipeline.samples.chips import ChipStore


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

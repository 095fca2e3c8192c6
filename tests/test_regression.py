"""Numbers per pixel: ranges, figures by hand, and a planted relation that is recovered and mapped."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
import yaml
from conftest import CRS, TRANSFORM, write_scene, write_season
from oracles_figures import goodness_by_hand
from rasters import grid, write
from test_cli import said
from test_run import cli

from models.bundle import Bundle
from models.inference import prepare, scores
from models.losses import LOSSES as OF_CLASSES
from models.losses import REGRESSION_LOSSES
from models.regression import RegressionTask
from models.settings import LossSettings, TrainingSettings
from models.table import build
from pipeline.errors import LabelError
from pipeline.grid import whole
from pipeline.samples.features import open_labels
from pipeline.samples.ranges import numbers_of, ranges_of
from pipeline.settings import LabelSettings
from workflows.estimates import goodness
from workflows.job import LOSSES

SIDE = 72
JOB: dict[str, Any] = {
    "task": "regression",
    "imagery": [{"path": "scene.tif"}],
    "labels": {"path": "height.tif", "units": "m"},
    "output": "out",
    "folds": {"k": 0},
    "model": {"name": "mlp", "hidden": [16]},
    "training": {"epochs": 8, "optimizer": {"lr": 0.02}, "track": ["csv"], "check_batch": False},
    "predict": {"layers": ["value"]},
}


def write_job(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump(JOB | changes))
    return path


def height_of(values: Any) -> Any:
    """Return the planted number of pixels (3, h, w): no plane over the bands."""
    green, red, nir = values / 1000
    return 5 + 3 * nir**2 - 2 * red * nir + green


def write_scene_with_heights(folder: Path) -> Any:
    """Write the scene, and a raster of heights on two thirds of it; return all heights."""
    write_scene(folder / "scene.tif", side=SIDE)
    with rasterio.open(folder / "scene.tif") as raster:
        heights = height_of(raster.read())
    stated = heights.astype(np.float32)[None]
    stated[:, np.random.default_rng(0).random((SIDE, SIDE)) < 1 / 3] = np.nan
    write(folder / "height.tif", stated, nodata=np.nan)
    return heights


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder with a scene, a raster of heights and a finished run; and the heights."""
    folder = tmp_path_factory.mktemp("regression")
    heights = write_scene_with_heights(folder)
    assert cli("run", write_job(folder / "job.yaml"), "-q") == 0
    return folder, heights


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).normal(0, 5, 100),
        [0, 0, 0, 0, 10],
        [0, 10, 10, 10],
        [0, 0, 0, 1, 2, 3],
        [1, 2],
        20210101 + np.arange(30),
        100_000 + np.arange(5) * 1e-3,
    ],
)
def test_ranges_hold_every_number_once_and_none_is_empty(values: Any) -> None:
    values = np.asarray(values, dtype=np.float64)
    legend, edges = ranges_of(values, "here")
    assert len(legend.classes) == len(edges) + 1 >= 2
    assert len({c.name for c in legend.classes}) == len(legend.classes)
    ends = [-np.inf, *edges, np.inf]
    counts = [int(((values >= a) & (values < b)).sum()) for a, b in itertools.pairwise(ends)]
    assert min(counts) > 0
    assert sum(counts) == len(values)
    np.testing.assert_array_equal(np.bincount(np.searchsorted(edges, values, side="right")), counts)


def test_many_numbers_fall_into_four_even_ranges() -> None:
    legend, edges = ranges_of(np.arange(100.0), "here")
    assert [c.name for c in legend.classes] == ["0 to 25", "25 to 50", "50 to 75", "75 to 99"]
    assert edges.tolist() == [25, 50, 75]


def test_one_number_alone_is_nothing_to_be_estimated() -> None:
    with pytest.raises(LabelError, match=r"a.gpkg: all labels are 3.5; a regression needs numbers that differ"):
        ranges_of(np.full(7, 3.5), "a.gpkg")


@pytest.mark.parametrize(
    ("column", "words"),
    [(["1.5", "tall", "low"], "found 'tall' .and 1 more"), ([1.0, np.inf], "found 'inf' .and 0 more")],
)
def test_what_is_no_number_is_refused(column: list[Any], words: str) -> None:
    with pytest.raises(LabelError, match=f"here: a regression needs numbers, {words}"):
        numbers_of(pd.Series(column), "here")


def test_figures_are_their_definitions() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(10, 3, 50)
    found = truth + rng.normal(0.5, 1, 50)
    assert {k: v for k, v in goodness(truth, found, 4).items() if k != "n"} == pytest.approx(
        goodness_by_hand(truth, found, 4)
    )
    # Of one number, or of numbers that are all the same, there is no variance to be explained.
    assert goodness(np.full(5, 2.0), np.arange(5.0), 1)["r2"] is None
    assert goodness(truth[:5], found[:5], 4)["adjusted_r2"] is None


@pytest.mark.parametrize("name", sorted(REGRESSION_LOSSES))
@pytest.mark.parametrize("centred", [False, True])
def test_the_loss_is_that_of_each_labelled_number(name: Any, centred: bool) -> None:
    g = torch.Generator().manual_seed(0)
    kind, settings = ("cnn", {"patch": 7, "filters": [2], "pool": 1}) if centred else ("mlp", {"hidden": [4]})
    torch.manual_seed(0)
    network = build(kind, settings, bands=2, dates=1, classes=1)
    training = TrainingSettings(loss=LossSettings(name=name, delta=0.5))
    task = RegressionTask(network, training, mean=10, std=2, centred=centred).eval()
    labels = torch.full((4, 7, 7), -1)
    numbers = torch.full((4, 7, 7), torch.nan)
    places = [(0, 3, 3), (2, 3, 3), (3, 3, 3)] if centred else [(0, 1, 2), (0, 6, 0), (2, 3, 3), (3, 0, 5)]
    for i, place in enumerate(places):
        labels[place], numbers[place] = i % 2, 8 + 2.5 * i
    batch = {
        "cube": torch.randn(4, 1, 2, 7, 7, generator=g),
        "valid": torch.ones(4, 1, 7, 7, dtype=torch.bool),
        "time": torch.zeros(4, 1),
        "labels": labels,
        "numbers": numbers,
    }
    with torch.no_grad():
        total, weight = task.loss(batch)
        found = network(batch["cube"], batch["valid"], batch["time"])[:, 0]
    off = np.array([float(found[p] - (numbers[p] - 10) / 2) for p in places])
    each = {
        "mean_squared": off**2,
        "absolute": np.abs(off),
        "huber": np.where(np.abs(off) <= 0.5, off**2 / 2, 0.5 * (np.abs(off) - 0.25)),
    }[name]
    assert int(weight) == len(places)
    assert float(total) == pytest.approx(each.sum(), rel=1e-4)


def test_the_job_names_the_losses_that_the_tasks_know() -> None:
    assert set(LOSSES["classification"]) == set(OF_CLASSES)
    assert set(LOSSES["regression"]) == set(REGRESSION_LOSSES)


def points(path: Path, rows: list[tuple[float, float, Any]]) -> Path:
    """Write points at pixels (row, column) with a field `height`."""
    places = [TRANSFORM * (column + 0.5, row + 0.5) for row, column, _ in rows]
    x, y = zip(*places, strict=True)
    frame = gpd.GeoDataFrame({"height": [h for *_, h in rows]}, geometry=gpd.points_from_xy(x, y), crs=CRS)
    frame.to_file(path)
    return path


def test_numbers_of_features_lie_where_they_are_and_those_outside_make_no_range(tmp_path: Path) -> None:
    inside = [(2, 3, 1.5), (4, 9, 2.5), (7, 7, 3.5), (9, 1, 4.5)]
    path = points(tmp_path / "a.gpkg", [*inside, *((100 + i, 5, 1000.0 + i) for i in range(20))])
    labels = open_labels(LabelSettings(path=str(path), field="height"), None, grid(12, 12), numeric=True)
    assert labels.numeric
    numbers = labels.numbers(whole(labels.geobox))
    assert numbers is not None
    wanted = np.full((12, 12), np.nan, np.float32)
    for row, column, height in inside:
        wanted[row, column] = height
    np.testing.assert_array_equal(numbers, wanted)
    assert [c.name for c in labels.legend.classes] == ["1.5 to 2.5", "2.5 to 3.5", "3.5 to 4.5", "4.5 to 4.5"]
    assert [(row["features"], row["outside"]) for row in labels.rows] == [(1, 0), (1, 0), (1, 0), (1, 20)]


def test_numbers_of_a_raster_are_scaled_as_it_says_and_zero_is_one_of_them(tmp_path: Path) -> None:
    stored = np.arange(12 * 12, dtype=np.int16).reshape(1, 12, 12) % 50
    stored[0, 3] = -1
    path = write(tmp_path / "h.tif", stored, nodata=-1, scales=(0.5,), offsets=(-3.0,))
    labels = open_labels(LabelSettings(path=str(path)), None, grid(12, 12), numeric=True)
    numbers = labels.numbers(whole(labels.geobox))
    wanted = np.where(stored[0] == -1, np.nan, stored[0] * 0.5 - 3)
    np.testing.assert_array_equal(numbers, wanted.astype(np.float32))
    codes = labels.read(whole(labels.geobox)).codes
    assert ((codes < 0) == np.isnan(wanted)).all()


def test_a_planted_relation_is_recovered(finished: tuple[Path, Any]) -> None:
    folder, heights = finished
    figures = json.loads((folder / "out" / "report" / "accuracy.json").read_text())
    # 0 is as good as the mean.
    assert figures["r2"] > 0.9
    assert figures["forest"]["r2"] > 0.9
    assert abs(figures["always_the_mean"]["r2"]) < 0.3
    assert figures["units"] == "m"
    assert figures["quantity"] == "height"
    assert figures["n"] == len(figures["pairs"])
    with rasterio.open(folder / "out" / "maps" / "value.tif") as raster:
        mapped = raster.read(1)
        assert raster.descriptions == ("height",)
        assert raster.units == ("m",)
        assert raster.dtypes == ("float32",)
        assert np.isnan(raster.nodata)
    assert np.isnan(mapped[:5, :5]).all()
    assert np.isnan(mapped).sum() == 25
    # Two thirds were labelled; the map is as good where nothing was stated.
    with rasterio.open(folder / "height.tif") as raster:
        unstated = np.isnan(raster.read(1)) & ~np.isnan(mapped)
    assert goodness(heights[unstated], mapped[unstated], 3)["r2"] > 0.9
    page = (folder / "out" / "report" / "index.html").read_text()
    for title in ("The map", "How far it is off", "The map of height"):
        assert f">{title}<" in page, title


def test_the_map_is_what_the_network_gives_however_it_is_cut(finished: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = finished
    bundle = Bundle.load(folder / "out" / "model")
    with rasterio.open(folder / "scene.tif") as raster:
        stored = raster.read().astype(np.float32)
    normal = (stored - np.array(bundle.mean)[:, None, None]) / np.array(bundle.std)[:, None, None]
    cube = torch.from_numpy(normal.astype(np.float32))[None, None]
    valid = torch.from_numpy(stored[0] != 0)[None, None]
    found = scores(prepare(bundle.network), cube, valid, torch.zeros(1, 1))[0, 0].numpy()
    wanted = np.where(stored[0] != 0, found * bundle.task["std"] + bundle.task["mean"], np.nan)
    options = ["--set", "predict={layers: [value], block: 16}"]
    assert cli("apply", folder / "out" / "model", folder / "scene.tif", "-o", tmp_path / "a", "-q", *options) == 0
    for out in (folder / "out", tmp_path / "a"):
        with rasterio.open(out / "maps" / "value.tif") as raster:
            np.testing.assert_allclose(raster.read(1), wanted, rtol=1e-5, atol=1e-4)


def test_classes_of_the_same_labels_are_other_samples(
    finished: tuple[Path, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    folder, _ = finished
    message = said(capfd, "run", folder / "job.yaml", "--set", "task=classification", "--set", "predict.layers=auto")
    assert "labels are whole numbers" in message or "'prepare' were made from other inputs" in message


def test_numbers_that_hold_for_a_year_are_learnt_from_its_images_with_patches(tmp_path: Path) -> None:
    write_season(tmp_path, side=24)
    table = pd.read_csv(tmp_path / "seasons.csv")
    table["yield"] = table["class"].map({"early": 3.0, "late": 6.0, "forest": 0.0}) + 0.1 * (table.index % 5)
    table.to_csv(tmp_path / "yields.csv", index=False)
    job = write_job(
        tmp_path / "job.yaml",
        imagery=[{"path": "season/S2_*.tif", "bands": {"red": 1, "nir": 2}, "date": "%Y%m%d"}],
        labels={"path": "yields.csv", "field": "yield", "units": "t/ha", "from": "from", "to": "to"},
        model={"name": "cnn", "patch": 3, "filters": [8], "pool": 1, "hidden": [8]},
        training={"epochs": 12, "seed": 2, "optimizer": {"lr": 0.02}, "track": ["csv"], "check_batch": False},
        folds={"method": "blocks", "size": 60, "k": 0},
        chips={"max_per_class": 60},
        predict={"layers": ["value"], "periods": "labels", "block": 16},
    )
    assert cli("run", job, "-q") == 0
    figures = json.loads((tmp_path / "out" / "report" / "accuracy.json").read_text())
    # Every place has another crop the year after: only images of the right year tell.
    assert figures["r2"] > 0.6
    maps = []
    for year in (2020, 2021):
        with rasterio.open(tmp_path / "out" / "maps" / f"{year}-01-01_{year}-12-31" / "value.tif") as raster:
            maps.append(raster.read(1))
    assert np.nanmean(np.abs(maps[0] - maps[1])) > 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            ["training.loss.name=dice"],
            "found dice, which is not made for a regression; allowed are auto, mean_squared,",
        ),
        (["training.loss.class_weights=balanced"], "class_weights: found balanced, and a regression has no classes"),
        (["predict.layers=[confidence]"], "'confidence' is no layer of a regression. It makes value, saliency"),
        (
            ["model={name: gan}"],
            "found gan, which learns classes from land without labels too, and a regression has none",
        ),
        (["classes=[{name: a}]"], "a regression estimates numbers, found `classes`"),
        (["labels={series: a.csv}", "imagery=[]"], "a regression needs imagery and labels on it"),
        (["labels=null"], "a regression needs `labels`, found none"),
        (["labels.path=even.tif"], "even.tif: all labels are 4; a regression needs numbers that differ"),
        (["labels.path=void.tif"], "void.tif: no number lies inside the raster"),
        (
            ["labels={path: text.csv, field: height, crs: 'EPSG:32633'}"],
            "found 'tall' .and 0 more values that are none",
        ),
    ],
)
def test_what_a_regression_cannot_do_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], changes: list[str], words: str
) -> None:
    write_scene(tmp_path / "scene.tif", side=24)
    write(tmp_path / "height.tif", np.full((1, 24, 24), np.nan, np.float32))
    write(tmp_path / "even.tif", np.full((1, 24, 24), 4, np.float32))
    write(tmp_path / "void.tif", np.full((1, 24, 24), np.nan, np.float32), nodata=np.nan)
    (tmp_path / "text.csv").write_text("x,y,height\n500015,4999985,3\n500055,4999945,tall\n")
    options = [o for change in changes for o in ("--set", change)]
    message = said(capfd, "check", write_job(tmp_path / "job.yaml"), *options)
    assert re.search(words, message), message

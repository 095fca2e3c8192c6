"""Labels that hold for a year, and a map of each: from images to change, through tables, and applied to new imagery."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import yaml
from conftest import CRS, TRANSFORM
from seasonal import DAYS, FOLDERS, MODEL, NAMES, YEARS, classes, cover, make, right, table, write_job
from test_cli import said
from test_run import cli


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images of two years, fields that hold for one each, and `job.yaml`, after `landweave run`."""
    folder = make(tmp_path_factory.mktemp("finished"))
    assert cli("run", folder / "job.yaml", "-q") == 0
    return folder


@pytest.fixture
def done(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to be worked on."""
    return Path(shutil.copytree(finished, tmp_path / "done"))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*.tif"))
    }


# -- a map of each period


def test_each_year_has_its_map(finished: Path) -> None:
    maps = finished / "out" / "maps"
    assert sorted(p.name for p in maps.iterdir()) == sorted(FOLDERS)
    for year, name in enumerate(FOLDERS):
        assert sorted(p.stem for p in (maps / name).glob("*.tif")) == [
            "classes", "dominant_band", "dominant_date", "saliency", "saliency_bands", "saliency_dates"
        ]  # fmt: skip
        assert right(maps / name / "classes.tif", year) > 0.95
        assert right(maps / name / "classes.tif", 1 - year) < 0.1
        item = json.loads((maps / name / "item.json").read_text())
        assert YEARS[year][0] < item["properties"]["start_datetime"][:10] < item["properties"]["end_datetime"][:10]
        assert item["properties"]["end_datetime"][:10] < YEARS[year][1]
        with rasterio.open(maps / name / "classes.tif") as raster:
            first, last = raster.tags()["dates"].split("/")
        assert YEARS[year][0] < first < last < YEARS[year][1]
        with rasterio.open(maps / name / "saliency_dates.tif") as raster:
            assert len(raster.descriptions) == 7
            assert [first, last] == [raster.descriptions[0], raster.descriptions[len(DAYS[year]) - 1]]
            # The second year has a date less than the network takes; it says nothing of the map.
            assert ("none" in raster.descriptions) == (year == 1)
            weight = np.nansum(raster.read(), axis=(1, 2))
            assert (weight > 0).tolist() == [True] * len(DAYS[year]) + [False] * (7 - len(DAYS[year]))
    accuracy = json.loads((finished / "out" / "report" / "accuracy.json").read_text())
    assert accuracy["overall"] > 0.95
    assert any("test pixels read back" in n and n.split()[0] == n.split()[2] for n in accuracy["notes"])


def test_what_changed_is_counted(finished: Path) -> None:
    report = finished / "out" / "report"
    areas, changes = table(report / "areas.csv"), table(report / "changes.csv")
    assert [(r["period"], r["class"]) for r in areas] == [(f, n) for f in FOLDERS for n in NAMES]
    before, after = (classes(finished / "out" / "maps" / f / "classes.tif") for f in FOLDERS)
    expected = {
        (a, b): int(((before == i + 1) & (after == j + 1)).sum())
        for i, a in enumerate(NAMES)
        for j, b in enumerate(NAMES)
    }
    assert {(r["class_before"], r["class_after"]): int(r["pixels"]) for r in changes} == {
        k: n for k, n in expected.items() if n
    }
    assert {(r["before"], r["after"]) for r in changes} == {FOLDERS}
    # Nearly every field is another crop the year after.
    assert sum(n for (a, b), n in expected.items() if a != b) > 1400
    page = (report / "index.html").read_text(encoding="utf-8")
    assert "Period by period" in page
    assert "2019-09-01 to 2020-08-31" in page
    assert "2020-09-01 to 2021-08-31" in page


def test_a_second_run_does_nothing(done: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = digests(done / "out" / "maps")
    assert cli("run", done / "job.yaml") == 0
    # Chips, model, and a map of each year.
    assert capfd.readouterr().err.count("up to date") == 5
    assert digests(done / "out" / "maps") == before


def test_one_period_is_mapped_where_maps_lie(done: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wanted = f"predict={{period: [{', '.join(YEARS[0])}], layers: [classes]}}"
    assert cli("run", done / "job.yaml", "-q", "--set", wanted) == 0
    maps = done / "out" / "maps"
    np.testing.assert_array_equal(classes(maps / "classes.tif"), classes(maps / FOLDERS[0] / "classes.tif"))
    # What belonged to several maps is not left beside what belongs to one.
    assert "period" not in table(done / "out" / "report" / "areas.csv")[0]
    assert not (done / "out" / "report" / "changes.csv").exists()
    assert "Period by period" not in (done / "out" / "report" / "index.html").read_text(encoding="utf-8")
    capfd.readouterr()
    # By default it is the latest in which labels hold, and it is said.
    assert cli("predict", done / "job.yaml", "--overwrite", "--set", "predict={layers: [classes]}") == 0
    assert "the latest is mapped, 2020-09-01 to 2021-08-31" in " ".join(capfd.readouterr().err.split())
    np.testing.assert_array_equal(classes(maps / "classes.tif"), classes(maps / FOLDERS[1] / "classes.tif"))


def test_a_period_without_images_or_with_too_many_is_refused(done: Path, capfd: pytest.CaptureFixture[str]) -> None:
    message = said(capfd, "predict", done / "job.yaml", "--set", "predict={period: [2010-01-01, 2010-12-31]}")
    assert "there is no image from 2010-01-01 to 2010-12-31: it reaches from 2019-09-21 to" in message
    message = said(capfd, "predict", done / "job.yaml", "--set", "predict={period: [2019-09-01, 2021-08-31]}")
    assert "there are 13 dates from 2019-09-01 to 2021-08-31, and the network takes 7" in message


def test_disturbed_it_goes_on_to_the_same_maps(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workflows.maptask import MapTask

    options = ["-q", "--set", "predict.block=16", "--set", "predict.retries=0"]
    assert cli("predict", done / "job.yaml", "--overwrite", *options) == 0
    maps = done / "out" / "maps"
    before = digests(maps)
    shutil.rmtree(maps)
    compute, calls = MapTask.compute, []

    def failing(self: Any, block: Any, *rest: Any) -> Any:
        calls.append(block.index)
        if block.index == 5 and calls.count(5) > 1:
            raise MemoryError("no room")
        return compute(self, block, *rest)

    monkeypatch.setattr(MapTask, "compute", failing)
    assert cli("predict", done / "job.yaml", *options) == 1
    assert sorted(p.parent.name for p in maps.rglob("classes.tif")) == [FOLDERS[0]]
    monkeypatch.undo()
    assert cli("predict", done / "job.yaml", *options, "--set", "compute.threads=3") == 0
    assert digests(maps) == before


def test_the_order_of_files_does_not_matter(done: Path) -> None:
    paths = sorted(str(p) for p in (done / "images").iterdir())
    shuffled = [paths[i] for i in np.random.default_rng(0).permutation(len(paths))]
    write_job(done / "job.yaml", imagery=[{"path": shuffled, "date": "%Y%m%d"}], output="other")
    assert cli("train", done / "job.yaml", "-q") == 0
    bundles = [json.loads((done / name / "model" / "bundle.json").read_text()) for name in ("out", "other")]
    assert bundles[0]["checksum"] == bundles[1]["checksum"]


# -- tables


def test_a_table_of_the_labelled_places(finished: Path) -> None:
    assert cli("extract", finished / "job.yaml", "-o", finished / "series.csv", "-q") == 0
    series, samples = pd.read_csv(finished / "series.csv"), pd.read_csv(finished / "series.samples.csv")
    # A field is of 4 x 4 pixels, in two years; in the first corner one pixel of the nine without data is labelled.
    assert len(samples) == 2 * (25 * 16 - 1)
    assert len(series) == (25 * 16 - 1) * (7 + 6)
    assert list(series) == ["sample_id", "date", "red", "nir"]
    assert list(samples) == ["sample_id", "longitude", "latitude", "label", "fold", "from", "to"]
    assert set(samples["fold"]) == {"train", "val", "test"}
    places = gpd.GeoSeries(gpd.points_from_xy(samples["longitude"], samples["latitude"]), crs="EPSG:4326").to_crs(CRS)
    for i in range(0, len(samples), 97):
        sample, place = samples.iloc[i], places.iloc[i]
        x, y = (place.x - TRANSFORM.c) / 10, (TRANSFORM.f - place.y) / 10
        assert (x % 1, y % 1) == (pytest.approx(0.5, abs=1e-3), pytest.approx(0.5, abs=1e-3))
        year = [first for first, _ in YEARS].index(sample["from"])
        assert sample["to"] == YEARS[year][1]
        assert sample["label"] == NAMES[cover(year)[int(y), int(x)]]
        rows = series[series["sample_id"] == sample["sample_id"]]
        assert len(rows) == len(DAYS[year])
        for row in rows.itertuples():
            with rasterio.open(finished / "images" / f"s_{row.date.replace('-', '')}.tif") as raster:
                assert raster.read()[:, int(y), int(x)].tolist() == [row.red, row.nir]


def test_a_table_trains_a_model_that_maps_rasters(done: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli("extract", done / "job.yaml", "-o", done / "series.parquet") == 0
    told = " ".join(capfd.readouterr().err.split())
    labels = "{series: series.parquet, samples: series.samples.csv, field: label, from: from, to: to, fold: fold}"
    assert f"labels: {labels}" in told
    job = done / "table.yaml"
    training = yaml.safe_load((done / "job.yaml").read_text())["training"]
    job.write_text(yaml.safe_dump({"labels": yaml.safe_load(labels), "output": "table", "model": MODEL,
                                   "training": training, "compute": {"threads": 1}}))  # fmt: skip
    assert cli("check", job, "-q") == 0
    assert cli("run", job) == 0
    told = " ".join(capfd.readouterr().err.split())
    assert "the series come without imagery: nothing is mapped (landweave apply maps rasters)" in told
    accuracy = json.loads((done / "table" / "report" / "accuracy.json").read_text())
    assert accuracy["overall"] > 0.95
    assert "the job has no imagery and maps nothing: there are no areas" in accuracy["notes"]
    assert (done / "table" / "report" / "index.html").is_file()
    assert not list((done / "table").rglob("*.tif"))
    assert cli("train", job) == 0
    assert capfd.readouterr().err.count("up to date") == 2
    message = said(capfd, "predict", job)
    assert "trains on a table of series and has no imagery" in message
    assert f"landweave apply {done / 'table' / 'model'} RASTER..." in message
    assert "no imagery" in said(capfd, "extract", job)
    # As many dates as a year has, and no more.
    rasters = sorted((done / "images").iterdir())
    dated = ["--set", "imagery.0.date='%Y%m%d'"]
    message = said(capfd, "apply", done / "table" / "model", *rasters, "-o", done / "map", *dated)
    assert "the model was trained on 7 dates, the imagery has 13; give as many or fewer" in message
    for year, (first, last) in enumerate(YEARS):
        period = ["--set", f"predict={{period: [{first}, {last}], layers: [classes]}}", "--overwrite", "-q"]
        assert cli("apply", done / "table" / "model", *rasters, "-o", done / "map", *dated, *period) == 0
        found = classes(done / "map" / "maps" / "classes.tif")
        assert (found == classes(done / "out" / "maps" / FOLDERS[year] / "classes.tif")).mean() > 0.97


def test_folds_of_a_table_are_those_of_the_job(done: Path) -> None:
    command = ["extract", done / "job.yaml", "-o", done / "series.csv", "-q", "--set"]
    assert cli(*command, "folds={k: 3}") == 0
    samples = pd.read_csv(done / "series.samples.csv")
    assert sorted(samples["fold"].unique()) == ["fold 1", "fold 2", "fold 3"]
    # A field is in one fold, in both years.
    of = samples.groupby([samples["longitude"].round(7), samples["latitude"].round(7)])["fold"]
    assert (of.size() == 2).all()
    assert all(len(set(folds)) == 1 for _, folds in of)


def test_a_network_that_looks_around_cannot_learn_from_a_table(done: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli("extract", done / "job.yaml", "-q") == 0
    values = {
        "labels": {"series": "out/series.parquet", "samples": "out/series.samples.csv"},
        "model": {"name": "unet"},
    }
    (done / "table.yaml").write_text(yaml.safe_dump(values))
    message = said(capfd, "train", done / "table.yaml")
    assert "the network 'unet' looks at the land around a pixel" in message
    assert "lstm" in message


def test_a_table_is_extracted_where_there_are_dates(done: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "expected a table as .parquet or .csv, found" in said(
        capfd, "extract", done / "job.yaml", "-o", done / "a.xlsx"
    )
    first = sorted((done / "images").iterdir())[0]
    write_job(done / "one.yaml", imagery=[{"path": str(first)}], labels={"path": "fields.gpkg", "field": "crop"},
              predict={"layers": ["classes"]}, output="one")  # fmt: skip
    assert "the imagery has no dates, so there are no series" in said(capfd, "extract", done / "one.yaml")


# -- new imagery


def test_a_model_is_applied_to_periods(done: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["apply", done / "out" / "model", *sorted((done / "images").iterdir()), "-o", done / "map"]
    dated = ["--set", "imagery.0.date='%Y%m%d'"]
    periods = "[" + ", ".join(f"[{a}, {b}]" for a, b in YEARS) + "]"
    layers = ["--set", "predict.layers=[classes]"]
    assert cli(*command, *dated, *layers, "-q", "--set", f"predict.periods={periods}") == 0
    for name in FOLDERS:
        np.testing.assert_array_equal(
            classes(done / "map" / "maps" / name / "classes.tif"), classes(done / "out" / "maps" / name / "classes.tif")
        )
    message = said(capfd, *command, *dated, "--set", "predict.periods=labels")
    assert "`apply` knows no labels; give the periods as [[first day, last day], ...]" in message
    message = said(capfd, *command, *dated, "--set", "predict.period=[2030-01-01, 2030-12-31]")
    assert "there is no image from 2030-01-01 to 2030-12-31" in message

"""What decided a pixel, through a job: tables, pictures and a page, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import pytest
import rasterio
import torch
from conftest import CRS, TRANSFORM, write_chips, write_job, write_labels, write_plots, write_scene, write_season
from shapely.geometry import MultiPoint, Point, box
from test_run import cli

from pipeline.errors import LandweaveError
from pipeline.samples.points import read_points
from tests.explained import texts
from tests.places import grid
from workflows.console import Console
from workflows.context import Context
from workflows.load import load_job
from workflows.points import explain_points
from workflows.train import trained

torch.set_num_threads(1)


def asks(path: Path, places: dict[str, tuple[float, float]], crs: str = "EPSG:4326") -> Path:
    """Write points given by row and column of the scene."""
    points = [Point(TRANSFORM.c + 10 * x, TRANSFORM.f - 10 * y) for y, x in places.values()]
    gpd.GeoDataFrame({"name": list(places)}, geometry=points, crs=CRS).to_crs(crs).to_file(path)
    return path


def explain(folder: Path, file: Path, *overrides: str, job: str = "job.yaml") -> Path:
    """Explain points as the command does; return the folder of what was made."""
    context = Context(load_job(folder / job, overrides), Console(quiet=True))
    made_files = explain_points(context, trained(context), file)
    assert all(path.is_file() for _, path in made_files)
    return folder / "out" / "report" / "points"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a job whose map is made by a U-Net."""
    folder = tmp_path_factory.mktemp("points")
    write_scene(folder / "scene.tif")
    write_labels(folder / "fields.gpkg")
    network = {"name": "unet", "width": 4, "depth": 1}
    training = {"epochs": 1, "track": ["csv"], "check_batch": False}
    write_job(folder / "job.yaml", model=network, training=training, predict={"layers": ["classes", "confidence"]})
    assert cli("train", folder / "job.yaml", "-q") == 0
    assert cli("predict", folder / "job.yaml", "-q") == 0
    return folder


def test_points_are_explained(mapped: Path, tmp_path: Path) -> None:
    places = {"a <b>": (6.2, 30.7), "edge": (95.9, 95.9), "nodata": (2.5, 2.5), "far": (50, -40), "mid": (41.6, 17.2)}
    file = asks(tmp_path / "points.gpkg", places)
    out = explain(mapped, file, "saliency.method=[integrated_gradients, occlusion_patch]", "saliency.steps=4")
    found = rows(out / "points.csv")
    kept = {"a <b>": 1, "edge": 2, "mid": 5}
    assert [(r["name"], int(r["point"])) for r in found] == [(n, k) for n, k in kept.items() for _ in range(2)]
    with (
        rasterio.open(mapped / "out/maps/classes.tif") as raster,
        rasterio.open(mapped / "out/maps/confidence.tif") as sure,
    ):
        codes, confidence = raster.read(1), sure.read(1) * sure.scales[0]
        names = {c["code"]: c["name"] for c in json.loads(raster.tags()["classes"])}
    for row in found:
        y, x = places[row["name"]]
        assert (int(row["row"]), int(row["column"])) == (int(y), int(x))
        assert float(row["x"]) == pytest.approx(TRANSFORM.c + 10 * x, abs=0.01)
        assert float(row["y"]) == pytest.approx(TRANSFORM.f - 10 * y, abs=0.01)
        assert row["class"] == row["target"] == names[codes[int(y), int(x)]]
        assert float(row["probability"]) == pytest.approx(confidence[int(y), int(x)], abs=0.006)
        assert float(row["second_probability"]) <= float(row["probability"])
        assert row["second"] != row["class"]
    parts = pd.read_csv(out / "parts.csv")
    # A single date, and of patches nothing is told apart.
    assert set(parts.method) == {"integrated_gradients"}
    assert parts.groupby(["point", "axis"]).share.sum().to_numpy() == pytest.approx(1, abs=1e-4)
    bands = parts[(parts.axis == "band") & (parts.point == 5)]
    assert list(bands.part) == ["green", "red", "nir"]
    assert bands.part[bands.share.idxmax()] == found[4]["band"]
    assert sorted(p.name for p in out.glob("point-*")) == ["point-001.svg", "point-002.svg", "point-005.svg"]
    assert "integrated gradients" in texts((out / "point-005.svg").read_text())
    page = (out / "index.html").read_text()
    assert page.count('<svg role="img"') == 3
    assert "a &lt;b&gt;" in page
    assert "<b>" not in page
    assert "point 3 (nodata) lies on a pixel without any valid value" in page
    assert "point 4 (far) lies outside the map" in page
    # What an earlier file asked is no longer there.
    explain(mapped, asks(tmp_path / "one.geojson", {"mid": (41.6, 17.2)}))
    assert [p.name for p in out.glob("point-*")] == ["point-001.svg"]
    assert len(rows(out / "points.csv")) == 1


def test_a_table_of_points_with_a_projected_crs_takes_that_of_the_labels(tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text(f"x,y\n{TRANSFORM.c + 55},{TRANSFORM.f - 25}\n")
    points, left = read_points(tmp_path / "points.csv", "EPSG:32633", grid(), 200)
    assert [(p.row, p.column, p.number, p.name) for p in points] == [(2, 5, 1, "")]
    assert left == []
    with pytest.raises(
        LandweaveError, match=r"points.csv states no CRS; write it again with one, or give a CSV with lon"
    ):
        read_points(tmp_path / "points.csv", None, grid(), 200)


AT = (TRANSFORM.c + 55, TRANSFORM.f - 25)
BAD = [
    ([box(*AT, AT[0] + 30, AT[1] + 30)], r"expected points, .*feature 1 of .* 1 that are something else \(Polygon\)"),
    ([Point(AT), MultiPoint([AT, (AT[0] + 1, AT[1])])], r"feature 2 of .* 1 that are something else \(MultiPoint\)"),
    ([Point(AT)] * 4, r"holds 4 points, and a picture each is made of 3 at most"),
    ([Point(0, 0)], r"no point of .* lies on the map\n  point 1 \(p\) lies outside the map, at 0, 0 in EPSG:32633\n"),
    ([], r"holds no points"),
    ([None], r"point 1 \(p\) has no coordinates"),
]


@pytest.mark.parametrize(("shapes", "message"), BAD)
def test_files_that_ask_nothing_are_refused(tmp_path: Path, shapes: list[Any], message: str) -> None:
    path = tmp_path / "bad.gpkg"
    gpd.GeoDataFrame({"id": ["p"] * len(shapes)}, geometry=shapes, crs=CRS).to_file(path)
    with pytest.raises(LandweaveError, match=r"^--at: (.|\n)*" + message):
        read_points(path, None, grid(), 3)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    asks(tmp_path / "points.gpkg", {"a": (1, 1)})
    with pytest.raises(LandweaveError, match=r"^--at: there is no file .*point.gpkg; did you mean 'points.gpkg'\?"):
        read_points(tmp_path / "point.gpkg", None, grid(), 3)
    asks(tmp_path / "more.geojson", {"a": (1, 1)})
    gpd.read_file(tmp_path / "more.geojson").to_file(tmp_path / "points.gpkg", layer="second")
    with pytest.raises(LandweaveError, match=r"^--at: .* has 2 layers, and points are read from one.*: points, second"):
        read_points(tmp_path / "points.gpkg", None, grid(), 3)
    (tmp_path / "a.txt").write_text("north,south\n1,2\n")
    with pytest.raises(LandweaveError, match=r"expected columns x, y .* or lon, lat; found north, south"):
        read_points(tmp_path / "a.txt", None, grid(), 3)
    write_scene(tmp_path / "scene.tif", side=12)
    with pytest.raises(LandweaveError, match=r"^--at: .*scene.tif cannot be read as vector data"):
        read_points(tmp_path / "scene.tif", None, grid(), 3)


def test_points_on_nodata_alone_are_refused(mapped: Path, tmp_path: Path) -> None:
    with pytest.raises(
        LandweaveError, match=r"no point of .* can be explained\n  point 1 \(n\) lies on a pixel without any"
    ):
        explain(mapped, asks(tmp_path / "points.gpkg", {"n": (2.5, 2.5)}))


def test_every_mapped_period_has_a_row(tmp_path: Path) -> None:
    write_season(tmp_path, side=24)
    mask = {"band": 3, "exclude": [1]}
    write_job(
        tmp_path / "job.yaml",
        imagery=[{"path": "season/S2_*.tif", "bands": {"red": 1, "nir": 2}, "date": "%Y%m%d", "mask": mask}],
        labels={"path": "seasons.csv", "field": "class", "from": "from", "to": "to"},
        model={"name": "lstm", "hidden": 4},
        training={"epochs": 1, "track": ["csv"]},
        predict={"periods": "labels"},
        saliency={"method": "occlusion_date"},
    )
    assert cli("train", tmp_path / "job.yaml", "-q") == 0
    out = explain(tmp_path, asks(tmp_path / "points.gpkg", {"a": (5.5, 5.5), "b": (20.2, 11.7)}))
    found = rows(out / "points.csv")
    years = ["2020-01-01 to 2020-12-31", "2021-01-01 to 2021-12-31"]
    assert [(r["name"], r["period"]) for r in found] == [(n, y) for n in "ab" for y in years]
    assert all(r["date"].startswith(r["period"][:4]) for r in found)
    assert sorted(p.name for p in out.glob("*.svg")) == [f"point-00{i}-{y[:10]}.svg" for i in (1, 2) for y in years]
    parts = pd.read_csv(out / "parts.csv")
    assert set(parts.axis) == {"date"}
    assert parts.groupby(["point", "period"]).size().tolist() == [12] * 4


def test_the_estimate_of_a_regression_is_that_of_its_map(tmp_path: Path) -> None:
    write_scene(tmp_path / "scene.tif", side=36)
    write_plots(tmp_path / "plots.csv", tmp_path / "scene.tif", number=40)
    write_job(
        tmp_path / "job.yaml",
        task="regression",
        labels={"path": "plots.csv", "field": "height", "units": "m", "crs": CRS},
        predict={"layers": ["value"]},
    )
    assert cli("train", tmp_path / "job.yaml", "-q") == 0
    assert cli("predict", tmp_path / "job.yaml", "-q") == 0
    out = explain(tmp_path, asks(tmp_path / "points.gpkg", {"a": (20.4, 11.3)}))
    (row,) = rows(out / "points.csv")
    with rasterio.open(tmp_path / "out" / "maps" / "value.tif") as raster:
        assert float(row["estimate"]) == pytest.approx(float(raster.read(1)[20, 11]), rel=1e-4)
    assert (row["quantity"], row["signed"], row["share_here"]) == ("height", "no", "1")
    assert "class" not in row
    assert "Point 1 (a)" in (out / "index.html").read_text()


def test_a_job_without_imagery_has_no_pixels(tmp_path: Path) -> None:
    write_chips(tmp_path / "chips", side=3, per_class=8)
    write_job(tmp_path / "job.yaml", imagery=[], labels={"chips": "chips"}, model={"name": "mlp", "hidden": [4]})
    assert cli("train", tmp_path / "job.yaml", "-q") == 0
    with pytest.raises(LandweaveError, match=r"has no imagery; map rasters with its model: landweave apply"):
        explain(tmp_path, asks(tmp_path / "points.gpkg", {"a": (1, 1)}))

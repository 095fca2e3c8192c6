"""What decided a pixel: exact for this very pixel, and told in tables, pictures and a page."""

from __future__ import annotations

import csv
import datetime
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
from conftest import CRS, TRANSFORM, write_chips, write_job, write_labels, write_plots, write_scene, write_season
from shapely.geometry import MultiPoint, Point, box
from test_run import cli

from models.saliency.methods import BY_GRADIENT, SIGNED
from models.saliency.reduce import dominant, reduce
from models.settings import SaliencySettings
from pipeline.errors import LandweaveError
from pipeline.grid import Window
from pipeline.samples.points import Point as Asked
from pipeline.samples.points import read_points
from tests.places import MadeUpCube, grid
from tests.test_bundle import bundle as bundle_of
from tests.test_networks import made
from workflows.console import Console
from workflows.context import Context
from workflows.explainers import explainers_of
from workflows.load import load_job
from workflows.ownpixel import story_of
from workflows.pointpicture import point_picture, shown_bands
from workflows.points import explain_points
from workflows.scoring import scorer_of
from workflows.train import trained
from workflows.windows import window_side

torch.set_num_threads(1)

METHODS = [*BY_GRADIENT, "occlusion_band", "occlusion_date", "occlusion_patch"]
NETWORKS = [("mlp", {}), ("unet", {"width": 2, "depth": 1}), ("unet", {"width": 2, "depth": 2})]
HEIGHT, WIDTH = 21, 19
DATES = (datetime.date(2021, 1, 5), datetime.date(2021, 1, 21))


def model(name: str, settings: dict[str, Any], **changes: Any) -> Any:
    """Return a bundle with two bands and two dates whose statistics fit the made-up cube."""
    values: dict[str, Any] = {
        "network": made(name, settings, dates=2),
        "dates": [d.isoformat() for d in DATES],
        "time": [0.0, 16.0],
        "mean": [500.0, 600.0],
        "std": [200.0, 300.0],
        "legend": [
            {"name": n, "code": i, "color": "#000000", "values": [n]}
            for i, n in enumerate(("Wald", "Straße", "Wasser"), 1)
        ],
    }
    return bundle_of(**values | changes)


def cube() -> MadeUpCube:
    """Return imagery with a corner and a stripe where nothing is seen."""
    unseen = (Window(y=0, x=5, height=3, width=4), Window(y=12, x=0, height=1, width=WIDTH))
    return MadeUpCube(grid(HEIGHT, WIDTH), dates=DATES, invalid=unseen)


def asked(row: int, column: int) -> Asked:
    return Asked(1, "", 0.0, 0.0, row, column)


def whole_scene(bundle: Any, explainer: Any, row: int, column: int) -> tuple[Any, Any, Any, int]:
    """Return attribution, scores and validity of the whole scene for the target of one pixel, and the margin around it."""
    network = bundle.network
    margin = network.halo + network.stride
    side = -(-(max(HEIGHT, WIDTH) + 2 * margin) // network.stride) * network.stride
    scorer = scorer_of(bundle)
    tile = cube().read(Window(y=-margin, x=-margin, height=side, width=side))
    x = scorer.tensors(tile.values[None], tile.valid[None], cube().time[None])
    where = torch.zeros(1, side, side, dtype=torch.bool)
    where[0, row + margin, column + margin] = True
    return (*explainer(scorer.network, *x, where, [(-margin, -margin)]), x[1], margin)


@pytest.mark.parametrize(("name", "settings"), NETWORKS)
def test_what_decided_a_pixel_is_the_same_as_in_the_whole_scene(name: str, settings: dict[str, Any]) -> None:
    bundle = model(name, settings)
    network = bundle.network
    # Patches so large that there are few passes where the network sees far.
    patch, step = (3, 2) if network.halo < 10 else (20, 18)
    own = SaliencySettings(method=METHODS, samples=2, steps=3, patch=patch, step=step)
    explainers = explainers_of(own, bundle)
    assert [e.method for e in explainers] == METHODS
    # The corners, and every phase of the stride.
    places = [(0, 0), (HEIGHT - 1, WIDTH - 1)] + [(8 + p, 8 + 3 * p % network.stride) for p in range(1, network.stride)]
    scorer = scorer_of(bundle)
    for row, column in places:
        story = story_of(scorer, bundle, explainers, cube(), asked(row, column), "")
        assert story is not None
        assert story.values.shape[-1] == window_side(network)
        top, left = row - story.own[0], column - story.own[1]
        for explainer, reason in zip(explainers, story.reasons, strict=True):
            attribution, scores, valid, margin = whole_scene(bundle, explainer, row, column)
            n = len(reason.pixel)
            here = slice(top + margin, top + margin + n), slice(left + margin, left + margin + n)
            signed = explainer.method in SIGNED
            expected = reduce(attribution, "pixel", signed=signed)[0].masked_fill(~valid[0].any(0), torch.nan)[here]
            assert np.allclose(reason.pixel, expected.numpy(), atol=1e-5, rtol=0, equal_nan=True)
            assert reason.signed == signed
            for axis, parts in reason.parts.items():
                value = reduce(attribution, axis, signed=signed)[0].sum((1, 2)).numpy()
                assert np.allclose(parts.value, value, atol=1e-4, rtol=1e-5)
                assert parts.share.sum() == pytest.approx(1)
                assert parts.share.tolist() == pytest.approx((abs(value) / abs(value).sum()).tolist(), abs=1e-4)
            if explainer.method != "occlusion_patch":
                size = attribution.abs().sum((1, 2))[0]
                share = float(size[row + margin, column + margin] / size.sum())
                assert reason.here == pytest.approx(share, abs=1e-4)
            shares = torch.softmax(scores[0, :, row + margin, column + margin] / bundle.temperature, 0)
            names = [c["name"] for c in bundle.legend]
            assert story.ranking[0][0] == names[int(shares.argmax())] == reason.target
            assert dict(story.ranking) == pytest.approx(dict(zip(names, shares.tolist(), strict=True)), abs=1e-5)


def test_where_nothing_was_seen_there_is_no_story() -> None:
    bundle = model("unet", {"width": 2, "depth": 1})
    explainers = explainers_of(SaliencySettings(), bundle)
    assert story_of(scorer_of(bundle), bundle, explainers, cube(), asked(1, 6), "") is None


def test_targets_are_named() -> None:
    bundle = model("mlp", {})
    story = {}
    for target in ("margin", "Wasser"):
        explainers = explainers_of(SaliencySettings(method="occlusion_band", target=target), bundle)
        story[target] = story_of(scorer_of(bundle), bundle, explainers, cube(), asked(9, 9), "")
    ranking = story["margin"].ranking
    assert story["margin"].reasons[0].target == f"{ranking[0][0]} against {ranking[1][0]}"
    assert story["Wasser"].reasons[0].target == "Wasser"
    assert story["Wasser"].reasons[0].unit == "probability"


def test_values_are_in_the_units_of_the_imagery() -> None:
    bundle = model("mlp", {})
    story = story_of(scorer_of(bundle), bundle, explainers_of(SaliencySettings(), bundle), cube(), asked(4, 3), "")
    read = cube().read(Window(y=4, x=3, height=1, width=1))
    assert np.allclose(story.values, read.values, atol=1e-3)


def test_the_strongest_band_and_date_are_those_of_the_dominant_layers() -> None:
    bundle = model("mlp", {})
    own = SaliencySettings(method=["integrated_gradients", "gradient"])
    explainers, scorer = explainers_of(own, bundle), scorer_of(bundle)
    for explainer, i in zip(explainers, range(2), strict=True):
        tile = cube().read(Window(y=0, x=0, height=HEIGHT, width=WIDTH))
        x = scorer.tensors(tile.values[None], tile.valid[None], cube().time[None])
        everywhere = torch.ones(1, HEIGHT, WIDTH, dtype=torch.bool)
        attribution, _ = explainer(scorer.network, *x, everywhere, [(0, 0)])
        for axis in ("band", "date"):
            layer = dominant(reduce(attribution, axis, signed=explainer.signed))[0]
            for row, column in ((4, 3), (15, 11), (20, 18)):
                story = story_of(scorer, bundle, explainers, cube(), asked(row, column), "")
                assert story.reasons[i].parts[axis].order[0] == int(layer[row, column]) - 1


def test_the_bands_of_a_picture() -> None:
    assert shown_bands(["Blue", "green", "red", "nir"]) == (2, 1, 0)
    assert shown_bands(["b1", "b2", "b3"]) == (0, 1, 2)
    assert shown_bands(["ndvi", "evi"]) == (0, 0, 0)


def texts(picture: str) -> list[str]:
    """Return what is written in a picture; refuses SVG that is not well-formed."""
    return [e.text or "" for e in ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]


def test_a_picture_shows_what_a_method_tells_apart() -> None:
    bundle = model("unet", {"width": 2, "depth": 1})
    drawn = {}
    for method in ("gradient", "occlusion_date", "occlusion_patch"):
        explainers = explainers_of(SaliencySettings(method=method, patch=3, step=2), bundle)
        story = story_of(scorer_of(bundle), bundle, explainers, cube(), asked(9, 9), "")
        drawn[method] = str(point_picture(story, ["植被_1", "$nir"], bundle.network.radius, 10.0, "m"))
    found = {method: texts(picture) for method, picture in drawn.items()}
    n = window_side(bundle.network)
    for method, words in found.items():
        assert {f"{n} px = {10 * n:,} m", "what the pixel looked like"} <= set(words)
        assert ("bands" in words) == (method == "gradient")
        assert bool({"dates", "occlusion of dates"} & set(words)) == (method != "occlusion_patch")
        # An image of the window, and beside it the map of what counts where there is one, with the bar of its colours.
        assert drawn[method].count("<image") == (1 if method == "occlusion_date" else 3)
    assert {"$nir", "植被_1"} <= set(found["gradient"])


# The whole way, through a job.


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

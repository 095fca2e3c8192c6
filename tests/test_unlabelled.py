"""Maps without labels: places drawn over the land, planted anomalies found, clusters that agree with the cover."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import yaml
from conftest import cells, write_scene
from oracles_figures import nearest_centre
from rasters import grid
from sklearn.metrics import adjusted_rand_score, roc_auc_score
from test_cli import said
from test_run import cli

from models.bundle import Bundle
from models.inference import prepare, scores
from pipeline.errors import RequestError
from pipeline.grid import Window, whole
from pipeline.samples.labels import IGNORE
from pipeline.samples.unlabelled import draw_places
from workflows.finishing import clustered
from workflows.products.code import Code, quantile
from workflows.products.product import product_of

SIDE = 96
LAYERS = ["classes", "reconstruction_error", "anomaly", "embedding"]
JOB: dict[str, Any] = {
    "task": "reconstruction",
    "imagery": [{"path": "scene.tif"}],
    "output": "out",
    "reconstruction": {"clusters": 3},
    "chips": {"samples": 3000},
    "model": {"name": "autoencoder", "code": 1, "width": 16},
    "training": {"epochs": 10, "optimizer": {"lr": 0.01}, "track": ["csv"], "check_batch": False},
    "predict": {"layers": LAYERS},
}


def write_job(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump(JOB | changes))
    return path


def planted() -> Any:
    """Return where the scene is like none of its covers, (h, w) bool: one pixel in a hundred."""
    strange = np.random.default_rng(3).random((SIDE, SIDE)) < 0.01
    strange[:5, :5] = False
    return strange


def write_strange_scene(path: Path) -> Path:
    """Write the scene of three covers with planted pixels, each of a colour of its own."""
    write_scene(path, side=SIDE)
    with rasterio.open(path, "r+") as raster:
        values = raster.read()
        values[:, planted()] = np.random.default_rng(4).integers(1, 3000, (3, int(planted().sum())))
        raster.write(values)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a scene and a finished run on it."""
    folder = tmp_path_factory.mktemp("unlabelled")
    write_strange_scene(folder / "scene.tif")
    assert cli("run", write_job(folder / "job.yaml"), "-q") == 0
    return folder


def layer(folder: Path, name: str) -> Any:
    with rasterio.open(folder / "maps" / f"{name}.tif") as raster:
        return raster.read()


def test_places_are_all_there_are_or_as_many_as_asked_for() -> None:
    geobox = grid(70, 45)
    everything = draw_places(geobox, cell=8, number=1000, seed=0)
    assert sorted(map(tuple, everything.cells)) == [(y, x) for y in range(9) for x in range(6)]
    some = draw_places(geobox, cell=1, number=200, seed=0)
    assert len({tuple(c) for c in some.cells}) == 200
    assert (some.cells >= 0).all()
    assert (some.cells < (70, 45)).all()
    np.testing.assert_array_equal(some.cells, draw_places(geobox, cell=1, number=200, seed=0).cells)
    assert not np.array_equal(some.cells, draw_places(geobox, cell=1, number=200, seed=1).cells)


def test_places_of_a_vast_raster_are_spread_over_it_and_never_listed() -> None:
    geobox = grid(100_000, 90_000)
    found = draw_places(geobox, cell=1, number=5000, seed=0).cells
    assert len(found) == 5000
    quarter = found // (25_000, 22_500)
    counts = np.bincount(quarter[:, 0] * 4 + quarter[:, 1], minlength=16)
    # Drawn from 256 squares of land; a sixteenth has 16 of them.
    assert counts.min() > 0
    assert counts.max() < 1000


@pytest.mark.parametrize(("cell", "size"), [(8, 16), (8, 20), (8, 3), (1, 7), (5, 5)])
def test_windows_are_those_that_hold_places_and_reading_them_gives_each_once(cell: int, size: int) -> None:
    geobox = grid(50, 37)
    places = draw_places(geobox, cell=cell, number=9, seed=2)
    by_hand = np.full((50, 37), IGNORE)
    for y, x in places.cells:
        by_hand[y * cell : (y + 1) * cell, x * cell : (x + 1) * cell] = 0
    np.testing.assert_array_equal(places.read(whole(geobox)).codes, by_hand)
    assert (places.read(Window(y=-9, x=30, height=9, width=20)).codes == IGNORE).all()
    wanted = [
        (y, x)
        for y in range(0, 50, size)
        for x in range(0, 37, size)
        if (by_hand[y : y + size, x : x + size] != IGNORE).any()
    ]
    windows = list(places.windows(size))
    assert [(w.y, w.x) for w in windows] == wanted
    for w in windows:
        inside = w.intersect(whole(geobox))
        assert inside is not None
        np.testing.assert_array_equal(
            places.read(inside).codes, by_hand[inside.y : inside.bottom, inside.x : inside.right]
        )


def test_a_quantile_is_the_share_that_lies_below() -> None:
    rng = np.random.default_rng(0)
    known = np.sort(rng.gamma(2, 1, 500))
    error = rng.gamma(2, 1.5, (4, 5))
    error[0, 0] = np.nan
    found = quantile(error, known)
    assert np.isnan(found[0, 0])
    below = np.array([(known < e).mean() for e in error.ravel()[1:]])
    np.testing.assert_allclose(found.ravel()[1:], below, atol=1 / 499 + 1e-12)


def test_more_clusters_than_different_places_are_refused() -> None:
    bundle = SimpleNamespace(task={"name": "reconstruction"})
    outputs = np.repeat(np.array([[0.1, 1.0, 0.0], [0.2, 1.0, 5.0]], np.float32), 10, axis=0)
    assessed: Any = SimpleNamespace(scores=outputs)
    with pytest.raises(RequestError, match=r"reconstruction.clusters: 3 clusters .* the samples hold 2; ask for fewer"):
        clustered(bundle, [assessed], assessed, 3, SimpleNamespace(note=lambda _: None))  # type: ignore[arg-type]


def test_planted_anomalies_stand_out(finished: Path) -> None:
    anomaly = layer(finished / "out", "anomaly")[0].astype(float)
    error = layer(finished / "out", "reconstruction_error")[0]
    seen = np.isfinite(error)
    strange = planted()[seen]
    # 0.99 was measured; by chance it is 0.5.
    assert roc_auc_score(strange, error[seen]) > 0.97
    assert roc_auc_score(strange, anomaly[seen]) > 0.97
    # What is as usual is given back about as well as the validation samples: their shares are even.
    assert abs(np.median(anomaly[seen][~strange]) / 10_000 - 0.5) < 0.1


def test_clusters_agree_with_the_covers(finished: Path) -> None:
    clusters = layer(finished / "out", "classes")[0]
    cover = np.kron(cells(SIDE), np.ones((12, 12), int))
    seen = (clusters != 0) & ~planted()
    assert set(np.unique(clusters[seen])) == {1, 2, 3}
    # 0.99 was measured; by chance it is 0.
    assert adjusted_rand_score(cover[seen], clusters[seen]) > 0.9


def test_the_layers_are_what_the_network_gives(finished: Path) -> None:
    out = finished / "out"
    bundle = Bundle.load(out / "model")
    code = product_of(bundle)
    assert isinstance(code, Code)
    with rasterio.open(finished / "scene.tif") as raster:
        stored = raster.read().astype(np.float32)
    valid = stored[0] != 0
    normal = (stored - np.array(bundle.mean)[:, None, None]) / np.array(bundle.std)[:, None, None]
    normal[:, ~valid] = 0
    cube = torch.from_numpy(normal.astype(np.float32))[None, None]
    outputs = scores(prepare(bundle.network), cube, torch.from_numpy(valid)[None, None], torch.zeros(1, 1))[0].numpy()
    given, embedding = outputs[:3], outputs[3:]
    error = np.sqrt(((given - normal) ** 2).mean(0))
    np.testing.assert_allclose(layer(out, "reconstruction_error")[0][valid], error[valid], atol=1e-5)
    np.testing.assert_allclose(layer(out, "embedding")[:, valid], embedding[:, valid], atol=1e-5)
    by_hand = nearest_centre(embedding, np.array(bundle.task["centres"])) + 1
    assert (layer(out, "classes")[0][valid] == by_hand[valid]).mean() > 0.999
    known = np.array(bundle.task["errors"])
    below = np.searchsorted(known, error[valid]) / (len(known) - 1)
    np.testing.assert_allclose(layer(out, "anomaly")[0][valid] / 10_000, below.clip(0, 1), atol=1e-2)
    # The largest cluster is the first.
    counts = np.bincount(layer(out, "classes")[0][valid])[1:]
    assert (np.diff(counts) < 0.1 * counts[0]).all()
    assert (layer(out, "classes")[0][~valid] == 0).all()


@pytest.mark.parametrize(
    ("name", "dtype", "units", "bands"),
    [
        ("classes", "uint8", None, ("class",)),
        ("reconstruction_error", "float32", "standard deviations", ("error",)),
        ("anomaly", "uint16", None, ("quantile",)),
        ("embedding", "float32", None, ("embedding_1",)),
    ],
)
def test_each_layer_says_what_it_is(
    finished: Path, name: str, dtype: str, units: str | None, bands: tuple[str, ...]
) -> None:
    with (
        rasterio.open(finished / "out" / "maps" / f"{name}.tif") as raster,
        rasterio.open(finished / "scene.tif") as scene,
    ):
        assert (raster.shape, raster.transform, raster.crs) == (scene.shape, scene.transform, scene.crs)
        assert raster.dtypes == (dtype,) * len(bands)
        assert raster.descriptions == bands
        assert set(raster.units) == {units}
        values = raster.read(1)
        empty = np.isnan(values) if dtype == "float32" else values == raster.nodata
        assert empty[:5, :5].all()
        assert empty.sum() == 25
        assert (raster.scales[0] == 0.0001) == (name == "anomaly")
    if name == "classes":
        with rasterio.open(finished / "out" / "maps" / "classes.tif") as raster:
            assert [c["name"] for c in json.loads(raster.tags()["classes"])] == ["cluster 1", "cluster 2", "cluster 3"]


def test_the_figures_and_the_report(finished: Path) -> None:
    out = finished / "out"
    figures = json.loads((out / "report" / "accuracy.json").read_text())
    assert figures["task"] == "reconstruction"
    assert 0 < figures["rmse"] < figures["rmse_of_the_mean"]
    assert figures["explained"] == pytest.approx(1 - (figures["rmse"] / figures["rmse_of_the_mean"]) ** 2)
    assert 0 < figures["rmse_of_principal_components"] < 0.6
    assert 0.5 < figures["silhouette"] < 1
    counts = np.bincount(layer(out, "classes")[0].ravel(), minlength=4)[1:]
    assert [c["pixels"] for c in figures["clusters"]] == counts.tolist()
    assert [c["ha"] for c in figures["clusters"]] == pytest.approx((counts * 0.01).tolist(), rel=1e-3)
    page = (out / "report" / "index.html").read_text()
    for title in ("What the code holds", "Clusters", "The map", "Reconstruction error", "Anomaly"):
        assert f">{title}<" in page, title
    assert "cluster 3" in page
    assert "forest" not in page.lower()


@pytest.mark.parametrize("block", [16, 64])
def test_the_map_does_not_depend_on_how_it_is_cut(finished: Path, tmp_path: Path, block: int) -> None:
    made = ["--set", f"predict.layers=[{', '.join(LAYERS)}]", "--set", f"predict.block={block}"]
    assert cli("apply", finished / "out" / "model", finished / "scene.tif", "-o", tmp_path, "-q", *made) == 0
    np.testing.assert_array_equal(layer(tmp_path, "classes"), layer(finished / "out", "classes"))
    np.testing.assert_allclose(
        layer(tmp_path, "anomaly").astype(float), layer(finished / "out", "anomaly").astype(float), atol=1
    )
    for name in ("reconstruction_error", "embedding"):
        np.testing.assert_allclose(layer(tmp_path, name), layer(finished / "out", name), atol=1e-5)


def test_a_network_that_sees_land_is_cross_validated_and_mapped_without_seams(tmp_path: Path) -> None:
    write_scene(tmp_path / "scene.tif", side=60)
    changes: dict[str, Any] = {
        "model": {"name": "vae", "looks_at": "land", "width": 2, "code": 3},
        "training": {"epochs": 1, "track": ["csv"], "check_batch": False},
        "chips": {"size": 12},
        "folds": {"k": 3, "buffer": 0},
    }
    assert cli("run", write_job(tmp_path / "job.yaml", **changes), "-q") == 0
    figures = json.loads((tmp_path / "out" / "report" / "accuracy.json").read_text())
    # Every pixel was tested once, by the network that had not seen it.
    assert figures["n"] == 60 * 60 - 25
    assert figures["rmse_of_principal_components"] is None
    assert figures["silhouette"] is None
    made = ["--set", f"predict.layers=[{', '.join(LAYERS)}]", "--set", "predict.block=16"]
    assert cli("apply", tmp_path / "out" / "model", tmp_path / "scene.tif", "-o", tmp_path / "cut", "-q", *made) == 0
    for name in ("reconstruction_error", "embedding"):
        np.testing.assert_allclose(layer(tmp_path / "cut", name), layer(tmp_path / "out", name), atol=1e-5)
    assert (layer(tmp_path / "cut", "classes") == layer(tmp_path / "out", "classes")).mean() > 0.999


def test_given_again_it_is_up_to_date_and_other_clusters_are_refused(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    path = folder / "out" / "maps" / "classes.tif"
    before = path.stat().st_mtime_ns
    assert cli("run", folder / "job.yaml") == 0
    assert capfd.readouterr().err.count("up to date") == 3
    assert path.stat().st_mtime_ns == before
    message = said(capfd, "run", folder / "job.yaml", "--set", "reconstruction.clusters=4")
    assert "'train' were made from other inputs: task.settings.clusters: 3 -> 4" in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["model={name: unet}"], "model.name: found unet, which gives nothing back .* allowed are autoencoder, vae"),
        (["model={name: gan}"], "model.name: found gan, which gives nothing back"),
        (
            ["predict.layers=[saliency]"],
            "predict.layers: 'saliency' is no layer of a reconstruction. It makes classes,",
        ),
        (
            ["training.loss.name=dice"],
            "training.loss.name: found dice, which is not made for a reconstruction; allowed",
        ),
        (
            ["training.loss.class_weights=[1, 2]"],
            r"class_weights: found \[1.0, 2.0\], and a reconstruction has no classes",
        ),
        (["training.loss.label_smoothing=0.1"], "label_smoothing: found 0.1, and a reconstruction has no classes"),
        (["labels={path: a.gpkg}"], "a reconstruction learns without labels, found `labels`"),
        (["classes=[{name: a}]"], "a reconstruction knows no classes, found `classes`"),
        (["folds.method=features"], "folds.method: land without labels has no features; use blocks, not features"),
        (["model.code=3"], "model.code: found 3, 3 numbers for 3 values, which the network 'autoencoder' could simply"),
        (["reconstruction.clusters=1"], "reconstruction.clusters: .* greater than or equal to 2; found 1"),
    ],
)
def test_what_a_reconstruction_cannot_do_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], changes: list[str], words: str
) -> None:
    write_scene(tmp_path / "scene.tif", side=24)
    options = [o for change in changes for o in ("--set", change)]
    message = said(capfd, "check", write_job(tmp_path / "job.yaml"), *options)
    assert re.search(words, message), message

"""Imagery behind an address: the same values as from a file, few requests, faults met, and one sentence where they stay."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from conftest import write_job, write_labels, write_scene
from rasters import grid, noise, source, write
from test_cli import said
from test_run import cli
from webserver import served

from pipeline.errors import ImageryError, ReadError
from pipeline.grid import Window, whole
from pipeline.imagery import handles
from pipeline.imagery.identity import identity
from pipeline.imagery.open import open_cube
from pipeline.imagery.paths import expand, file_name, stem
from pipeline.imagery.remote import gdal_name, networked
from pipeline.settings import ImagerySettings

SIDE = 1600


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A COG of 512 tiles, 4 x 4 of them, and small files."""
    path = tmp_path_factory.mktemp("site")
    write(path / "flat.tif", noise(2, SIDE, SIDE), nodata=0)
    rasterio.shutil.copy(
        path / "flat.tif", path / "cog.tif", driver="COG", BLOCKSIZE=512, COMPRESS="ZSTD", PREDICTOR="YES"
    )
    write(path / "small.tif", noise(1, 300, 300), tiled=True, blockxsize=16, blockysize=16, compress="deflate")
    (path / "page.html").write_text("<html>")
    return path


@pytest.fixture(scope="module")
def site(folder):
    with served(folder) as site:
        yield site


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.01")
    monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "2")


def read_all(path, count, shape, side, nodata=None):
    """Read a file block by block, with a halo."""
    found, box = source(path, count, nodata=nodata), grid(*shape)
    values = np.zeros((count, *shape), np.float32)
    for y in range(0, shape[0], side):
        for x in range(0, shape[1], side):
            core = Window(y=y, x=x, height=side, width=side).intersect(whole(box))
            padded = Window(y=y - 20, x=x - 20, height=core.height + 40, width=core.width + 40)
            values[:, y : y + core.height, x : x + core.width] = found.read(box, padded)[0][:, 20:-20, 20:-20]
    return values


def test_values_are_those_of_the_file(site, folder):
    with rasterio.open(folder / "cog.tif") as raster:
        expected = raster.read()
    found = read_all(site.url("cog.tif"), 2, (SIDE, SIDE), 700)
    np.testing.assert_array_equal(found, expected)


def test_a_file_costs_two_requests_and_a_window_one_for_each_row_of_its_tiles(site):
    site.asked()
    address = site.url("cog.tif", "count")
    box, found = grid(SIDE, SIDE), source(address, 2)
    assert found.on_grid(box)
    assert [r["method"] for r in site.asked()] == ["HEAD", "GET"]
    for window, rows in (
        (Window(y=0, x=0, height=512, width=512), 1),
        (Window(y=490, x=490, height=556, width=556), 3),
        (Window(y=0, x=0, height=SIDE, width=SIDE), 4),
    ):
        found.read(box, window)
        asked = site.asked()
        assert 1 <= len(asked) <= rows, asked
        assert {r["status"] for r in asked} == {206}


def test_opening_imagery_costs_few_requests(site):
    site.asked()
    cube, _ = open_cube([ImagerySettings(path=site.url("cog.tif", "opened"), bands=["a", "b"])], None, None)
    assert len(site.asked()) <= 2
    assert cube.bands == ("a", "b")


def test_another_thread_asks_once_more_at_most(site):
    address, box = site.url("cog.tif", "threads"), grid(SIDE, SIDE)
    source(address).on_grid(box)
    site.asked()
    thread = threading.Thread(target=lambda: source(address).on_grid(box))
    thread.start()
    thread.join()
    assert len(site.asked()) <= 1


@pytest.mark.parametrize("way", ["each3-503", "each4-429", "each3-500", "each7-cut"])
def test_faults_that_pass_change_nothing(site, folder, impatient, way):
    with rasterio.open(folder / "cog.tif") as raster:
        expected = raster.read()
    site.asked()
    np.testing.assert_array_equal(read_all(site.url("cog.tif", way), 2, (SIDE, SIDE), 512), expected)
    if "cut" not in way:
        assert int(way[-3:]) in {r["status"] for r in site.asked()}


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("after1-503", r"503 \(Service Unavailable\)"),
        ("after1-cut", "not all that was asked for arrives"),
        ("after1-404", "404"),
    ],
)
def test_a_server_that_fails_for_good_is_named_with_window_and_answer(site, impatient, way, reason):
    box = grid(SIDE, SIDE)
    found = source(site.url("cog.tif?key=secret", way), 2)
    found.on_grid(box)
    with pytest.raises(ReadError, match=rf"/{way}/cog\.tif: reading .*512.* failed.*{reason}") as caught:
        found.read(box, Window(y=512, x=0, height=512, width=512))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "way", "error", "reason"),
    [
        ("none.tif", "plain", ImageryError, r"404 \(Not Found\)"),
        ("small.tif", "all-403", ImageryError, r"refuses access \(403\).*credentials"),
        ("page.html", "plain", ImageryError, "not recognized"),
        ("small.tif", "all-502", ReadError, r"502 \(Bad Gateway\)"),
    ],
)
def test_what_cannot_be_opened_says_why(site, impatient, name, way, error, reason):
    with pytest.raises(error, match=rf"{way}/{name} cannot be opened.*{reason}") as caught:
        open_cube([ImagerySettings(path=site.url(f"{name}?key=secret", way))], None, None)
    assert "secret" not in str(caught.value)


def test_a_machine_that_does_not_answer_is_named(impatient):
    with pytest.raises(ReadError, match=r"127\.0\.0\.1:9/a\.tif cannot be opened: .*connect"):
        handles.open_raster("http://127.0.0.1:9/a.tif")


def test_names_of_addresses():
    assert gdal_name("https://host/a.tif?x=1") == "/vsicurl/https://host/a.tif?x=1"
    assert gdal_name("s3://bucket/a.tif") == "/vsis3/bucket/a.tif"
    assert gdal_name("az://bucket/a.tif") == "/vsiaz/bucket/a.tif"
    assert gdal_name("data/a.tif") == "data/a.tif"
    assert [networked(p) for p in ("gs://b/a.tif", "/vsizip/vsicurl/http://h/a.zip/b.tif")] == [True, True]
    assert [networked(p) for p in ("/vsizip/data/a.zip/b.tif", "s3/a.tif", "/data/vsis3.tif")] == [False] * 3
    assert stem("https://host/S2_20200101.tif?sig=a/b.c") == "S2_20200101"
    assert file_name("/vsis3/bucket/S2_20200101.tif") == "S2_20200101.tif"
    assert expand(["https://h/a.tif?x=[1]"]) == ["https://h/a.tif?x=[1]"]
    with pytest.raises(ImageryError, match=r"s3://b/\*\.tif is an address with a glob.*list"):
        expand("s3://b/*.tif")


def test_dates_are_found_in_addresses(site, folder):
    for date in ("20200101", "20200201"):
        (folder / f"S2_{date}.tif").write_bytes((folder / "small.tif").read_bytes())
    paths = [site.url(f"S2_{d}.tif?key=%20") for d in ("20200101", "20200201")]
    cube, _ = open_cube([ImagerySettings(path=paths, date="%Y%m%d")], None, None)
    assert [d.isoformat() for d in cube.dates] == ["2020-01-01", "2020-02-01"]


@pytest.mark.parametrize("name", ["/vsicurl/{}", "{}", "/vsis3/bucket/a.tif"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_vrt_of_this_machine_does_not_lead_to_the_network(site, tmp_path, name, nested):
    text = (
        '<VRTDataset rasterXSize="300" rasterYSize="300"><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        '<SourceFilename relativeToVRT="{}">{}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>'
        "</VRTDataset>"
    )
    path = tmp_path / "a.vrt"
    path.write_text(text.format(0, name.format(site.url("small.tif"))))
    if nested:
        path = tmp_path / "b.vrt"
        path.write_text(text.format(1, "a.vrt"))
    site.asked()
    with pytest.raises(ImageryError, match=r"leads to the network .*imagery\.path"):
        handles.open_raster(str(path))
    assert site.asked() == []


def test_a_vrt_of_files_is_read(tmp_path, folder):
    path = tmp_path / "a.vrt"
    rasterio.shutil.copy(folder / "small.tif", path, driver="VRT")
    with handles.open_raster(str(path)) as raster:
        assert raster.shape == (300, 300)


def test_what_identifies_a_file_behind_an_address_follows_its_contents(site, folder):
    path = folder / "changing.tif"
    write(path, noise(1, 64, 64), compress="deflate")
    first = identity(site.url("changing.tif?key=secret"))
    assert first == identity(site.url("changing.tif"))
    assert {"etag", "modified", "size", "path"} == set(first)
    assert (first["size"], "secret" in str(first)) == (path.stat().st_size, False)
    write(path, noise(1, 64, 64, seed=1), compress="deflate")
    os.utime(path, ns=(10**9, 10**9))
    assert identity(site.url("changing.tif"))["etag"] != first["etag"]


def test_without_a_word_of_the_server_the_header_identifies_it(site, folder):
    for seed in (0, 1):
        write(folder / f"bare{seed}.tif", noise(1, 64, 64, seed=seed), compress="deflate")
    own = [identity(site.url(f"bare{seed}.tif", "bare")) for seed in (0, 1)]
    assert set(own[0]) == {"path", "header"}
    assert own[0]["header"] != own[1]["header"]
    assert own[0] == identity(site.url("bare0.tif", "bare"))


def test_a_map_of_an_address_is_that_of_the_file_and_stale_when_the_file_changes(tmp_path, capfd):
    write_scene(tmp_path / "scene.tif", side=64)
    write_labels(tmp_path / "fields.gpkg", side=64)
    layers = ("--set", "predict.layers=[classes]")
    with served(tmp_path) as site:
        address = site.url("scene.tif")
        job = write_job(tmp_path / "job.yaml", imagery=[{"path": address}], training={"epochs": 1, "track": ["csv"]})
        assert cli("train", job, "-q") == 0
        bundle = tmp_path / "out" / "model"
        assert cli("apply", bundle, tmp_path / "scene.tif", "-o", tmp_path / "own", "-q", *layers) == 0
        assert cli("apply", bundle, address, "-o", tmp_path / "far", "-q", *layers) == 0
        own, far = ((tmp_path / name / "maps" / "classes.tif") for name in ("own", "far"))
        with rasterio.open(own) as one, rasterio.open(far) as other:
            np.testing.assert_array_equal(one.read(), other.read())
        os.utime(tmp_path / "scene.tif", ns=(10**9, 10**9))
        message = said(capfd, "apply", bundle, address, "-o", tmp_path / "far", "-q", *layers)
        assert "imagery" in message
        drafted = tmp_path / "drafted.yaml"
        assert cli("init", address, "--labels", tmp_path / "fields.gpkg", "--field", "class", "-o", drafted, "-q") == 0
        assert address in drafted.read_text()

"""The STAC item: readable by others, true to the files, the same each time."""

from __future__ import annotations

import datetime
import json

import numpy as np
import pystac
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from shapely.geometry import MultiPolygon, shape
from test_parts import blocks_of, filled, layers_of

from pipeline.files import sha256
from pipeline.maps.catalog import bbox_of, footprint_of, write_item
from pipeline.maps.mosaic import mosaic

CREATED = "2024-05-01T10:30:00+02:00"


@pytest.fixture
def maps(tmp_path):
    layers = layers_of()
    store = filled(tmp_path / "parts", layers, blocks_of())
    for layer in layers:
        mosaic(store, layer, tmp_path / "maps" / f"{layer.name}.tif")
    return tmp_path / "maps", layers


def test_the_item_is_read_by_pystac_and_its_checksums_hold(maps):
    folder, layers = maps
    path = write_item(
        folder,
        layers,
        run=folder.parent,
        item_id="a-1",
        cube_dates=[datetime.date(2020, 3, 1), None, datetime.date(2020, 1, 5)],
        created=CREATED,
        properties={"landweave:run": "a1"},
    )
    item = pystac.Item.from_file(str(path))
    assert item.id == "a-1"
    assert item.properties["start_datetime"] == "2020-01-05T00:00:00Z"
    assert item.properties["end_datetime"] == "2020-03-01T00:00:00Z"
    assert item.properties["created"] == "2024-05-01T08:30:00Z"
    assert item.properties["landweave:run"] == "a1"
    assert item.properties["proj:code"] == "EPSG:32721"
    assert item.properties["proj:shape"] == [40, 50]
    assert item.properties["proj:transform"] == [10, 0, 500_000, 0, -10, 8_000_000]
    for name, asset in item.assets.items():
        file = folder / asset.href
        assert asset.extra_fields["file:size"] == file.stat().st_size, name
        assert asset.extra_fields["file:checksum"] == "1220" + sha256(file)
    assert {p.name for p in folder.iterdir()} - {"item.json"} == {a.href[2:] for a in item.assets.values()}
    (band,) = item.assets["classes"].extra_fields["bands"]
    assert [(c["value"], c["title"], c["color_hint"]) for c in band["classification:classes"]] == [
        (1, "Forest", "1B7837"),
        (3, "Wässer", "2166AC"),
    ]
    assert [b["raster:scale"] for b in item.assets["probabilities"].extra_fields["bands"]] == [0.0001, 0.0001]
    json.dumps(item.to_dict(), allow_nan=False)


def test_the_same_files_give_the_same_item(maps):
    folder, layers = maps

    def made() -> bytes:
        return write_item(
            folder, layers, run=folder.parent, item_id="a", cube_dates=[None], created=CREATED
        ).read_bytes()

    first = made()
    assert first == made()
    assert json.loads(first)["properties"]["datetime"] == "2024-05-01T08:30:00Z"


def test_provenance_is_linked_where_it_lies(maps):
    folder, layers = maps
    (folder.parent / "model").mkdir()
    (folder.parent / "model" / "bundle.json").write_text("{}")
    (folder.parent / "job.yaml").write_text("")
    path = write_item(folder, layers, run=folder.parent, item_id="a", cube_dates=[None], created=CREATED)
    links = {link["href"] for link in json.loads(path.read_text())["links"] if link["rel"] == "derived_from"}
    assert links == {"../model/bundle.json", "../job.yaml"}


@pytest.mark.parametrize(
    ("crs", "affine", "bbox"),
    [
        ("EPSG:4326", Affine(0.01, 0, 10, 0, -0.01, 50), [10, 49, 11, 50]),
        ("EPSG:4326", Affine(0.1, 0, 175, 0, -0.1, 5), [175, -5, -175, 5]),
        ("EPSG:4326", Affine(3.6, 0, 0, 0, -1.8, 90), [-180, -90, 180, 90]),
        ("EPSG:3832", Affine(1e4, 0, 2.8e6, 0, -1e4, 5e5), [175.1526, -4.5166, -175.8643, 4.5166]),
        ("EPSG:3031", Affine(1e4, 0, -5e5, 0, -1e4, 5e5), [-180, -90, 180, -83.4987]),
    ],
)
def test_footprints_honour_the_antimeridian_and_the_poles(crs, affine, bbox):
    footprint = footprint_of(GeoBox((100, 100), affine, crs))
    assert footprint.is_valid
    np.testing.assert_allclose(bbox_of(footprint), bbox, atol=1e-3)
    west, south, east, north = footprint.bounds
    assert -180 <= west < east <= 180
    assert -90 <= south < north <= 90
    assert isinstance(footprint, MultiPolygon) == (bbox[0] > bbox[2])
    assert shape(json.loads(json.dumps(footprint.__geo_interface__))).equals(footprint)

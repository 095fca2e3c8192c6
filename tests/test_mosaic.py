"""From parts to GeoTIFFs: the same values, the same bytes, and everything a GIS asks for."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from oracles_imagery import assembled
from rio_cogeo import cog_info, cog_validate
from test_parts import KEY, Class, Legend, arrays_of, blocks_of, filled, layers_of

from pipeline.errors import RunError
from pipeline.files import sweep
from pipeline.grid import BlockGrid, whole
from pipeline.maps.layers import Layer
from pipeline.maps.mosaic import mosaic
from pipeline.maps.parts import part_path, write_parts
from pipeline.maps.store import PartStore


def expected_of(layer: Layer, layers: list[Layer], blocks: BlockGrid, skip: tuple[int, ...] = ()) -> np.ndarray:
    arrays = {i: arrays_of(layers, blocks, i)[layer.name] for i in range(len(blocks))}
    for i in skip:
        arrays[i] = np.full_like(arrays[i], layer.nodata)
    return assembled(arrays, {b.index: b.inner for b in blocks}, tuple(blocks.geobox.shape), layer.nodata)


@settings(max_examples=12, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70), size=st.sampled_from([8, 13, 64]), seed=st.integers(0, 9))
def test_a_mosaic_holds_every_block_at_its_place(height, width, size, seed):
    blocks, layers = blocks_of(height, width, size), layers_of()
    rng = random.Random(seed)
    skip = tuple(i for i in range(len(blocks)) if rng.random() < 0.2)
    with tempfile.TemporaryDirectory() as folder:
        store = filled(Path(folder) / "parts", layers, blocks, skip=skip)
        for layer in layers:
            path = mosaic(store, layer, Path(folder) / f"{layer.name}.tif", threads=1)
            with rasterio.open(path) as source:
                np.testing.assert_array_equal(source.read(), expected_of(layer, layers, blocks, skip))
                assert source.transform == blocks.geobox.affine
                assert source.crs == rasterio.CRS.from_epsg(32721)
        assert not (Path(folder) / "parts" / "mosaic" / "classes").exists()
        assert {p.name for p in Path(folder).iterdir()} == {
            *("parts", "classes.tif", "classes.qml", "classes.tif.aux.xml", "probabilities.tif", "probabilities.qml"),
            *("saliency_bands.tif", "saliency_bands.qml"),
        }


@pytest.mark.parametrize("blocks", [blocks_of(1100, 1300, 256), blocks_of(1, 1, 8), blocks_of(1, 97, 16)])
def test_every_layer_is_a_valid_cog_with_what_it_must_carry(tmp_path, blocks):
    layers = layers_of()
    store = filled(tmp_path / "parts", layers, blocks, skip=(0,) if len(blocks) > 1 else ())
    for layer in layers:
        path = mosaic(store, layer, tmp_path / f"{layer.name}.tif")
        valid, errors, warned = cog_validate(path, strict=True)
        assert valid, (errors, warned)
        assert cog_info(path).Compression == "DEFLATE"
        with rasterio.open(path) as source:
            assert source.descriptions == layer.bands
            assert source.scales == (layer.scale,) * len(layer.bands)
            assert source.dtypes == (layer.dtype,) * len(layer.bands)
            np.testing.assert_equal(source.nodata, layer.nodata)
            assert source.block_shapes[0] == (512, 512) or max(source.shape) < 512
            assert bool(source.overviews(1)) == (max(source.shape) > 512)
            assert source.tags()["overview_resampling"] == layer.overview
            assert "STATISTICS_MEAN" not in source.tags(1)


def test_the_class_map_has_palette_names_and_tags(tmp_path):
    blocks = blocks_of()
    layer = Layer.classes(Legend(), tags={"run_id": "a1", "note": 'é <&> "x"'})
    path = mosaic(filled(tmp_path / "parts", [layer], blocks), layer, tmp_path / "classes.tif")
    with rasterio.open(path) as source:
        palette = source.colormap(1)
        assert palette[1] == (0x1B, 0x78, 0x37, 255)
        assert palette[3] == (0x21, 0x66, 0xAC, 255)
        assert source.colorinterp == (rasterio.enums.ColorInterp.palette,)
        tags = source.tags()
        assert tags["run_id"] == "a1"
        assert tags["note"] == 'é <&> "x"'
        assert [c["name"] for c in json.loads(tags["classes"])] == ["Forest", "Wässer"]


def test_codes_of_sixteen_bits_and_a_class_zero(tmp_path):
    blocks = blocks_of()
    many = Legend(tuple(Class(f"c{i}", i, "#102030") for i in range(1, 400)), 0, "uint16")
    zero = Legend((Class("Water", 0, "#2166ac"), Class("Land", 9, "#fee08b")), 255, "uint8")
    for name, legend in (("many", many), ("zero", zero)):
        layer = Layer.classes(legend)
        path = mosaic(filled(tmp_path / name, [layer], blocks), layer, tmp_path / f"{name}.tif")
        with rasterio.open(path) as source:
            assert (source.dtypes[0], source.nodata) == (legend.dtype, legend.nodata)
            assert source.colormap(1)[9][:3] == ((0x10, 0x20, 0x30) if name == "many" else (0xFE, 0xE0, 0x8B))
            np.testing.assert_array_equal(source.read(), expected_of(layer, [layer], blocks))
    with rasterio.open(tmp_path / "zero.tif") as source:
        assert source.colormap(1)[0][:3] == (0x21, 0x66, 0xAC)


def test_the_bytes_depend_neither_on_the_order_of_blocks_nor_on_threads_nor_on_a_resume(tmp_path):
    blocks, layers = blocks_of(700, 900, 128), layers_of()
    made = []
    for seed, threads in ((0, 1), (1, 4)):
        folder = tmp_path / f"run {seed} ü"
        order = list(range(len(blocks)))
        random.Random(seed).shuffle(order)
        for piece in (order[:20], order[20:]):
            store = PartStore.open(folder / "parts", layers, blocks, KEY)
            for i in piece:
                arrays = arrays_of(layers, blocks, i)
                store.record(write_parts(store.folder, layers, blocks[i], arrays, blocks.geobox))
        for layer in layers:
            mosaic(store, layer, folder / "maps" / f"{layer.name}.tif", threads=threads)
        made.append({p.name: p.read_bytes() for p in sorted((folder / "maps").iterdir())})
    assert made[0].keys() == made[1].keys()
    assert [name for name in made[0] if made[0][name] != made[1][name]] == []


def test_a_map_of_a_part_of_a_country_takes_the_room_of_the_part(tmp_path):
    layers = layers_of()
    files: dict[str, list[bytes]] = {layer.name: [] for layer in layers}
    # Block 0 holds values; the others have no part, or parts without a value.
    for other in ("absent", "nodata"):
        blocks = blocks_of(1600, 1600, 800)
        store = PartStore.open(tmp_path / other, layers, blocks, KEY)
        for block in blocks:
            arrays = arrays_of(layers, blocks, block.index)
            if block.index and other == "nodata":
                arrays = {v.name: np.full_like(arrays[v.name], v.nodata) for v in layers}
            gone = block.index > 0 and other == "absent"
            store.record(write_parts(store.folder, layers, block, None if gone else arrays, blocks.geobox))
        for layer in layers:
            path = mosaic(store, layer, tmp_path / f"{other}-{layer.name}.tif")
            files[layer.name].append(path.read_bytes())
            valid, errors, warned = cog_validate(path, strict=True)
            assert valid, (errors, warned)
            with rasterio.open(path) as source:
                # Four tiles hold values, one more each of its overviews; a reader finds nodata where there is none.
                held = [
                    source.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=1) for y in range(4) for x in range(4)
                ]
                assert sum(v is not None for v in held) == 4
                np.testing.assert_equal(source.read(1, window=((1500, 1501), (1500, 1501)))[0, 0], layer.nodata)
    assert all(a == b for a, b in files.values())


def test_a_map_without_any_valid_block_is_nodata(tmp_path):
    blocks, layers = blocks_of(), layers_of()
    store = filled(tmp_path / "parts", layers, blocks, skip=tuple(range(len(blocks))))
    for layer in layers:
        with rasterio.open(mosaic(store, layer, tmp_path / f"{layer.name}.tif")) as source:
            assert source.read(masked=True).count() == 0


@pytest.mark.parametrize(
    ("crs", "affine"),
    [
        ("EPSG:4326", Affine(1 / 3600, 0, -55.123456789, 0, -1 / 3600, -11.987654321)),
        ("EPSG:3031", Affine(30, 0, -1e6, 0, -30, 2e6)),
        ("+proj=laea +lat_0=-10 +lon_0=-55 +datum=WGS84 +units=m", Affine(10, 0, 0.1, 0, -10, 0.7)),
        ("EPSG:32721", Affine(10, 0, 5e5, 0, 10, 8e6)),
        ("EPSG:32721", Affine.translation(5e5, 8e6) * Affine.rotation(30) * Affine.scale(10, -10)),
    ],
)
def test_the_grid_is_kept_exactly(tmp_path, crs, affine):
    blocks = BlockGrid(geobox=GeoBox((40, 50), affine, crs), size=16)
    layer = Layer.confidence()
    path = mosaic(filled(tmp_path / "parts", [layer], blocks), layer, tmp_path / "confidence.tif")
    with rasterio.open(path) as source:
        np.testing.assert_allclose(tuple(source.transform), tuple(affine), rtol=1e-15)
        assert source.crs == rasterio.CRS.from_string(crs)


def test_overviews_say_the_commonest_class_or_the_mean_of_what_is_known(tmp_path):
    blocks = blocks_of(1024, 1024, 1024)
    layers = [Layer.classes(Legend()), Layer.confidence()]
    codes = np.zeros((1, 1024, 1024), np.uint8)
    codes[:, ::2] = 1
    codes[:, 1::2, ::2] = 3
    shares = np.full((1, 1024, 1024), np.nan, np.float32)
    shares[:, ::2, ::2], shares[:, 1::2, 1::2] = 0.2, 0.4
    store = PartStore.open(tmp_path / "parts", layers, blocks, KEY)
    arrays = {"classes": codes, "confidence": layers[1].encode(shares)}
    store.record(write_parts(store.folder, layers, blocks[0], arrays, blocks.geobox))
    for layer, found in zip(layers, (1, 3000), strict=True):
        with rasterio.open(mosaic(store, layer, tmp_path / f"{layer.name}.tif"), overview_level=0) as source:
            assert source.shape == (512, 512)
            assert (source.read() == found).all()


def test_a_part_that_changed_after_it_was_recorded_is_found_and_no_mosaic_is_left(tmp_path):
    blocks, layers = blocks_of(), layers_of()
    store = filled(tmp_path / "parts", layers, blocks)
    other = arrays_of(layers, blocks, 5)
    other["classes"] = other["classes"].copy()
    other["classes"][0, 3, 3] = 1 if other["classes"][0, 3, 3] != 1 else 3
    write_parts(store.folder, layers, blocks[5], other, blocks.geobox)
    with pytest.raises(RunError, match=r"block 5 \(rows 16\.\.31, columns 16\.\.31\) does not read back"):
        mosaic(store, layers[0], tmp_path / "maps" / "classes.tif")
    part_path(store.folder, "classes", 5).unlink()
    with pytest.raises(RunError, match="cannot be written"):
        mosaic(store, layers[0], tmp_path / "maps" / "classes.tif")
    assert list((tmp_path / "maps").iterdir()) == []


def test_a_full_disk_leaves_no_mosaic_and_says_how_much_is_missing(tmp_path):
    blocks, layers = blocks_of(600, 700, 128), layers_of()
    filled(tmp_path / "parts", layers, blocks)
    code = f"""
import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parent.parent)!r}]
import resource
from pathlib import Path
from xml.etree import ElementTree
from test_mosaic import *
folder = Path({str(tmp_path)!r})
blocks, layers = blocks_of(600, 700, 128), layers_of()
store = PartStore.open(folder / "parts", layers, blocks, KEY)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
for layer in layers:
    try:
        mosaic(store, layer, folder / "maps" / (layer.name + ".tif"), threads=2)
    except RunError as error:
        print(error)
    else:
        print("no error for", layer.name)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(told) == 3, told
    assert all("cannot be written" in line and "missing). Make room" in line for line in told), told
    assert list((tmp_path / "maps").iterdir()) == []


def test_killed_while_writing_a_mosaic_no_final_name_is_partial(tmp_path):
    blocks, layers = blocks_of(1200, 1300, 256), layers_of()
    store = filled(tmp_path / "parts", layers, blocks)
    maps = tmp_path / "maps"
    code = f"""
import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parent.parent)!r}]
from test_mosaic import *
blocks, layers = blocks_of(1200, 1300, 256), layers_of()
store = PartStore.open(Path({str(tmp_path)!r}) / "parts", layers, blocks, KEY)
print("go", flush=True)
while True:
    for layer in layers:
        mosaic(store, layer, Path({str(maps)!r}) / (layer.name + ".tif"), threads=2)
"""
    expected = {layer.name: expected_of(layer, layers, blocks) for layer in layers}
    rng = random.Random(0)
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(rng.uniform(0, 1))
        process.kill()
        process.communicate()
        for path in maps.glob("[!.]*.tif"):
            with rasterio.open(path) as source:
                np.testing.assert_array_equal(source.read(), expected[path.stem])
        for path in maps.glob("[!.]*.xml"):
            ElementTree.parse(path)
        sweep(maps)
        assert not list(maps.glob(".*"))
    for layer in layers:
        mosaic(store, layer, maps / f"{layer.name}.tif")
        assert cog_validate(maps / f"{layer.name}.tif", strict=True)[0]


def test_the_bytes_do_not_depend_on_how_overviews_wait(tmp_path, monkeypatch):
    blocks, layer = blocks_of(1100, 1300, 512), layers_of()[0]
    store = filled(tmp_path / "parts", [layer], blocks)
    one = mosaic(store, layer, tmp_path / "one.tif")
    monkeypatch.setattr("pipeline.maps.mosaic._OVERVIEWS", 0)
    other = mosaic(store, layer, tmp_path / "other.tif")
    assert one.read_bytes() == other.read_bytes()


def test_the_attribute_table_counts_the_pixels_of_the_map(tmp_path):
    blocks, layer = blocks_of(300, 500, 128), layers_of()[0]
    path = mosaic(filled(tmp_path / "parts", [layer], blocks, skip=(2,)), layer, tmp_path / "classes.tif")
    table = ElementTree.parse(path.with_name("classes.tif.aux.xml"))
    names = [field.findtext("Name") for field in table.iter("FieldDefn")]
    rows = [[cell.text for cell in row] for row in table.iter("Row")]
    with rasterio.open(path) as source:
        codes, counts = np.unique(source.read(1), return_counts=True)
    expected = {int(c): int(n) for c, n in zip(codes, counts, strict=True) if c != layer.nodata}
    found = {int(r[names.index("Value")]): int(r[names.index("Count")]) for r in rows}
    assert {code: n for code, n in found.items() if n} == expected


@pytest.mark.parametrize("size", [8, 13, 64])
def test_the_colours_span_a_lattice_of_pixels_however_the_map_is_cut(tmp_path, monkeypatch, size):
    monkeypatch.setattr("pipeline.maps.mosaic._SAMPLE", 400)
    blocks, (layer,) = blocks_of(70, 50, size), [Layer.confidence()]
    values = np.random.default_rng(0).integers(0, 10_000, (1, 70, 50)).astype(np.uint16)
    values[0, :20, :20] = layer.nodata
    store = PartStore.open(tmp_path / "parts", [layer], blocks, KEY)
    for block in blocks:
        part = np.ascontiguousarray(values[:, *block.inner.within(whole(blocks.geobox))])
        store.record(write_parts(store.folder, [layer], block, {layer.name: part}, blocks.geobox))
    mosaic(store, layer, tmp_path / "confidence.tif")
    shader = ElementTree.parse(tmp_path / "confidence.qml").getroot().find(".//colorrampshader")
    seen = values[0, ::3, ::3]
    low, high = np.percentile(seen[seen != layer.nodata], (2, 98)) * layer.scale
    assert (float(shader.get("minimumValue")), float(shader.get("maximumValue"))) == (
        pytest.approx(low),
        pytest.approx(high),
    )

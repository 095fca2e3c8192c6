"""The part store: whole or absent, resumed or refused."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from pipeline.errors import RunError, StaleError
from pipeline.grid import BlockGrid
from pipeline.maps.layers import Layer
from pipeline.maps.parts import PartRecord, part_path, write_parts
from pipeline.maps.store import PartStore

KEY = {"model": "m1", "job": "j1", "imagery": "i1", "software": "s1"}


@dataclass(frozen=True)
class Class:
    name: str
    code: int
    color: str


@dataclass(frozen=True)
class Legend:
    classes: tuple[Class, ...] = (Class("Forest", 1, "#1b7837"), Class("Wässer", 3, "#2166ac"))
    nodata: int = 0
    dtype: str = "uint8"


def blocks_of(height: int = 40, width: int = 50, size: int = 16) -> BlockGrid:
    return BlockGrid(geobox=GeoBox((height, width), Affine(10, 0, 500_000, 0, -10, 8_000_000), "EPSG:32721"), size=size)


def layers_of(legend: Any = None) -> list[Layer]:
    legend = legend or Legend()
    return [Layer.classes(legend), Layer.probabilities(legend), Layer.saliency("saliency_bands", ["red", "nir"])]


def arrays_of(layers: list[Layer], blocks: BlockGrid, index: int) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(index)
    shape = blocks[index].inner.shape
    made: dict[str, np.ndarray[Any, Any]] = {}
    for layer in layers:
        if layer.legend is not None:
            codes = np.array([layer.nodata, *(c.code for c in layer.legend.classes)], layer.dtype)
            made[layer.name] = rng.choice(codes, (1, *shape))
        else:
            values = rng.random((len(layer.bands), *shape), dtype=np.float32)
            values[:, rng.random(shape) < 0.1] = np.nan
            made[layer.name] = layer.encode(values)
    return made


def filled(folder: Path, layers: list[Layer], blocks: BlockGrid, *, skip: tuple[int, ...] = ()) -> PartStore:
    store = PartStore.open(folder, layers, blocks, KEY)
    for block in blocks:
        if block.index not in store.done():
            arrays = None if block.index in skip else arrays_of(layers, blocks, block.index)
            store.record(write_parts(folder, layers, block, arrays, blocks.geobox))
    return store


def test_a_part_holds_the_values_on_the_grid_of_its_block(tmp_path):
    blocks, layers = blocks_of(), layers_of()
    filled(tmp_path, layers, blocks)
    for block in blocks:
        expected = arrays_of(layers, blocks, block.index)
        for layer in layers:
            with rasterio.open(part_path(tmp_path, layer.name, block.index)) as part:
                np.testing.assert_array_equal(part.read(), expected[layer.name])
                assert part.transform == blocks.geobox.affine * Affine.translation(block.inner.x, block.inner.y)
                assert part.crs == rasterio.CRS.from_epsg(32721)
                assert part.nodata == layer.nodata or (np.isnan(part.nodata) and np.isnan(layer.nodata))


def test_what_is_done_is_known_again(tmp_path):
    blocks, layers = blocks_of(), layers_of()
    store = PartStore.open(tmp_path, layers, blocks, KEY)
    for i in (3, 1):
        store.record(write_parts(tmp_path, layers, blocks[i], arrays_of(layers, blocks, i), blocks.geobox))
    empty = write_parts(tmp_path, layers, blocks[5], None, blocks.geobox)
    assert empty == PartRecord(block=5)
    assert empty.empty
    store.record(empty)
    again = PartStore.open(tmp_path, layers, blocks, KEY)
    assert again.done() == {1, 3, 5}
    assert again.records == store.records
    assert again.dropped == 0


@pytest.mark.parametrize("cut", [1, 5, 20, 60])
def test_a_torn_last_record_is_ignored_and_the_next_one_is_not(tmp_path, cut):
    blocks, layers = blocks_of(), layers_of()
    store = filled(tmp_path, layers, blocks)
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-cut])
    last = len(blocks) - 1
    again = PartStore.open(tmp_path, layers, blocks, KEY)
    # With only the line's end missing the record itself is whole.
    assert again.done() == set(range(last + (cut == 1)))
    again.record(store.records[last])
    assert PartStore.open(tmp_path, layers, blocks, KEY).done() == set(range(len(blocks)))


def test_a_record_with_a_flipped_digit_is_ignored(tmp_path):
    blocks, layers = blocks_of(), layers_of()
    filled(tmp_path, layers, blocks)
    manifest = tmp_path / "manifest.jsonl"
    lines = manifest.read_text().splitlines(keepends=True)
    lines[4] = lines[4].replace('"block": 3', '"block": 7')
    manifest.write_text("".join(lines))
    assert 3 not in PartStore.open(tmp_path, layers, blocks, KEY).done()


def test_a_broken_header_starts_afresh(tmp_path):
    blocks, layers = blocks_of(), layers_of()
    filled(tmp_path, layers, blocks)
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_bytes(b"x" + manifest.read_bytes())
    assert PartStore.open(tmp_path, layers, blocks, KEY).done() == set()
    assert not part_path(tmp_path, "classes", 0).exists()


@pytest.mark.parametrize("damage", ["missing", "short", "flipped"])
def test_a_damaged_part_is_made_again(tmp_path, damage):
    blocks, layers = blocks_of(), layers_of()
    filled(tmp_path, layers, blocks)
    path = part_path(tmp_path, "probabilities", 2)
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "short":
        path.write_bytes(content[:-7])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    store = PartStore.open(tmp_path, layers, blocks, KEY)
    assert store.done() == set(range(len(blocks))) - {2}
    assert store.dropped == 1


@pytest.mark.parametrize("changed", list(KEY))
def test_parts_made_from_something_else_are_refused(tmp_path, changed):
    blocks, layers = blocks_of(), layers_of()
    filled(tmp_path, layers, blocks)
    other = KEY | {changed: "another"}
    with pytest.raises(StaleError, match=rf'{changed}: "{KEY[changed]}" -> "another"') as caught:
        PartStore.open(tmp_path, layers, blocks, other)
    assert not any(f"\n  {name}:" in str(caught.value) for name in KEY if name != changed)
    assert part_path(tmp_path, "classes", 0).exists()
    assert PartStore.open(tmp_path, layers, blocks, other, overwrite=True).done() == set()
    assert not part_path(tmp_path, "classes", 0).exists()


def test_other_blocks_or_layers_are_refused(tmp_path):
    blocks, layers = blocks_of(), layers_of()
    filled(tmp_path, layers, blocks)
    with pytest.raises(StaleError, match="grid:"):
        PartStore.open(tmp_path, layers, blocks_of(size=8), KEY)
    with pytest.raises(StaleError, match="layers:"):
        PartStore.open(tmp_path, layers[:1], blocks, KEY)


def test_arrays_that_do_not_fit_their_layer_are_refused(tmp_path):
    blocks, layers = blocks_of(), layers_of()
    arrays = arrays_of(layers, blocks, 0)
    with pytest.raises(ValueError, match=r"expected uint8 .*\(1, 16, 16\), got int64"):
        write_parts(
            tmp_path, layers, blocks[0], arrays | {"classes": arrays["classes"].astype(np.int64)}, blocks.geobox
        )
    with pytest.raises(ValueError, match=r"got uint8 \(1, 16, 15\)"):
        write_parts(tmp_path, layers, blocks[0], arrays | {"classes": arrays["classes"][..., 1:]}, blocks.geobox)


def test_clear_leaves_nothing(tmp_path):
    store = filled(tmp_path / "parts", layers_of(), blocks_of())
    store.clear()
    assert not (tmp_path / "parts").exists()


CHILD = """
    import sys
    from pathlib import Path
    from test_parts import blocks_of, layers_of, filled
    {limit}
    filled(Path(sys.argv[1]), layers_of(), blocks_of(600, 700, 128))
"""


def child(folder: Path, limit: str = "") -> subprocess.Popen[str]:
    code = textwrap.dedent(CHILD.format(limit=limit))
    paths = f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parent.parent)!r}]\n"
    return subprocess.Popen([sys.executable, "-c", paths + code, str(folder)], stderr=subprocess.PIPE, text=True)


def test_killed_at_any_moment_no_final_name_is_partial_and_the_work_goes_on(tmp_path):
    folder = tmp_path / "parts"
    blocks, layers = blocks_of(600, 700, 128), layers_of()
    rng = random.Random(0)
    kept = []
    for _ in range(4):
        process = child(folder)
        while not (folder / "classes").is_dir() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for path in folder.glob("*/[0-9]*.tif"):
            expected = arrays_of(layers, blocks, int(path.stem))[path.parent.name]
            with rasterio.open(path) as part:
                np.testing.assert_array_equal(part.read(), expected)
        kept.append(len(PartStore.open(folder, layers, blocks, KEY).done()))
        assert not list(folder.glob("*/.*"))
    assert kept == sorted(kept)
    store = filled(folder, layers, blocks)
    assert store.done() == set(range(len(blocks)))


def test_a_full_disk_is_an_error_that_says_how_much_is_missing(tmp_path):
    # A limit on the size of a file fails a write as a full disk does, half-way through the file.
    process = child(tmp_path / "parts", "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))")
    _, told = process.communicate()
    assert process.returncode == 1
    assert f"{RunError.__name__}: part " in told
    assert "bytes, " in told
    assert "missing for this part alone" in told
    found = list((tmp_path / "parts").glob("*/*"))
    assert all(p.name.startswith("0") for p in found), found

"""Blocks for which memory is too small: cut, the same, and said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from conftest import write_job, write_labels, write_scene
from odc.geo.geobox import GeoBox
from test_run import cli

from models.inference import prepare, scores
from models.table import build
from pipeline.grid import BlockGrid
from pipeline.imagery.cube import Tile
from workflows.halving import computed, out_of_memory, spoken_cuts

NETWORKS = [("unet", {"width": 4, "depth": 2}), ("cnn", {}), ("mlp", {"hidden": [8]})]


def on_grid(height: int, width: int, size: int, halo: int, stride: int) -> BlockGrid:
    box = GeoBox.from_bbox((0, 0, 10 * width, 10 * height), "EPSG:32633", shape=(height, width))
    return BlockGrid(geobox=box, size=size, halo=halo, stride=stride)


@pytest.mark.parametrize(("name", "settings"), NETWORKS)
@pytest.mark.parametrize("index", [0, 3])
def test_the_layers_are_those_of_the_whole(name: str, settings: dict[str, object], index: int) -> None:
    torch.manual_seed(0)
    network = prepare(build(name, settings, bands=3, dates=1, classes=4))
    size = -(-288 // network.stride) * network.stride
    # The last block reaches beyond the raster, and only one of its quarters is in it.
    block = on_grid(420, 360, size, network.halo, network.stride)[index]
    rng = np.random.default_rng(0)
    tile = Tile(
        rng.normal(size=(1, 3, *block.padded.shape)).astype(np.float32), np.ones((1, *block.padded.shape), bool)
    )
    inside = rng.random(block.inner.shape) < 0.5
    most = (size // 2 + 2 * network.halo) ** 2

    def whole(block, tile, inside):
        y, x = block.inner.within(block.padded)
        cube, valid = torch.from_numpy(tile.values[None].copy()), torch.from_numpy(tile.valid[None].copy())
        found = scores(network, cube, valid, torch.zeros(1, 1))[0, :, y, x].numpy()
        return {"scores": found, "inside": inside[None]}

    def little(block, tile, inside):
        if block.padded.pixels > most:
            raise torch.OutOfMemoryError(f"{block.padded.pixels} pixels are too many")
        return whole(block, tile, inside)

    expected = whole(block, tile, inside)
    found, cuts = computed(little, block, tile, inside, network.stride)
    assert cuts == (3 if index == 0 else 2)
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-5)
    np.testing.assert_array_equal(found["scores"].argmax(0), expected["scores"].argmax(0))
    np.testing.assert_array_equal(found["inside"], expected["inside"])


def test_what_never_fits_is_raised_and_other_errors_are_not_tried_again() -> None:
    block = on_grid(300, 300, 256, 0, 1)[0]
    tile = Tile(np.zeros((1, 1, 256, 256), np.float32), np.ones((1, 256, 256), bool))
    sides: list[int] = []

    def never(block, tile, inside):
        sides.append(min(block.core.shape))
        raise torch.OutOfMemoryError("of 140 GiB none are free")

    with pytest.raises(torch.OutOfMemoryError, match="none are free"):
        computed(never, block, tile, None, 1)
    assert (sides[0], min(sides), len(sides)) == (256, 64, 5)

    def wrong(block, tile, inside):
        sides.append(0)
        raise RuntimeError("shapes do not agree")

    with pytest.raises(RuntimeError, match="do not agree"):
        computed(wrong, block, tile, None, 1)
    assert sides.count(0) == 1


def test_the_allocator_of_a_cpu_is_understood() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert out_of_memory(caught.value)
    with pytest.raises(MemoryError) as failed:
        np.empty(1 << 60, np.uint8)
    assert out_of_memory(failed.value)
    assert not out_of_memory(RuntimeError("something else"))


def test_it_is_said_once() -> None:
    assert spoken_cuts({}, 2) == []
    (said,) = spoken_cuts({3: 4, 7: 2}, 9)
    assert said.startswith(
        "memory ran out for 2 of 9 blocks, such as block 3: they were cut in halves, up to 4 times each"
    )


# As long as a block is computed, the system lets its process have 100 MiB more; the block takes 170.
STARVED = """
import re, resource, sys
from pathlib import Path
from workflows import cli, maptask

def starved(self, *args, whole=maptask.MapTask.compute):
    now = 1024 * int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
    resource.setrlimit(resource.RLIMIT_DATA, (now + (100 << 20), -1))
    try:
        return whole(self, *args)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (-1, -1))

maptask.MapTask.compute = starved
cli.main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process in this way")
def test_a_map_is_made_with_less_memory_than_a_block_takes(tmp_path: Path) -> None:
    write_scene(tmp_path / "scene.tif", side=640)
    write_labels(tmp_path / "fields.gpkg", side=640, every=40)
    write_job(
        tmp_path / "job.yaml",
        model={"name": "unet", "width": 16, "depth": 2},
        chips={"size": 32, "samples": 64},
        training={"epochs": 1, "track": ["csv"]},
        predict={"layers": ["classes", "confidence"], "block": 640},
        compute={"threads": 1},
    )
    assert cli("train", tmp_path / "job.yaml", "-q") == 0
    assert cli("predict", tmp_path / "job.yaml", "-q") == 0
    maps = tmp_path / "out" / "maps"
    maps.rename(tmp_path / "maps")
    command = [sys.executable, "-c", STARVED, "predict", str(tmp_path / "job.yaml")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "memory ran out for 1 of 1 blocks" in done.stderr
    # Confidence is kept to four digits, and the last of them is rounded.
    for layer, digit in (("classes", 0), ("confidence", 1)):
        with rasterio.open(maps / f"{layer}.tif") as found, rasterio.open(tmp_path / "maps" / f"{layer}.tif") as whole:
            np.testing.assert_allclose(found.read().astype(int), whole.read().astype(int), rtol=0, atol=digit)

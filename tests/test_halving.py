"""Blocks for which memory is too small: cut, the same, and said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from odc.geo.geobox import GeoBox

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

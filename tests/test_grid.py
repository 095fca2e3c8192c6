from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox

from pipeline.grid import BlockGrid, Window, round_up, whole, window_geobox


def box(height: int, width: int) -> GeoBox:
    return GeoBox((height, width), Affine(10, 0, 500_000, 0, -10, 4_000_000), "EPSG:32633")


grids = st.builds(
    lambda height, width, steps, stride, halo: BlockGrid(
        geobox=box(height, width), size=steps * stride, halo=halo * stride, stride=stride
    ),
    height=st.integers(1, 97),
    width=st.integers(1, 97),
    steps=st.integers(1, 40),
    stride=st.sampled_from([1, 2, 4, 8]),
    halo=st.integers(0, 5),
)


@given(grids)
@settings(max_examples=60, deadline=None)
def test_cores_partition_the_grid(grid: BlockGrid) -> None:
    count = np.zeros(tuple(grid.geobox.shape), dtype=int)
    for block in grid:
        count[block.inner.within(whole(grid.geobox))] += 1
    assert (count == 1).all()


@given(grids)
@settings(max_examples=60, deadline=None)
def test_padded_windows_are_alike_and_aligned(grid: BlockGrid) -> None:
    for i, block in enumerate(grid):
        assert block.index == i
        assert block.padded.shape == (grid.size + 2 * grid.halo,) * 2
        assert block.padded.y % grid.stride == block.padded.x % grid.stride == 0
        assert block.core.within(block.padded) == (slice(grid.halo, grid.halo + grid.size),) * 2


@given(grids, st.integers(-20, 100), st.integers(-20, 100), st.integers(1, 60), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_covering_finds_the_blocks_that_meet_a_window(grid: BlockGrid, y: int, x: int, height: int, width: int) -> None:
    window = Window(y=y, x=x, height=height, width=width)
    expected = [b.index for b in grid if b.inner.intersect(window)]
    assert [b.index for b in grid.covering(window)] == expected


def test_window_arithmetic() -> None:
    window = Window(y=2, x=3, height=4, width=5)
    assert window.pad(2) == Window(y=0, x=1, height=8, width=9)
    assert window.pad(2).pad(-2) == window
    assert window.intersect(Window(y=6, x=0, height=1, width=99)) is None
    assert str(window) == "rows 2..5, columns 3..7"
    with pytest.raises(ValueError, match="does not lie within"):
        window.within(Window(y=3, x=3, height=9, width=9))
    with pytest.raises(ValueError, match="at least one row"):
        Window(y=0, x=0, height=0, width=3)


def test_window_geobox_goes_on_outside_the_raster() -> None:
    moved = window_geobox(box(7, 9), Window(y=-2, x=4, height=3, width=2))
    assert moved.shape == (3, 2)
    assert (moved.affine.c, moved.affine.f) == (500_040, 4_000_020)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"size": 6, "stride": 4}, "size must be a multiple of the stride 4, got 6"),
        ({"size": 8, "halo": 2, "stride": 4}, "halo must be a multiple of the stride 4, got 2"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BlockGrid(geobox=box(5, 5), **arguments)


def test_blocks_outside_are_refused() -> None:
    with pytest.raises(IndexError, match="block 4 of 4"):
        BlockGrid(geobox=box(8, 8), size=4)[4]


def test_round_up() -> None:
    assert [round_up(v, 8) for v in (0, 1, 8, 46)] == [0, 8, 8, 48]

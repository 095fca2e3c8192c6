"""A block that memory is too small for is cut in halves: the same layers, in more and smaller steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipeline.engine import release_memory
from pipeline.grid import Block, Window, round_up
from pipeline.imagery.cube import Tile

if TYPE_CHECKING:
    from collections.abc import Mapping

Array = np.ndarray[Any, Any]
Compute = Callable[[Block, Tile, "Array | None"], "dict[str, Array]"]

# No side of a piece is shorter: what does not fit then will not fit a little later.
_LEAST = 64
# PyTorch has an error of its own for accelerators; on a CPU it is known by these words alone.
_WORDS = ("DefaultCPUAllocator: can't allocate memory", "could not create a memory object")


def computed(
    work: Compute, block: Block, tile: Tile, inside: Array | None, stride: int
) -> tuple[dict[str, Array], int]:
    """Return the layers of a block, and how often memory ran out, and it or a piece of it was cut in two.

    A piece is a block like any other, read with the same halo and on the same stride: so its layers are those of the whole.

    Parameters
    ----------
    work : callable
        Gives the layers (bands, h, w) of a block on its inner window.
    block, tile, inside
        The block, what was read of its padded window, and which pixels of its inner window are wanted.
    stride : int
        Step on which the network's grid repeats.

    Raises
    ------
    MemoryError, RuntimeError
        If memory runs out for a piece that is not cut any more: that of the allocator.
    """
    halves = _halves(block, stride)
    try:
        return work(block, tile, inside), 0
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error) or not halves:
            raise
    # Outside of the handler: the error holds on to the tensors of the frames it came through.
    release_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    layers: dict[str, Array] = {}
    cuts = 1
    for half in halves:
        rows, columns = half.inner.within(block.inner)
        y, x = half.padded.within(block.padded)
        part = Tile(tile.values[..., y, x], tile.valid[..., y, x])
        made, number = computed(work, half, part, None if inside is None else inside[rows, columns], stride)
        cuts += number
        for name, values in made.items():
            if name not in layers:
                layers[name] = np.empty((len(values), *block.inner.shape), values.dtype)
            layers[name][:, rows, columns] = values
    return layers, cuts


def out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out: of an accelerator, of PyTorch's allocator on a CPU, or of NumPy's."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def spoken_cuts(cuts: Mapping[int, int], blocks: int) -> list[str]:
    """Return a sentence about those of ``blocks`` blocks that were cut, by how often; none where none was."""
    if not cuts:
        return []
    return [
        f"memory ran out for {len(cuts)} of {blocks} blocks, such as block {min(cuts)}: they were cut in halves, up to "
        f"{max(cuts.values())} times each, which changes nothing but the time; a smaller predict.block or compute.memory "
        "spares the attempts"
    ]


def _halves(block: Block, stride: int) -> list[Block]:
    """Return the halves of a block across its longer side, as far as they meet the raster; none if it is too short."""
    core = block.core
    tall = core.height >= core.width
    length = core.height if tall else core.width
    first = round_up(length // 2, stride)
    if min(first, length - first) < _LEAST:
        return []
    if tall:
        cores = [
            Window(y=core.y, x=core.x, height=first, width=core.width),
            Window(y=core.y + first, x=core.x, height=length - first, width=core.width),
        ]
    else:
        cores = [
            Window(y=core.y, x=core.x, height=core.height, width=first),
            Window(y=core.y, x=core.x + first, height=core.height, width=length - first),
        ]
    inner = [(core, core.intersect(block.inner)) for core in cores]
    return [
        Block(index=block.index, core=core, inner=part, halo=block.halo) for core, part in inner if part is not None
    ]

"""The parts of a map: the files of a block, written whole and read back."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.io import MemoryFile

from pipeline.errors import RunError
from pipeline.files import sync, whole_file
from pipeline.grid import Block, window_geobox
from pipeline.maps.layers import Layer

_TILE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One file of a block.

    Attributes
    ----------
    size : int
        Bytes of the file.
    crc32 : int
        Checksum of the file.
    values : int
        Checksum of the array it holds, in C order (bands, rows, columns).
    """

    size: int
    crc32: int
    values: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRecord:
    """What a block left: a part for each layer, or none if it had no valid input.

    Attributes
    ----------
    block : int
        The block.
    parts : dict of Part
        By layer.
    cuts : int
        How often memory ran out, and it was cut in two to be computed in smaller pieces.
    """

    block: int
    parts: dict[str, Part] = field(default_factory=dict)
    cuts: int = 0

    @property
    def empty(self) -> bool:
        """Whether the block had no valid input."""
        return not self.parts


def part_path(folder: Path, layer: str, block: int) -> Path:
    """Return where the part of a layer and a block lies."""
    return folder / layer / f"{block:08d}.tif"


def write_parts(
    folder: Path,
    layers: Sequence[Layer],
    block: Block,
    arrays: Mapping[str, np.ndarray[Any, Any]] | None,
    geobox: GeoBox,
) -> PartRecord:
    """Write the parts of a block. Runs in a worker; nothing counts as done before the driver has recorded it.

    Parameters
    ----------
    folder : Path
        Folder of the part store.
    layers : sequence of Layer
        The layers to be written.
    block : Block
        The block; its ``inner`` window is what is written.
    arrays : dict of (bands, h, w) arrays, or None
        Stored values of each layer on ``block.inner``; None for a block without valid input.
    geobox : GeoBox
        The grid of the whole map.

    Returns
    -------
    PartRecord
        To be handed to `PartStore.record`.

    Raises
    ------
    ValueError
        If an array has another shape or type than its layer.
    RunError
        If the disk is full, or what was written does not read back the same.
    """
    if arrays is None:
        return PartRecord(block=block.index)
    grid = window_geobox(geobox, block.inner)
    return PartRecord(
        block=block.index,
        parts={
            layer.name: _write(part_path(folder, layer.name, block.index), layer, arrays[layer.name], grid)
            for layer in layers
        },
    )


def _write(path: Path, layer: Layer, array: np.ndarray[Any, Any], grid: GeoBox) -> Part:
    expected = (len(layer.bands), int(grid.shape.y), int(grid.shape.x))
    if array.shape != expected or array.dtype != layer.dtype:
        raise ValueError(
            f"layer {layer.name!r}: expected {layer.dtype} (bands, rows, columns) = {expected}, "
            f"got {array.dtype} {array.shape}"
        )
    array = np.ascontiguousarray(array)
    content = _encode(layer, array, grid)
    try:
        with whole_file(path) as temporary:
            temporary.write_bytes(content)
            sync(temporary)
            _compare(temporary, array)
    except OSError as error:
        free = shutil.disk_usage(path.parent).free
        raise RunError(
            f"part {path} cannot be written: {error.strerror}; it needs {len(content):,} bytes, {free:,} are free in "
            f"{path.parent} ({max(0, len(content) - free):,} missing for this part alone); make room and start again, "
            "what is done is kept"
        ) from error
    return Part(size=len(content), crc32=zlib.crc32(content), values=zlib.crc32(array.data))


def _encode(layer: Layer, array: np.ndarray[Any, Any], grid: GeoBox) -> bytes:
    """Return a GeoTIFF. It is made in memory: a full disk then shows as an error of ours, never as silent zeros."""
    bands, height, width = array.shape
    tile = {"tiled": True, "blockxsize": _TILE, "blockysize": _TILE} if min(height, width) >= _TILE else {}
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            count=bands,
            height=height,
            width=width,
            dtype=layer.dtype,
            nodata=layer.nodata,
            crs=str(grid.crs) if grid.crs else None,
            transform=grid.affine,
            compress="ZSTD",
            zstd_level=1,
            predictor=layer.predictor,
            interleave="band",
            **tile,
        ) as target:
            target.write(array)
        return bytes(memory.getbuffer())


def _compare(path: Path, array: np.ndarray[Any, Any]) -> None:
    with rasterio.open(path) as source:
        found = source.read()
    if found.dtype != array.dtype or found.tobytes() != array.tobytes():
        raise RunError(f"part {path} does not hold what was written to it; is the disk full or failing?")

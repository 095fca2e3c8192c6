"""Parts to one cloud-optimised GeoTIFF per layer."""

from __future__ import annotations

import math
import os
import shutil
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ElementTree, SubElement

import numpy as np
import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from pipeline.errors import RunError
from pipeline.files import sync, whole_file
from pipeline.grid import Block
from pipeline.maps.geotiff import write_sidecars
from pipeline.maps.layers import Layer, rgb
from pipeline.maps.parts import part_path
from pipeline.maps.store import PartStore

Array = np.ndarray[Any, Any]

# GDAL's name of each type we store.
_GDAL_TYPE = {"uint8": "Byte", "uint16": "UInt16", "float32": "Float32"}
_TILE = 512
# What keeps memory flat: a small block cache, in bytes; few parts open at once, as each holds a tile; and rows read by
# one thread, since compression keeps all others busy. Tiles that go through the cache are assembled once, and not again
# where values and their mask are wanted.
_GDAL = {
    "GDAL_CACHEMAX": 64 << 20,
    "GDAL_FORCE_CACHING": True,
    "GDAL_MAX_DATASET_POOL_SIZE": 32,
    "VRT_NUM_THREADS": 1,
    "GDAL_PAM_ENABLED": False,
}
# GDAL makes overviews in a file of its own and then copies them. Compressed, that file costs up to a quarter of the time;
# it is left as it is up to this many bytes.
_OVERVIEWS = 2 << 30
# Values that are looked at to find the range of a layer: about a million.
_SAMPLE = 1_000_000
# rasterio lets errors of GDAL through a copy as they are, without a public base; where GDAL fails without saying why,
# as when a disk fills up, it raises SystemError.
_FAILURES = (RasterioError, CPLE_BaseError, OSError, SystemError)


def mosaic(store: PartStore, layer: Layer, out: Path, *, threads: int | None = None) -> Path:
    """Write a layer as one cloud-optimised GeoTIFF, verified before it gets its name, with what belongs beside it.

    Blocks without a part are nodata. Memory does not grow with the raster, and the bytes depend on nothing but the
    values and the layer.

    Parameters
    ----------
    store : PartStore
        The parts.
    layer : Layer
        Which layer.
    out : Path
        The file to be made.
    threads : int
        Threads for compression and for reading back; default: one per core this process may use.

    Raises
    ------
    RunError
        If the disk is full, or the file does not hold what the parts hold.
    """
    threads = threads or len(os.sched_getaffinity(0))
    folder = store.folder / "mosaic" / layer.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        source = _describe(store, layer, folder)
        plain = {"COG_TMP_COMPRESSION": "NONE"} if _overview_bytes(store, layer) <= _OVERVIEWS else {}
        with rasterio.Env(**_GDAL, **plain):
            with whole_file(out) as temporary:
                rasterio.shutil.copy(source, temporary, driver="COG", **cog_options(layer, threads))
                counts, values = _verify(store, layer, temporary, threads)
            write_sidecars(out, layer, counts, values)
    except _FAILURES as error:
        raise RunError(_failure(store, layer, out, error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return out


def cog_options(layer: Layer, threads: int) -> dict[str, Any]:
    """Return the options of GDAL's COG driver for the file of a layer, compressed on so many threads."""
    resampling = layer.overview.upper()
    return {
        "BLOCKSIZE": _TILE,
        "COMPRESS": "DEFLATE",
        # Noise does not get smaller by more effort: of shares and numbers the least takes 40 % less time, and gives a smaller
        # file (shares) or one a hundredth larger (numbers).
        "LEVEL": 6 if layer.kind == "classes" else 1,
        "PREDICTOR": {1: "NO", 2: "STANDARD", 3: "FLOATING_POINT"}[layer.predictor],
        "OVERVIEW_RESAMPLING": resampling,
        "RESAMPLING": resampling,
        "BIGTIFF": "IF_SAFER",
        # Tiles without a value are left out, of the overviews too, and read as nodata: a map of a part of a country takes the
        # room and the time of that part.
        "SPARSE_OK": True,
        "NUM_THREADS": threads,
    }


def _describe(store: PartStore, layer: Layer, folder: Path) -> Path:
    """Write a VRT over all parts and return its path.

    There is one VRT per row of blocks and one over the rows: GDAL opens a row only where it reads, so the
    description in memory grows with the rows, not with the blocks.
    """
    blocks = store.blocks
    rows: list[tuple[Path, int, int]] = []
    for row in range(blocks.rows):
        members = [blocks[row * blocks.columns + column] for column in range(blocks.columns)]
        present = [b for b in members if (r := store.records.get(b.index)) is not None and layer.name in r.parts]
        if not present:
            continue
        top, height = members[0].inner.y, members[0].inner.height
        root = _dataset(layer, height, int(blocks.geobox.shape.x))
        for index, band in enumerate(root.findall("VRTRasterBand"), start=1):
            for block in present:
                path = part_path(store.folder, layer.name, block.index)
                _place(band, path, index, layer, (block.inner.x, 0, block.inner.width, block.inner.height))
        path = folder / f"{row:06d}.vrt"
        ElementTree(root).write(path, encoding="utf-8")
        rows.append((path, top, height))
    root = _dataset(layer, int(blocks.geobox.shape.y), int(blocks.geobox.shape.x))
    _georeference(root, store)
    _say(root, layer)
    for index, band in enumerate(root.findall("VRTRasterBand"), start=1):
        _dress(band, layer, index)
        for path, top, height in rows:
            _place(band, path, index, layer, (0, top, int(blocks.geobox.shape.x), height))
    path = folder / "mosaic.vrt"
    ElementTree(root).write(path, encoding="utf-8")
    return path


def _dataset(layer: Layer, height: int, width: int) -> Element:
    root = Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    for index in range(1, len(layer.bands) + 1):
        band = SubElement(
            root,
            "VRTRasterBand",
            dataType=_GDAL_TYPE[layer.dtype],
            band=str(index),
            blockXSize=str(_TILE),
            blockYSize=str(_TILE),
        )
        _text(band, "NoDataValue", repr(layer.nodata))
    return root


def _place(band: Element, path: Path, index: int, layer: Layer, place: tuple[int, int, int, int]) -> None:
    x, y, width, height = (str(n) for n in place)
    source = SubElement(band, "SimpleSource")
    _text(source, "SourceFilename", str(path.absolute())).set("relativeToVRT", "0")
    _text(source, "SourceBand", str(index))
    SubElement(
        source,
        "SourceProperties",
        RasterXSize=width,
        RasterYSize=height,
        DataType=_GDAL_TYPE[layer.dtype],
        BlockXSize=str(_TILE),
        BlockYSize=str(_TILE),
    )
    SubElement(source, "SrcRect", xOff="0", yOff="0", xSize=width, ySize=height)
    SubElement(source, "DstRect", xOff=x, yOff=y, xSize=width, ySize=height)


def _georeference(root: Element, store: PartStore) -> None:
    geobox = store.blocks.geobox
    if geobox.crs is not None:
        _text(root, "SRS", geobox.crs.to_wkt())
    _text(root, "GeoTransform", ", ".join(repr(float(v)) for v in geobox.affine.to_gdal()))


def _say(root: Element, layer: Layer) -> None:
    metadata = SubElement(root, "Metadata")
    tags = {"AREA_OR_POINT": "Area", "layer": layer.name, "overview_resampling": layer.overview} | dict(layer.tags)
    for name, value in sorted(tags.items()):
        _text(metadata, "MDI", value).set("key", name)


def _dress(band: Element, layer: Layer, index: int) -> None:
    """Give a band its name, scale and palette."""
    _text(band, "Description", layer.bands[index - 1])
    if layer.scale != 1:
        _text(band, "Scale", repr(layer.scale))
        _text(band, "Offset", "0")
    if layer.unit:
        _text(band, "UnitType", layer.unit)
    if layer.legend is None:
        _text(band, "ColorInterp", "Gray" if index == 1 else "Undefined")
        return
    _text(band, "ColorInterp", "Palette")
    table = SubElement(band, "ColorTable")
    colors = {int(c.code): rgb(c.color) for c in layer.legend.classes}
    for code in range(max(colors) + 1):
        red, green, blue = colors.get(code, (0, 0, 0))
        SubElement(table, "Entry", c1=str(red), c2=str(green), c3=str(blue), c4="255")


def _text(parent: Element, name: str, text: str) -> Element:
    element = SubElement(parent, name)
    element.text = text
    return element


def _overview_bytes(store: PartStore, layer: Layer) -> int:
    """Return the size of all overviews together, as they are: a third of the map."""
    height, width = (int(n) for n in store.blocks.geobox.shape)
    return height * width * len(layer.bands) * np.dtype(layer.dtype).itemsize // 3


def _verify(store: PartStore, layer: Layer, path: Path, threads: int) -> tuple[dict[int, int], Array]:
    """Sync a file, compare every block of it with the checksum of what its worker computed, and look at what it holds.

    Returns
    -------
    dict of int
        Pixels per class code, ascending, without nodata and codes that do not occur; empty where there are no classes.
    array
        Where there are no classes: values of the first band on a lattice of pixels over the whole map, without nodata.
    """
    geobox = store.blocks.geobox
    with rasterio.open(path) as found:
        if found.shape != tuple(geobox.shape) or found.dtypes[0] != layer.dtype or found.count != len(layer.bands):
            raise RunError(f"{path} has {found.count} bands of {found.dtypes[0]}, {found.shape}")

    codes = [] if layer.legend is None else sorted(int(c.code) for c in layer.legend.classes)
    step = math.ceil(math.sqrt(geobox.shape.y * geobox.shape.x / _SAMPLE))

    def check(blocks: Sequence[Block]) -> tuple[Array, list[Array]]:
        counts, seen = np.zeros(len(codes), np.int64), []
        with rasterio.open(path) as source:
            for block in blocks:
                values = source.read(window=block.inner.to_rasterio())
                record = store.records.get(block.index)
                if record is None or layer.name not in record.parts:
                    same = bool(np.isnan(values).all() if np.isnan(layer.nodata) else (values == layer.nodata).all())
                else:
                    same = zlib.crc32(values.data) == record.parts[layer.name].values
                if not same:
                    raise OSError(f"block {block.index} ({block.inner}) does not read back as it was written")
                if codes:
                    # A third of the time of a histogram, and side by side.
                    counts += [np.count_nonzero(values == code) for code in codes]
                elif record is not None and not record.empty:
                    some = values[0, -block.inner.y % step :: step, -block.inner.x % step :: step]
                    seen.append(some[some != layer.nodata])
        return counts, seen

    rows = (
        [store.blocks[r * store.blocks.columns + c] for c in range(store.blocks.columns)]
        for r in range(store.blocks.rows)
    )
    with ThreadPoolExecutor(max_workers=threads + 1) as pool:
        # Waiting for the disk, while processors read back what is in memory anyway.
        synced = pool.submit(sync, path)
        counts, seen = np.zeros(len(codes), np.int64), [np.empty(0, layer.dtype)]
        for some_counts, some_seen in pool.map(check, rows):
            counts += some_counts
            seen += some_seen
        synced.result()
    return {code: int(n) for code, n in zip(codes, counts, strict=True) if n}, np.concatenate(seen)


def _failure(store: PartStore, layer: Layer, out: Path, error: Exception) -> str:
    # Room for the file, a third more for its overviews, and as much again while these are being made.
    needed = sum(r.parts[layer.name].size for r in store.records.values() if layer.name in r.parts) * 5 // 3
    free = shutil.disk_usage(out.parent).free
    return (
        f"{out} cannot be written: {error}. It may need {needed:,} bytes; {free:,} are free in {out.parent} "
        f"({max(0, needed - free):,} missing). Make room, or mend the cause, and start again: what is done is kept"
    )

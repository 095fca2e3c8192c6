"""Open rasters: an allow-list of drivers, one handle per thread, a cache sized in bytes."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio._path import _parse_path
from rasterio.env import ensure_env_with_credentials
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from pipeline.engine import cores, memory_budget
from pipeline.errors import ImageryError, nearest

# What rasterio raises when GDAL fails: most calls wrap GDAL's own errors, a few let them through.
GDAL_ERRORS = (RasterioError, CRSError, CPLE_BaseError)

# Formats that hold pixels and nothing else. A VRT names other files, so it must say so in its name; databases, services
# and scripts are not imagery.
DRIVERS = (
    "GTiff", "COG", "JP2OpenJPEG", "JPEG", "PNG", "HFA", "ENVI", "EHdr", "ERS", "AAIGrid", "netCDF", "HDF4", "HDF4Image",
    "HDF5", "HDF5Image", "SAFE", "SENTINEL2", "NITF", "PCIDSK", "RST", "SAGA", "SRTMHGT", "Terragen", "ISIS3", "PDS4", "KEA",
    "WEBP", "GIF", "BMP", "RMF", "ILWIS", "GSAG", "GSBG", "XYZ", "ZMap", "USGSDEM", "DTED", "BT", "MRF", "LERC",
)  # fmt: skip

# Handles that a thread keeps open: a series of some years of images, each read again for every block. A series of a
# thousand files must not exhaust the files that the process may open, of which all threads together take half at most.
_FEWEST, _MOST = 48, 256
_CACHE_SHARE = 0.01
# A thread decodes one piece at a time, and other threads do so beside it.
_PIECE_SHARE = 0.1
_CACHE_LEAST, _CACHE_MOST = 32 << 20, 128 << 20


@functools.cache
def kept() -> int:
    """Return how many handles a thread keeps open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(_FEWEST, min(_MOST, soft // (2 * cores())))


class _Handles(threading.local):
    """Open datasets of one thread, the least recently used closed first."""

    def __init__(self) -> None:
        self.open: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        found = self.open.pop(key, None)
        if found is None:
            while len(self.open) >= kept():
                _, old = self.open.popitem(last=False)
                old.close()
            found = make()
        self.open[key] = found
        return found


_handles = _Handles()
_lock = threading.Lock()


def handle(path: str, key: Hashable, make: Callable[[Any], Any]) -> Any:
    """Return this thread's open handle of ``key``, made from the dataset at ``path`` when there is none.

    The key holds the file's size and time of change: a file that was replaced is opened anew.
    """
    stamp: tuple[int, int] | None = None
    with contextlib.suppress(OSError):
        stat = Path(path).stat()
        stamp = (stat.st_size, stat.st_mtime_ns)
    return _handles.get((os.getpid(), path, stamp, key), lambda: make(open_raster(path)))


def check_pieces(dataset: Any, path: str) -> None:
    """Refuse a file whose pieces, tiles or strips, are too large to be decoded: what its header says is not allocated.

    Raises
    ------
    ImageryError
        If one piece would take more than a share of the memory budget.
    """
    height, width = max(dataset.block_shapes, key=lambda shape: int(shape[0] * shape[1]))
    size = int(height) * int(width) * max(np.dtype(t).itemsize for t in dataset.dtypes)
    budget = int(_PIECE_SHARE * memory_budget())
    if size > budget:
        raise ImageryError(
            f"{path} is stored in pieces of {height} x {width} pixels, {size / 2**30:,.1f} GiB each; to read any pixel a whole "
            f"one has to be decoded, and at most {budget / 2**30:,.1f} GiB may be taken for that. Store it in tiles: "
            "gdal_translate -co TILED=YES -co COMPRESS=DEFLATE"
        )


def brief(error: BaseException) -> str:
    """Return what GDAL says, on one line: the reason rather than "see previous exception", and no CRS spelt out."""
    text = " ".join(str(error.__cause__ or error).split())
    text = text.split(" from '{", 1)[0]
    return text if len(text) <= 200 else f"{text[:200]} ..."


def open_raster(path: str) -> Any:
    """Open a raster for reading.

    Raises
    ------
    ImageryError
        If the file is missing (names the nearest), is no raster, or is of a kind that is not read.
    """
    remote = path.startswith("/vsi") or "://" in path
    file = Path(path)
    if not remote and not file.exists() and ":" not in path:
        beside = [p.name for p in file.parent.iterdir()] if file.parent.is_dir() else []
        where = "" if file.parent.is_dir() else f" (the folder {file.parent} does not exist)"
        raise ImageryError(f"{path}: there is no such file{where}{nearest(file.name, beside)}")
    drivers = [*DRIVERS, "VRT"] if file.suffix.lower() == ".vrt" else list(DRIVERS)
    configure()
    try:
        return _open(path, drivers)
    except GDAL_ERRORS as error:
        hint = f"; it is a folder: give its files, such as {file / '*.tif'}" if file.is_dir() else ""
        if file.suffix.lower() != ".vrt" and file.is_file():
            with file.open("rb") as stream:
                if b"<VRTDataset" in stream.read(512):
                    hint = "; it is a VRT, which names other files, under another name: call it .vrt if you trust it"
        raise ImageryError(f"{path} cannot be opened as a raster{hint or f': {brief(error)}'}") from error


@ensure_env_with_credentials  # type: ignore[untyped-decorator]
def _open(path: str, drivers: list[str]) -> DatasetReader:
    # A raster without a position is refused where one is needed, in our own words. Filters of warnings belong to the
    # process, so threads take turns.
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        # rasterio.open takes one driver; its reader takes the whole allow-list.
        return DatasetReader(_parse_path(path), driver=drivers, sharing=False)


_configured = False


def cache_bytes() -> int:
    """Return the most bytes that GDAL keeps of what it decoded: as the environment says, in GDAL's own units, else a share."""
    stated = os.environ.get("GDAL_CACHEMAX", "").strip()
    number = stated.removesuffix("%").removesuffix("MB")
    if not number.replace(".", "", 1).isdigit():
        return int(min(_CACHE_MOST, max(_CACHE_LEAST, _CACHE_SHARE * memory_budget())))
    size = float(number)
    if stated.endswith("%"):
        return int(size / 100 * memory_budget())
    # To GDAL small numbers are megabytes.
    return int(size if size >= 100_000 and not stated.endswith("MB") else size * 2**20)


def configure() -> None:
    """Set up GDAL once per process: a block cache sized from the machine or its container, and warps that do not vary.

    rasterio passes GDAL_CACHEMAX on as bytes, where GDAL's own reading of small numbers is megabytes. Large windows of a
    warped view would be warped at one go, with a scale taken from the window: a pixel would then depend on the block
    through which it is read. Warped block by block on a lattice of its own, it does not.

    Listing the folder whenever a file is opened costs a series of a thousand files a third of that time, and stays on:
    it is how GDAL finds headers whose names are in the other case (``.HDR``).
    """
    global _configured
    with _lock:
        if _configured:
            return
        rasterio.env.set_gdal_config("GDAL_VRT_WARP_USE_DATASET_RASTERIO", "NO")
        if "GDAL_CACHEMAX" not in os.environ:
            rasterio.env.set_gdal_config("GDAL_CACHEMAX", cache_bytes())
        _configured = True

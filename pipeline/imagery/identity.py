"""What identifies the contents of imagery: checksums of files, and of what lies behind an address, what its server says."""

from __future__ import annotations

import contextlib
import hashlib
import urllib.request
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import Any

from pipeline.files import fingerprint
from pipeline.imagery.handles import open_raster
from pipeline.imagery.paths import shown, virtual
from pipeline.imagery.remote import gdal_name

_SECONDS = 30
# Places of stored tiles that are looked at: the first ones, in the order in which they are written.
_TILES = 1000


def identity(path: str) -> dict[str, Any]:
    """Return what identifies a raster, whether a file or behind an address.

    Of a file it is its `fingerprint`. Of an address of the web it is what the server states: ETag, time of change and size.
    Of other addresses, and where a server states neither of the first two, it is a checksum of the header (``header``):
    tags, and sizes and places of stored tiles, which change with compressed contents, but not with uncompressed ones.

    Raises
    ------
    ImageryError, ReadError
        If it cannot be opened.
    """
    if not virtual(path):
        return fingerprint(Path(path))
    name = gdal_name(path)
    if name.startswith(("/vsicurl/http://", "/vsicurl/https://")):
        stated = _stated(name.removeprefix("/vsicurl/"))
        if "etag" in stated or "modified" in stated:
            return {"path": shown(path)} | stated
    return {"path": shown(path), "header": _header(path)}


def _stated(address: str) -> dict[str, Any]:
    """Return what a web server states of a file without sending it; nothing if it does not answer."""
    # An address that is signed for reading may refuse to say what it would send: then one byte is asked for.
    for method, extra in (("HEAD", {}), ("GET", {"Range": "bytes=0-0"})):
        request = urllib.request.Request(address, method=method, headers=extra)  # noqa: S310 - http and https alone
        with (
            contextlib.suppress(HTTPException, OSError),
            urllib.request.urlopen(request, timeout=_SECONDS) as answer,  # noqa: S310
        ):
            return _taken(answer.headers)
    return {}


def _taken(headers: HTTPMessage) -> dict[str, Any]:
    size = headers.get("Content-Range", "").rpartition("/")[2] or headers.get("Content-Length")
    found = {"size": size, "etag": headers.get("ETag"), "modified": headers.get("Last-Modified")}
    return {name: int(v) if name == "size" and v.isdigit() else v for name, v in found.items() if v}


def _header(path: str) -> str:
    digest = hashlib.sha256()
    with open_raster(path) as dataset:
        digest.update(repr((sorted(dataset.profile.items(), key=str), sorted(dataset.tags().items()))).encode())
        height, width = dataset.block_shapes[0]
        rows, columns = -(-dataset.height // height), -(-dataset.width // width)
        for i in range(min(rows * columns, _TILES)):
            y, x = divmod(i, columns)
            for what in ("OFFSET", "SIZE"):
                digest.update(f"{dataset.get_tag_item(f'BLOCK_{what}_{x}_{y}', 'TIFF', bidx=1)} ".encode())
    return digest.hexdigest()

"""Rasters behind an address: what GDAL is told about the network, what is tried again, and what a server said."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import TypeVar

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio._path import _parse_path, _vsi_path
from rasterio.errors import CRSError, RasterioError

from pipeline.imagery.paths import file_name, virtual

# What rasterio raises when GDAL fails: most calls wrap GDAL's own errors, a few let them through.
GDAL_ERRORS = (RasterioError, CRSError, CPLE_BaseError)

_NETWORK = re.compile(r"/vsi(curl|s3|gs|az|adls|oss|swift|hdfs|webhdfs)(_streaming)?/")
# Formats of one file: beside them nothing is looked for.
_SINGLE = (".tif", ".tiff", ".jp2", ".vrt")
# What GDAL is told for files behind an address, where the user's environment says nothing else. Answers such as 429 and
# 503 are asked for again by GDAL, after a wait that doubles.
_OPTIONS = {"GDAL_HTTP_MAX_RETRY": "4", "GDAL_HTTP_RETRY_DELAY": "0.5"}
# Faults that GDAL does not repeat, such as a connection cut off, are met here: so many attempts, after waits that grow.
_ATTEMPTS, _LONGER = 4, 3
# Of these a server will say the same the next time.
_FINAL = {400, 401, 403, 404, 405, 410, 416}
_SECONDS = 30
T = TypeVar("T")

opening = threading.Lock()
"""Held while a raster is opened: filters of warnings, and options of GDAL set by the main thread, belong to the process."""

_SAID = re.compile(r"(?:HTTP error code: |HTTP response code: |response_code=)(\d+)|CURL error: ([^\n]+)")


def gdal_name(path: str) -> str:
    """Return GDAL's name of a raster: https://... is /vsicurl/https://..., and s3://... is /vsis3/...

    Of a name in its own form GDAL takes credentials from its own environment variables; rasterio adds nothing.
    """
    if path.startswith("/vsi") or "://" not in path:
        return path
    return str(_vsi_path(_parse_path(path)))


def networked(path: str) -> bool:
    """Return whether a raster is read over the network."""
    return virtual(path) and _NETWORK.search(gdal_name(path)) is not None


def options(path: str) -> dict[str, str]:
    """Return GDAL's options for opening a raster over the network.

    Each file that GDAL looks for beside a raster is a request; a format of one file has none.
    """
    alone = Path(file_name(path)).suffix.lower() in _SINGLE
    chosen = _OPTIONS | {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR" if alone else "TRUE"}
    return {name: value for name, value in chosen.items() if name not in os.environ}


def patiently(path: str, work: Callable[[], T]) -> T:
    """Return what ``work`` gives; where it reads over the network, try again after faults that may pass.

    Raises
    ------
    rasterio.errors.RasterioError, rasterio._err.CPLE_BaseError
        As ``work`` does, if it fails each time, or for a reason that stays.
    """
    if not networked(path):
        return work()
    delay = float(os.environ.get("GDAL_HTTP_RETRY_DELAY", _OPTIONS["GDAL_HTTP_RETRY_DELAY"]))
    for left in reversed(range(_ATTEMPTS)):
        _heard.last = ""
        try:
            return work()
        except GDAL_ERRORS as error:
            if not left or status(error) in _FINAL:
                raise
        # Many workers that failed together are not to come back together.
        time.sleep(delay * random.uniform(1, 1.5))  # noqa: S311 - no secret
        delay *= _LONGER
        _forget(path)
    raise AssertionError("the last attempt returns or raises")


def _forget(path: str) -> None:
    """Let GDAL forget what it holds of a file: of an answer that was cut off it keeps the first part for the whole."""
    name = gdal_name(path)
    with opening, contextlib.suppress(*GDAL_ERRORS), rasterio.Env(**options(path), CPL_VSIL_CURL_NON_CACHED=name):
        rasterio.open(name).close()


class _Heard(threading.local):
    """What GDAL last heard from a server, in this thread."""

    last = ""


_heard = _Heard()


class _Listener(logging.Handler):
    """Keeps what servers said: rasterio passes GDAL's warnings on to its log alone."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if _SAID.search(text):
            _heard.last = text


logging.getLogger("rasterio").addHandler(_Listener(logging.WARNING))


def _said(error: BaseException) -> re.Match[str] | None:
    return _SAID.search(str(error.__cause__ or error)) or _SAID.search(_heard.last)


def status(error: BaseException) -> int | None:
    """Return the status with which a server answered a read that failed, if it did."""
    found = _said(error)
    return int(found[1]) if found and found[1] and int(found[1]) else None


def answer(error: BaseException) -> str:
    """Return what went wrong between here and the server, or "" if nothing is known."""
    found, code = _said(error), status(error)
    if code is not None:
        return "the connection was cut off" if code < 400 else _named(code)
    return found[2].strip() if found and found[2] else ""


def asked(path: str) -> str:
    """Return what a web server says now when it is asked for a file, where GDAL kept it to itself; "" if all is well."""
    address = gdal_name(path).removeprefix("/vsicurl/")
    if not address.startswith(("http://", "https://")):
        return ""
    request = urllib.request.Request(address, headers={"Range": "bytes=0-0"})  # noqa: S310 - http and https alone
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS):  # noqa: S310
            return ""
    except urllib.error.HTTPError as error:
        return _named(error.code)
    except (OSError, HTTPException) as error:
        return " ".join(str(error).split())


def _named(code: int) -> str:
    if code in (401, 403):
        return f"the server refuses access ({code}): credentials are GDAL's own, see docs/remote.md"
    names = {s.value: s.phrase for s in HTTPStatus}
    return f"the server answers {code} ({names.get(code, 'a status of its own')})"


def passing(error: BaseException) -> bool:
    """Return whether a read failed because of a server, or the way to it, and not because of what was asked for."""
    code = status(error)
    return _said(error) is not None and code not in _FINAL

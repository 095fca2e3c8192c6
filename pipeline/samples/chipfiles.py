"""One chip, one file: a small raster or an array, without any need of a place on the ground."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp

from pipeline.errors import LabelError, ReadError
from pipeline.imagery.bands import described
from pipeline.imagery.handles import brief, open_raster
from pipeline.imagery.remote import GDAL_ERRORS

Array = np.ndarray[Any, Any]

_RASTERS = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
SUFFIXES = (*_RASTERS, ".npz")
"""Kinds of files that are chips."""

_KEY = "x"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a chip says of itself.

    Attributes
    ----------
    bands : tuple of str
        Names: a GeoTIFF's own descriptions, else ``band_1``, ...
    shape : (int, int)
        Height and width.
    scaling : tuple of (float, float)
        Scale and offset of each band.
    nodata : float or None
        Value that means no data.
    place : (str, float, float) or None
        CRS, and x and y of the centre; None of a file without a position.
    """

    bands: tuple[str, ...]
    shape: tuple[int, int]
    scaling: tuple[tuple[float, float], ...]
    nodata: float | None = None
    place: tuple[str, float, float] | None = None


def facts_of(path: Path) -> Facts:
    """Return what a chip says of itself, from its header.

    Raises
    ------
    ImageryError, LabelError
        If it is no chip; says why.
    """
    if path.suffix.lower() == ".npz":
        array = _array(path)
        return Facts(_numbered(len(array)), (array.shape[1], array.shape[2]), ((1.0, 0.0),) * len(array))
    with open_raster(str(path)) as raster:
        kept = _measured(raster, path)
        names = described(raster)
        place = None
        if raster.crs is not None and not raster.transform.is_identity:
            place = (raster.crs.to_wkt(), *(raster.transform @ (raster.width / 2, raster.height / 2)))
        return Facts(
            tuple(names[i - 1] for i in kept),
            (raster.height, raster.width),
            tuple((raster.scales[i - 1], raster.offsets[i - 1]) for i in kept),
            raster.nodata,
            place,
        )


def read_chip(path: Path) -> Array:
    """Return the values of a chip, (C, H, W) float32, scaled as the file says; NaN where there is no data.

    Raises
    ------
    ImageryError, LabelError
        If it is no chip; says why.
    ReadError
        If it is damaged.
    """
    if path.suffix.lower() == ".npz":
        return _array(path).astype(np.float32)
    with open_raster(str(path)) as raster:
        kept = _measured(raster, path)
        try:
            found = raster.read(kept, masked=True)
        except GDAL_ERRORS as error:
            raise ReadError(f"{path} cannot be read ({brief(error)}): the file is damaged; leave it out") from error
        scale, offset = (np.array([of[i - 1] for i in kept])[:, None, None] for of in (raster.scales, raster.offsets))
    values = found.data * scale + offset
    return np.asarray(np.where(np.ma.getmaskarray(found), np.nan, values), dtype=np.float32)


def reach(shape: tuple[int, int]) -> int:
    """Return how many pixels a chip (H, W) has on every side of its centre, the pixel (H // 2, W // 2)."""
    return (min(shape) - 1) // 2


def around_centre(values: Array, radius: int) -> Array:
    """Return the square (..., 2 * radius + 1, 2 * radius + 1) around the centre of a chip (..., H, W)."""
    y, x = (n // 2 - radius for n in values.shape[-2:])
    side = 2 * radius + 1
    return values[..., y : y + side, x : x + side]


def unnamed(bands: Sequence[str]) -> bool:
    """Return whether bands are known by their numbers alone."""
    return tuple(bands) == _numbered(len(bands))


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"band_{i}" for i in range(1, count + 1))


def _measured(raster: Any, path: Path) -> list[int]:
    """Return the bands that hold values, from 1: an alpha band says where they are valid, which reading goes by."""
    if ColorInterp.palette in raster.colorinterp:
        raise LabelError(
            f"{path} is a picture with a palette, whose values are numbers of colours; turn it into its colours "
            "(gdal_translate -expand rgb), or take the data that it was made from"
        )
    return [i for i, use in enumerate(raster.colorinterp, start=1) if use != ColorInterp.alpha]


def _array(path: Path) -> Array:
    """Return the array of a file of NumPy, (C, H, W)."""
    try:
        with np.load(path) as archive:
            names = list(archive)
            name = _KEY if _KEY in names else names[0] if len(names) == 1 else None
            if name is None:
                raise LabelError(f"{path} holds {len(names)} arrays ({', '.join(names)}); one of them must be '{_KEY}'")
            array = archive[name]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ReadError(f"{path} cannot be read as arrays of NumPy: {error}") from error
    if array.dtype.kind not in "iufb":
        raise LabelError(f"{path}: the array '{name}' holds no numbers, found {array.dtype}")
    if array.ndim == 2:
        return np.asarray(array[None])
    if array.ndim == 3 and array.shape[1] == array.shape[2]:
        return np.asarray(array)
    if array.ndim == 3 and array.shape[0] == array.shape[1]:
        return np.moveaxis(array, -1, 0)
    raise LabelError(
        f"{path}: the array '{name}' is {array.shape}; a chip is square: (bands, side, side), (side, side, bands) or (side, side)"
    )

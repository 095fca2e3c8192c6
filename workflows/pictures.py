"""Pictures of large rasters for a page: read from the overviews, never the whole raster."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from pyproj import Geod
from rasterio.enums import Resampling
from rasterio.warp import transform as to_crs

from pipeline.maps.layers import LegendEntry

Array = np.ndarray[Any, Any]

# Part of the picture's width that a scale bar may take.
_BAR = 0.28
_RAMP = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class MapPicture:
    """A map as a picture for a page.

    Attributes
    ----------
    uri : str
        PNG as a data URI; transparent where there is no data.
    width, height : int
        Pixels of the picture.
    caption : str
        Size, pixel and CRS of the raster.
    bar : tuple of (float, str) or None
        Length of the scale bar as a share of the picture's width, and what it stands for; None without a CRS.
    north : float or None
        Degrees clockwise from the picture's top to true north, at the centre; None where that has no answer.
    low, high : float or None
        Values at the ends of the colour ramp; None for classes and where nothing is valid.
    colors : tuple of str
        Colours of the ramp, from low to high; empty for classes.
    """

    uri: str
    width: int
    height: int
    caption: str
    bar: tuple[float, str] | None
    north: float | None
    low: float | None = None
    high: float | None = None
    colors: tuple[str, ...] = ()


def class_picture(path: Path, legend: Sequence[LegendEntry], *, most: int = 1100) -> MapPicture:
    """Return a class map in its colours; the longer side has at most ``most`` pixels."""
    with rasterio.open(path) as raster:
        values, valid = decimated(raster, most, Resampling.nearest)
        index, palette = indexed(values, valid, legend)
        return MapPicture(uri=_uri(index, palette), **frame(raster, values.shape))


def ramp_picture(
    path: Path, *, colors: str, most: int = 760, span: tuple[float, float] | None = None, average: bool = False
) -> MapPicture:
    """Return the first band of a layer under a colour ramp.

    Parameters
    ----------
    colors : str
        Name of a matplotlib colour map.
    span : (float, float), optional
        Values at the ends of the ramp. Default: the 2nd and 98th percentile of what the picture shows.
    average : bool
        Average what falls into a pixel of the picture, instead of taking the nearest value.
    """
    from matplotlib import colormaps

    with rasterio.open(path) as raster:
        stored, valid = decimated(raster, most, Resampling.average if average else Resampling.nearest)
        values = stored * raster.scales[0] + raster.offsets[0]
        valid &= np.isfinite(values)
        low, high = span or (np.percentile(values[valid], (2, 98)) if valid.any() else (math.nan, math.nan))
        ramp = np.asarray(colormaps[colors](np.linspace(0, 1, _RAMP), bytes=True), dtype=np.uint8)
        place = (np.where(valid, values, low) - low) / ((high - low) or 1.0) if valid.any() else np.zeros(values.shape)
        index = np.where(valid, 1 + np.rint(np.clip(place, 0, 1) * (_RAMP - 1)), 0).astype(np.uint16)
        return MapPicture(
            uri=_uri(index, np.vstack([np.zeros((1, 4), np.uint8), ramp])),
            low=float(low) if valid.any() else None,
            high=float(high) if valid.any() else None,
            colors=tuple("#" + bytes(c[:3]).hex() for c in ramp[:: _RAMP // 8].tolist()),
            **frame(raster, values.shape),
        )


def decimated(raster: Any, most: int, resampling: Resampling) -> tuple[Array, Array]:
    """Return the first band at a size of at most ``most`` pixels a side, and where it is valid."""
    factor = min(1.0, most / max(raster.shape))
    shape = (max(1, round(raster.height * factor)), max(1, round(raster.width * factor)))
    return read_small(raster, shape, resampling)


def read_small(raster: Any, shape: tuple[int, int], resampling: Resampling) -> tuple[Array, Array]:
    """Return the first band at the size of ``shape``, from the overviews where there are any, and where it is valid."""
    values = raster.read(1, out_shape=shape, resampling=resampling, masked=True)
    return np.asarray(values.data), ~np.ma.getmaskarray(values)


def indexed(values: Array, valid: Array, legend: Sequence[LegendEntry]) -> tuple[Array, Array]:
    """Return places in a palette (h, w) and the palette (n, 4) uint8; place 0 is transparent: no class."""
    index = np.zeros(values.shape, dtype=np.uint16)
    palette = np.zeros((len(legend) + 1, 4), dtype=np.uint8)
    for i, c in enumerate(legend, 1):
        index[valid & (values == c.code)] = i
        palette[i] = (*bytes.fromhex(c.color.lstrip("#")), 255)
    return index, palette


def _uri(index: Array, palette: Array) -> str:
    from PIL import Image

    if len(palette) <= 256:
        image = Image.fromarray(index.astype(np.uint8))
        image.putpalette(palette.tobytes(), "RGBA")
    else:
        image = Image.fromarray(palette[index])
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def frame(raster: Any, shape: tuple[int, int]) -> dict[str, Any]:
    """Return what stands around a picture: its size, the scale bar, north, the caption."""
    unit = "°" if raster.crs and raster.crs.is_geographic else ""
    if raster.crs and not unit:
        unit = " m" if raster.crs.linear_units_factor[1] == 1 else f" {raster.crs.linear_units}"
    x, y = math.hypot(raster.transform.a, raster.transform.d), math.hypot(raster.transform.b, raster.transform.e)
    side = f"{x:.6g}{unit}" if math.isclose(x, y) else f"{x:.6g} x {y:.6g}{unit}"
    crs = (raster.crs.to_string() if raster.crs.to_epsg() else "a CRS of its own") if raster.crs else "no CRS"
    caption = f"{raster.width:,} x {raster.height:,} pixels of {side}, {crs}"
    if shape != raster.shape:
        caption += f"; shown at {shape[1]:,} x {shape[0]:,}"
    return {"width": shape[1], "height": shape[0], "caption": caption, "bar": _bar(raster), "north": _north(raster)}


def _bar(raster: Any) -> tuple[float, str] | None:
    """Return a round length and its share of the width, measured on the ellipsoid along the middle row."""
    if not raster.crs:
        return None
    # A piece around the centre: on a map of a continent the ends would be measured through other places.
    piece = raster.width / 10
    ends = [raster.transform * (raster.width / 2 + s * piece / 2, raster.height / 2) for s in (-1, 1)]
    lon, lat = to_crs(raster.crs, "EPSG:4326", *zip(*ends, strict=True))
    if not np.isfinite([*lon, *lat]).all():
        return None
    metres = 10 * Geod(ellps="WGS84").inv(lon[0], lat[0], lon[1], lat[1])[2]
    if not metres > 0:
        return None
    step = 10.0 ** math.floor(math.log10(metres * _BAR))
    length = max(m * step for m in (1, 2, 5) if m * step <= metres * _BAR)
    return length / metres, f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"


def _north(raster: Any) -> float | None:
    """Return the direction of true north at the centre, in degrees clockwise from the picture's top."""
    if not raster.crs:
        return None
    centre = raster.transform * (raster.width / 2, raster.height / 2)
    (lon,), (lat,) = to_crs(raster.crs, "EPSG:4326", [centre[0]], [centre[1]])
    if not math.isfinite(lon) or abs(lat) > 89.9:
        return None
    (x,), (y,) = to_crs("EPSG:4326", raster.crs, [lon], [lat + 0.01])
    column, row = ~raster.transform * (x, y)
    return math.degrees(math.atan2(column - raster.width / 2, raster.height / 2 - row))

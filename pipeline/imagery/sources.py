"""One raster source on the grid: values and validity of a window."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from pipeline.grid import Window
from pipeline.imagery.handles import unreadable
from pipeline.imagery.remote import GDAL_ERRORS, patiently
from pipeline.imagery.views import View, view_of

Array = np.ndarray[Any, Any]

# Types whose values float32 holds exactly.
_EXACT = {"uint8", "int8", "uint16", "int16", "float32"}
# Of whole numbers, scaled by less than this, none is too large for float32.
_LARGE = 1e18


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """Pixels to be left out, named by the values of a raster.

    Attributes
    ----------
    path : str
        The raster.
    bands : tuple of int
        Its bands, from 1: one for all bands of the source, or one for each.
    exclude : tuple of int
        Values that make a pixel invalid. Outside the mask raster nothing is left out.
    bits : int
        A pixel is invalid where any bit is set that is set here.
    crs : str or None
        CRS of a mask that states none.
    """

    path: str
    bands: tuple[int, ...]
    exclude: tuple[int, ...] = ()
    bits: int = 0
    crs: str | None = None

    def of(self, bands: Sequence[int]) -> Mask:
        """Return the mask of some bands of the source, by their places in it."""
        own = tuple(self.bands[i] if len(self.bands) > 1 else self.bands[0] for i in bands)
        return replace(self, bands=own if len(set(own)) > 1 else own[:1])

    def read(self, geobox: GeoBox, window: Window) -> Array:
        """Return where pixels are to be left out, (C, h, w) bool, or (1, h, w) for all; the nearest mask pixel counts."""
        # In its own type: float32 does not hold all bits of the wider ones.
        dtype = view_of(self.path, geobox, "nearest", None, self.crs).dataset.dtypes[self.bands[0] - 1]
        values = np.zeros((len(self.bands), *window.shape), dtype)
        inside, _ = _fill(self.path, self.bands, geobox, window, values, "nearest", None, self.crs)
        found = np.zeros(values.shape, bool)
        if self.exclude:
            found |= np.isin(values, self.exclude)
        if self.bits:
            found |= (values & values.dtype.type(self._bits(values.dtype))) != 0
        return np.asarray(found & inside)

    def _bits(self, dtype: Any) -> int:
        """Return the bits as a number that a type can hold: the uppermost one of a signed type is its sign."""
        width = 8 * dtype.itemsize
        return self.bits - (1 << width) if dtype.kind == "i" and self.bits >> (width - 1) else self.bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Bands of one raster file, on one date.

    Attributes
    ----------
    path : str
        The file.
    indexes : tuple of int
        Bands in the file, from 1.
    bands : tuple of str
        Their names in the cube.
    date : datetime.date or None
        The date of all of them.
    nodata : float or None
        Stored value that means no data.
    scales, offsets : tuple of float
        Per band: value = stored * scale + offset.
    resampling : str
        Used only where the file is not on the grid.
    mask : Mask or None
        Pixels to be left out.
    crs : str or None
        CRS of a file that states none.
    """

    path: str
    indexes: tuple[int, ...]
    bands: tuple[str, ...]
    date: datetime.date | None
    nodata: float | None
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    resampling: str = "bilinear"
    mask: Mask | None = None
    crs: str | None = None

    def on_grid(self, geobox: GeoBox) -> bool:
        """Return whether the file's pixels are the grid's; they are resampled if not.

        Raises
        ------
        ImageryError
            If the file cannot be put on the grid at all.
        """
        return view_of(self.path, geobox, self.resampling, self.nodata, self.crs).plain

    def holds(self, geobox: GeoBox, window: Window) -> bool:
        """Return whether the file may hold data in a window of the grid; where it surely does not, nothing need be read."""
        view = view_of(self.path, geobox, self.resampling, self.nodata, self.crs)
        return view.holds(self.indexes, window, self.nodata)

    def read(self, geobox: GeoBox, window: Window) -> tuple[Array, Array]:
        """Read a window of the grid, which may lie partly or wholly outside the file.

        Returns
        -------
        values : (C, h, w) float32
            Scaled values; zero where invalid.
        valid : (C, h, w) bool

        Raises
        ------
        ReadError
            If the file cannot be read there; names file and window.
        """
        values = np.zeros((len(self.indexes), *window.shape), np.float32)
        valid = self.fill(geobox, window, values)
        if not valid.all():
            values[~valid] = 0
        return values, valid

    def fill(self, geobox: GeoBox, window: Window, out: Array) -> Array:
        """Read a window into an array and return where it is valid, (C, h, w) bool.

        Parameters
        ----------
        geobox, window
            The grid, and a window of it; it may lie partly or wholly outside the file.
        out : (C, h, w) float32
            Is overwritten where the file lies; may be a view of something larger. What it holds where values are invalid
            means nothing.

        Raises
        ------
        ReadError
            If the file cannot be read there; names file and window.
        """
        valid, whole_numbers = _fill(
            self.path, self.indexes, geobox, window, out, self.resampling, self.nodata, self.crs
        )
        # A value that float32 cannot hold becomes infinite, and is found invalid below: no reason to warn.
        with np.errstate(over="ignore", invalid="ignore"):
            for i, (scale, offset) in enumerate(zip(self.scales, self.offsets, strict=True)):
                if scale != 1:
                    out[i] *= np.float32(scale)
                if offset != 0:
                    out[i] += np.float32(offset)
        if not (whole_numbers and all(abs(v) < _LARGE for v in self.scales + self.offsets)):
            valid &= np.isfinite(out)
        if self.mask is not None:
            valid &= ~self.mask.read(geobox, window)
        return valid


def _fill(
    path: str,
    indexes: tuple[int, ...],
    geobox: GeoBox,
    window: Window,
    out: Array,
    resampling: str,
    nodata: float | None,
    crs: str | None,
) -> tuple[Array, bool]:
    """Read stored values into ``out``.

    Returns
    -------
    valid : (C, h, w) bool
        Where the file says that they are data; outside the file they are not.
    whole_numbers : bool
        Whether none of the values can be infinite or NaN.
    """
    view = view_of(path, geobox, resampling, nodata, crs)
    dataset = view.dataset
    types = {dataset.dtypes[i - 1] for i in indexes}
    own = types.pop() if len(types) == 1 else "float32" if types <= _EXACT else "float64"
    whole_numbers = np.dtype(own).kind in "iu"
    inside = Window(y=window.y + view.y, x=window.x + view.x, height=window.height, width=window.width).intersect(
        Window(y=0, x=0, height=dataset.height, width=dataset.width)
    )
    if inside is None:
        return np.zeros(out.shape, bool), whole_numbers
    part = Window(y=inside.y - view.y, x=inside.x - view.x, height=inside.height, width=inside.width)
    at = (slice(None), *part.within(window))
    try:
        found = patiently(path, lambda: _stored(view, indexes, inside, out[at], own, nodata))
    except GDAL_ERRORS as error:
        raise unreadable(path, inside, error) from error
    if found.shape == out.shape:
        return found, whole_numbers
    valid = np.zeros(out.shape, bool)
    valid[at] = found
    return valid, whole_numbers


def _stored(
    view: View, indexes: tuple[int, ...], inside: Window, target: Array, own: str, nodata: float | None
) -> Array:
    """Read stored values into ``target`` and return where they are data.

    They are decoded in their own type, and converted and compared there: GDAL's conversion costs more, and so does a
    comparison of wider numbers.
    """
    region = inside.to_rasterio()
    if own == target.dtype:
        stored = view.dataset.read(list(indexes), window=region, out=target)
    else:
        stored = view.dataset.read(list(indexes), window=region, out_dtype=own)
        with np.errstate(over="ignore", invalid="ignore"):
            np.copyto(target, stored, casting="same_kind")
    return view.validity.of(view.dataset, region, stored, nodata)

"""One raster source on the grid: plain windowed reads where grids agree, a warped view where they do not."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox
from rasterio.crs import CRS
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT

from pipeline.errors import ImageryError, ReadError
from pipeline.grid import Window, wkt
from pipeline.imagery.handles import handle

Array = np.ndarray[Any, Any]

# Grids agree when their corners do to within this part of a pixel.
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """Pixels to be left out, named by the values of a band of a raster.

    Attributes
    ----------
    path : str
        The raster.
    band : int
        Its band, from 1.
    exclude : tuple of int
        Values that make a pixel invalid. Outside the mask raster nothing is left out.
    """

    path: str
    band: int
    exclude: tuple[int, ...]

    def read(self, geobox: GeoBox, window: Window) -> Array:
        """Return where pixels are to be left out, (h, w) bool."""
        values, _ = _read(self.path, (self.band,), geobox, window, resampling="nearest", nodata=None, crs=None)
        return np.isin(values[0], self.exclude)


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
        stored, valid = _read(
            self.path, self.indexes, geobox, window, resampling=self.resampling, nodata=self.nodata, crs=self.crs
        )
        values = stored.astype(np.float32)
        for i, (scale, offset) in enumerate(zip(self.scales, self.offsets, strict=True)):
            if scale != 1:
                values[i] *= np.float32(scale)
            if offset != 0:
                values[i] += np.float32(offset)
        if stored.dtype.kind == "f":
            valid &= np.isfinite(values)
        if self.mask is not None:
            valid &= ~self.mask.read(geobox, window)
        if not valid.all():
            values[~valid] = 0
        return values, valid


def _read(
    path: str,
    indexes: tuple[int, ...],
    geobox: GeoBox,
    window: Window,
    *,
    resampling: str,
    nodata: float | None,
    crs: str | None,
) -> tuple[Array, Array]:
    """Return stored values and validity of a window; zero and invalid outside the file."""
    view, y, x = _view(path, geobox, resampling, nodata, crs)
    inside = Window(y=window.y + y, x=window.x + x, height=window.height, width=window.width).intersect(
        Window(y=0, x=0, height=view.height, width=view.width)
    )
    if inside is None:
        shape = (len(indexes), *window.shape)
        return np.zeros(shape, view.dtypes[indexes[0] - 1]), np.zeros(shape, bool)
    try:
        stored = view.read(list(indexes), window=inside.to_rasterio())
        valid = _valid(view, stored, indexes, inside, nodata)
    except RasterioError as error:
        raise ReadError(
            f"{path}: reading {inside} failed ({error}); the file is damaged or truncated: fetch it again, or leave it out"
        ) from error
    if inside.shape == window.shape:
        return stored, valid
    rows, columns = Window(y=inside.y - y, x=inside.x - x, height=inside.height, width=inside.width).within(window)
    whole_values = np.zeros((len(indexes), *window.shape), stored.dtype)
    whole_valid = np.zeros((len(indexes), *window.shape), bool)
    whole_values[:, rows, columns] = stored
    whole_valid[:, rows, columns] = valid
    return whole_values, whole_valid


def _valid(view: Any, stored: Array, indexes: tuple[int, ...], inside: Window, nodata: float | None) -> Array:
    if nodata is None:
        valid = np.ones(stored.shape, bool)
    elif np.isnan(nodata):
        valid = ~np.isnan(stored)
    else:
        valid = stored != nodata
    flags = view.mask_flag_enums[indexes[0] - 1]
    if MaskFlags.per_dataset in flags or MaskFlags.alpha in flags:
        valid &= view.dataset_mask(window=inside.to_rasterio()) > 0
    return valid


def _view(path: str, geobox: GeoBox, resampling: str, nodata: float | None, crs: str | None) -> tuple[Any, int, int]:
    """Return a dataset whose pixels are the grid's, and the row and column in it of the grid's first pixel."""
    plain = handle(path, "plain", lambda dataset: dataset)
    place = offset_on(plain, geobox, crs)
    if place is not None:
        return plain, *place

    def warped(dataset: Any) -> WarpedVRT:
        options: dict[str, Any] = {
            "crs": CRS.from_wkt(wkt(geobox)),
            "transform": geobox.affine,
            "width": int(geobox.shape.x),
            "height": int(geobox.shape.y),
            "resampling": Resampling[resampling],
        }
        if dataset.crs is None and crs is not None:
            options["src_crs"] = CRS.from_user_input(crs)
        if nodata is not None:
            options |= {"src_nodata": nodata, "nodata": nodata}
        elif MaskFlags.alpha not in dataset.mask_flag_enums[0]:
            # Beyond the file's edge there are no values, and no number to say so: an alpha band does.
            options["add_alpha"] = True
        try:
            return WarpedVRT(dataset, **options)
        except RasterioError as error:
            raise ImageryError(f"{path} cannot be warped to the grid ({geobox.crs}): {error}") from error

    return handle(path, ("warped", geobox, resampling, nodata, crs), warped), 0, 0


def offset_on(dataset: Any, geobox: GeoBox, crs: str | None) -> tuple[int, int] | None:
    """Return row and column of the grid's first pixel in a dataset whose grid agrees, else None."""
    own = dataset.crs or (CRS.from_user_input(crs) if crs else None)
    if own is None or dataset.gcps[0] or own != CRS.from_wkt(wkt(geobox)):
        return None
    a, b = dataset.transform, geobox.affine
    if (a.b, a.d, b.b, b.d) != (0, 0, 0, 0):
        return None
    # Over the whole grid the two resolutions may not drift apart by more than a small part of a pixel.
    drift = max(abs(a.a - b.a) / abs(a.a) * int(geobox.shape.x), abs(a.e - b.e) / abs(a.e) * int(geobox.shape.y))
    x, y = (b.c - a.c) / a.a, (b.f - a.f) / a.e
    if drift > _TOLERANCE or abs(x - round(x)) > _TOLERANCE or abs(y - round(y)) > _TOLERANCE:
        return None
    return round(y), round(x)

"""One raster source on the grid: plain windowed reads where grids agree, a warped view where they do not."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from pipeline.errors import ImageryError, ReadError
from pipeline.grid import Window, crs_name, wkt
from pipeline.imagery.handles import GDAL_ERRORS, brief, handle
from pipeline.imagery.validity import Validity, adjusted

Array = np.ndarray[Any, Any]

# Grids agree when their corners do to within this part of a pixel.
_TOLERANCE = 1e-3
# Types whose values float32 holds exactly: GDAL decodes them straight into the result.
_DIRECT = {"uint8", "int8", "uint16", "int16", "float32"}


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
    crs : str or None
        CRS of a mask that states none.
    """

    path: str
    band: int
    exclude: tuple[int, ...]
    crs: str | None = None

    def read(self, geobox: GeoBox, window: Window) -> Array:
        """Return where pixels are to be left out, (h, w) bool; the nearest mask pixel counts."""
        values = np.zeros((1, *window.shape), np.float32)
        inside = _fill(self.path, (self.band,), geobox, window, values, "nearest", None, self.crs)
        return np.asarray(np.isin(values[0], self.exclude) & inside[0])


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
        return _view(self.path, geobox, self.resampling, self.nodata, self.crs).plain

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
        valid = _fill(self.path, self.indexes, geobox, window, out, self.resampling, self.nodata, self.crs)
        # A value that float32 cannot hold becomes infinite, and is found invalid below: no reason to warn.
        with np.errstate(over="ignore", invalid="ignore"):
            for i, (scale, offset) in enumerate(zip(self.scales, self.offsets, strict=True)):
                if scale != 1:
                    out[i] *= np.float32(scale)
                if offset != 0:
                    out[i] += np.float32(offset)
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
) -> Array:
    """Read stored values into ``out`` and return where the file says that they are data; outside the file they are not."""
    view = _view(path, geobox, resampling, nodata, crs)
    dataset = view.dataset
    valid = np.zeros(out.shape, bool)
    inside = Window(y=window.y + view.y, x=window.x + view.x, height=window.height, width=window.width).intersect(
        Window(y=0, x=0, height=dataset.height, width=dataset.width)
    )
    if inside is None:
        return valid
    part = Window(y=inside.y - view.y, x=inside.x - view.x, height=inside.height, width=inside.width)
    rows, columns = part.within(window)
    target = out[:, rows, columns]
    region = inside.to_rasterio()
    types = {dataset.dtypes[i - 1] for i in indexes}
    try:
        if types <= _DIRECT:
            stored = dataset.read(list(indexes), window=region, out=target)
        else:
            stored = dataset.read(list(indexes), window=region, out_dtype=types.pop() if len(types) == 1 else "float64")
            with np.errstate(over="ignore", invalid="ignore"):
                target[:] = stored
        valid[:, rows, columns] = view.validity.of(dataset, region, stored, nodata)
    except GDAL_ERRORS as error:
        raise ReadError(
            f"{path}: reading {inside} failed ({brief(error)}); the file is damaged or truncated: fetch it again, or leave "
            "it out"
        ) from error
    return valid


@dataclass(frozen=True, slots=True)
class _View:
    """A dataset whose pixels are the grid's, and the row and column in it of the grid's first pixel."""

    dataset: Any
    y: int
    x: int
    validity: Validity
    plain: bool

    def close(self) -> None:
        self.dataset.close()


@dataclass(frozen=True, slots=True)
class _OffGrid:
    """Remembers that a file is not on the grid."""

    def close(self) -> None:
        """Nothing is held."""


def _view(path: str, geobox: GeoBox, resampling: str, nodata: float | None, crs: str | None) -> _View:
    def plain(dataset: Any) -> _View | _OffGrid:
        place = offset_on(dataset, geobox, crs)
        if place is not None:
            return _View(dataset, *place, Validity.declared(dataset), plain=True)
        dataset.close()
        return _OffGrid()

    view = handle(path, ("plain", geobox, crs), plain)
    if isinstance(view, _View):
        return view
    warped: _View = handle(
        path,
        ("warped", geobox, resampling, repr(nodata), crs),
        lambda dataset: _warped(dataset, path, geobox, resampling, nodata, crs),
    )
    return warped


def _warped(dataset: Any, path: str, geobox: GeoBox, resampling: str, nodata: float | None, crs: str | None) -> _View:
    """Return a file as it looks on the grid.

    Its pixels do not depend on the window they are read through: GDAL warps block by block, on a lattice that starts at
    the grid's first pixel.
    """
    target = CRS.from_wkt(wkt(geobox))
    own = Validity.declared(dataset)
    options: dict[str, Any] = {"crs": target}
    if dataset.crs is None and not dataset.gcps[1]:
        options["src_crs"] = stated_crs(dataset, crs)
    if nodata is not None and (value := adjusted(nodata, dataset.dtypes[0])) is not None:
        options |= {"src_nodata": value, "nodata": value}
    # Beyond the file's edge there are no values. Without a number that says so, a band of its own does.
    if own.alpha is None and ("nodata" not in options or own.masked):
        options["add_alpha"] = True
    try:
        if dataset.transform.is_identity and (dataset.gcps[0] or dataset.rpcs is not None):
            # A warp to a given transform leaves control points and polynomials out of account (rasterio 1.4): the file is
            # straightened first, value by value, and then resampled as declared.
            dataset = WarpedVRT(dataset, **options, resampling=Resampling.nearest)
            own = Validity.declared(dataset)
            options = {k: v for k, v in options.items() if k in ("crs", "src_nodata", "nodata")}
        width, height = int(geobox.shape.x), int(geobox.shape.y)
        view = WarpedVRT(
            dataset,
            **options,
            transform=geobox.affine,
            width=width,
            height=height,
            resampling=Resampling[resampling],
        )
    except GDAL_ERRORS as error:
        raise ImageryError(f"{path} cannot be put on the grid ({crs_name(geobox)}): {brief(error)}") from error
    alpha = view.count if options.get("add_alpha") else own.alpha
    return _View(view, 0, 0, Validity(alpha=alpha, masked=False), plain=False)


def stated_crs(dataset: Any, crs: str | None) -> CRS | None:
    """Return the CRS in which a file is placed: its own, that of its control points, the given one, or None."""
    if dataset.crs:
        return dataset.crs
    if dataset.gcps[0] and dataset.gcps[1]:
        return dataset.gcps[1]
    if crs:
        return CRS.from_user_input(crs)
    # Rational polynomials lead to longitude and latitude, whatever the file says.
    return CRS.from_epsg(4326) if dataset.rpcs is not None else None


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

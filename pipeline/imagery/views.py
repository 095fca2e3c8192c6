"""A raster file as it looks on the grid: the file itself where grids agree, a warped view where they do not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from odc.geo.geobox import GeoBox
from rasterio.crs import CRS
from rasterio.enums import Interleaving, Resampling
from rasterio.vrt import WarpedVRT

from pipeline.errors import ImageryError
from pipeline.grid import Window, crs_name, wkt
from pipeline.imagery.handles import brief, handle
from pipeline.imagery.remote import GDAL_ERRORS
from pipeline.imagery.validity import Validity, adjusted

# Grids agree when their corners do to within this part of a pixel.
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class View:
    """A dataset whose pixels are the grid's, and the row and column in it of the grid's first pixel."""

    dataset: Any
    y: int
    x: int
    validity: Validity
    plain: bool

    def close(self) -> None:
        """Close the dataset."""
        self.dataset.close()

    def holds(self, indexes: Sequence[int], window: Window, nodata: float | None) -> bool:
        """Return whether bands may hold data in a window of the grid; False is sure, and nothing was read to know it.

        A sparse GeoTIFF leaves out tiles, of which most of a country may consist; its index says which.
        """
        dataset = self.dataset
        full = Window(y=0, x=0, height=dataset.height, width=dataset.width)
        inside = Window(y=window.y + self.y, x=window.x + self.x, height=window.height, width=window.width).intersect(
            full
        )
        if inside is None:
            return False
        if not self.plain or dataset.driver != "GTiff" or not self._gaps_are_nodata(nodata):
            return True
        height, width = dataset.block_shapes[0]
        rows, columns = (
            range(inside.y // height, (inside.bottom - 1) // height + 1),
            range(inside.x // width, (inside.right - 1) // width + 1),
        )
        # Where bands are interleaved by pixel, a tile holds them all.
        bands = indexes if dataset.interleaving is Interleaving.band else indexes[:1]
        return any(
            dataset.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=band) is not None
            for band in bands
            for y in rows
            for x in columns
        )

    def _gaps_are_nodata(self, nodata: float | None) -> bool:
        """Return whether what GDAL gives for a tile that a file leaves out, its own nodata or 0, is nodata."""
        declared = self.dataset.nodata
        gap = 0.0 if declared is None else float(declared)
        value = None if nodata is None else adjusted(nodata, self.dataset.dtypes[0])
        return value is not None and (value == gap or (math.isnan(value) and math.isnan(gap)))


@dataclass(frozen=True, slots=True)
class _OffGrid:
    """Remembers that a file is not on the grid."""

    def close(self) -> None:
        """Nothing is held."""


def view_of(path: str, geobox: GeoBox, resampling: str, nodata: float | None, crs: str | None) -> View:
    """Return this thread's view of a file on a grid: the file itself where grids agree, a warped one where they do not.

    Raises
    ------
    ImageryError
        If the file cannot be opened or cannot be put on the grid.
    """

    def plain(dataset: Any) -> View | _OffGrid:
        place = offset_on(dataset, geobox, crs)
        if place is not None:
            return View(dataset, *place, Validity.declared(dataset), plain=True)
        dataset.close()
        return _OffGrid()

    # What stands for the grid in keys: a geobox would write its CRS out each time it is looked up.
    grid = (int(geobox.shape.y), int(geobox.shape.x), geobox.affine, str(geobox.crs))
    view = handle(path, ("plain", grid, crs), plain)
    if isinstance(view, View):
        return view
    warped: View = handle(
        path,
        ("warped", grid, resampling, repr(nodata), crs),
        lambda dataset: _warped(dataset, path, geobox, resampling, nodata, crs),
    )
    return warped


def _warped(dataset: Any, path: str, geobox: GeoBox, resampling: str, nodata: float | None, crs: str | None) -> View:
    """Return a file as it looks on the grid.

    Its pixels do not depend on the window they are read through: GDAL warps block by block, on a lattice that starts at
    the grid's first pixel.
    """
    own = Validity.declared(dataset)
    options: dict[str, Any] = {"crs": CRS.from_wkt(wkt(geobox))}
    if nodata is not None and (value := adjusted(nodata, dataset.dtypes[0])) is not None:
        options |= {"src_nodata": value, "nodata": value}
    # Beyond the file's edge there are no values. Without a number that says so, a band of its own does.
    if own.alpha is None and ("nodata" not in options or own.masked):
        options["add_alpha"] = True
    try:
        if scattered(dataset):
            # A warp to a given transform leaves control points and polynomials out of account (rasterio 1.4): the file is
            # straightened first, value by value, and then resampled as declared.
            dataset = WarpedVRT(dataset, **placing(dataset, crs), **options, resampling=Resampling.nearest)
            own = Validity.declared(dataset)
            options.pop("add_alpha", None)
        view = WarpedVRT(
            dataset,
            **placing(dataset, crs),
            **options,
            transform=geobox.affine,
            width=int(geobox.shape.x),
            height=int(geobox.shape.y),
            resampling=Resampling[resampling],
        )
    except GDAL_ERRORS as error:
        raise ImageryError(f"{path} cannot be put on the grid ({crs_name(geobox)}): {brief(error)}") from error
    alpha = view.count if options.get("add_alpha") else own.alpha
    return View(view, 0, 0, Validity(alpha=alpha, masked=False), plain=False)


def scattered(dataset: Any) -> bool:
    """Return whether a file is placed by ground control points or rational polynomials, not by a transform."""
    return bool(dataset.transform.is_identity and (dataset.gcps[0] or dataset.rpcs is not None))


def placing(dataset: Any, crs: str | None) -> dict[str, Any]:
    """Return what a warp must be told about the place of a file beyond what GDAL takes from it."""
    own = stated_crs(dataset, crs)
    options: dict[str, Any] = {} if own == dataset.crs else {"src_crs": own}
    if scattered(dataset):
        options["SRC_METHOD"] = "GCP_POLYNOMIAL" if dataset.gcps[0] else "RPC"
    return options


def stated_crs(dataset: Any, crs: str | None) -> CRS | None:
    """Return the CRS in which a file is placed: that of its control points, its own, the given one, or None."""
    if scattered(dataset):
        # Rational polynomials lead to longitude and latitude, whatever else the file says.
        return dataset.gcps[1] if dataset.gcps[0] else CRS.from_epsg(4326)
    return dataset.crs or (CRS.from_user_input(crs) if crs else None)


@lru_cache(maxsize=16)
def _as_rasterio(text: str) -> CRS:
    return CRS.from_wkt(text)


def offset_on(dataset: Any, geobox: GeoBox, crs: str | None) -> tuple[int, int] | None:
    """Return row and column of the grid's first pixel in a dataset whose grid agrees, else None."""
    if scattered(dataset) or stated_crs(dataset, crs) != _as_rasterio(wkt(geobox)):
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

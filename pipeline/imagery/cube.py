"""All imagery on one grid: dims (time, band, y, x), lazy."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from odc.geo.geobox import GeoBox
from rasterio.features import geometry_mask

from pipeline.errors import ImageryError, nearest
from pipeline.grid import Window, whole, window_geobox, wkt
from pipeline.imagery.sources import Source

if TYPE_CHECKING:
    import xarray as xr
    from shapely.geometry.base import BaseGeometry

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Tile:
    """What was read of a window.

    Attributes
    ----------
    values : (T, C, h, w) float32
        Zero where invalid.
    valid : (T, h, w) bool
        Where all bands of a date have a finite value, inside raster and area.
    """

    values: Array
    valid: Array


@dataclass(frozen=True)
class Cube:
    """Imagery on one grid. Holds paths, no open file: it can be pickled and sent to workers.

    Attributes
    ----------
    geobox : GeoBox
        The grid.
    bands : tuple of str
        Names along the band axis.
    dates : tuple of date or None
        Dates along the time axis, sorted; a single None where imagery is undated.
    sources : tuple of Source
        Where values come from. Of two sources for one date and band, the first with a value counts.
    area : BaseGeometry or None
        Outside it nothing is valid; in the CRS of the grid.
    """

    geobox: GeoBox
    bands: tuple[str, ...]
    dates: tuple[datetime.date | None, ...]
    sources: tuple[Source, ...]
    area: BaseGeometry | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Sizes of (time, band, y, x)."""
        return len(self.dates), len(self.bands), int(self.geobox.shape.y), int(self.geobox.shape.x)

    @cached_property
    def time(self) -> Array:
        """Days since the first date, (T,) float32; [0] where imagery is undated."""
        first = self.dates[0]
        return np.array([(d - first).days if d and first else 0 for d in self.dates], dtype=np.float32)

    @cached_property
    def _plan(self) -> tuple[tuple[Source, int, tuple[tuple[int, int], ...]], ...]:
        """Sources that are needed, with their date's place and, per band, (place in source, place in cube)."""
        plan = []
        for source in self.sources:
            pairs = tuple((i, self.bands.index(b)) for i, b in enumerate(source.bands) if b in self.bands)
            if pairs and source.date in self.dates:
                needed = replace(
                    source,
                    indexes=tuple(source.indexes[i] for i, _ in pairs),
                    bands=tuple(source.bands[i] for i, _ in pairs),
                    scales=tuple(source.scales[i] for i, _ in pairs),
                    offsets=tuple(source.offsets[i] for i, _ in pairs),
                )
                places = tuple((i, c) for i, (_, c) in enumerate(pairs))
                plan.append((needed, self.dates.index(source.date), places))
        return tuple(plan)

    def read(self, window: Window) -> Tile:
        """Read a window, which may lie partly or wholly outside the raster: the plane goes on, invalid.

        Raises
        ------
        ReadError
            If a file cannot be read there; names file and window.
        """
        times, bands = len(self.dates), len(self.bands)
        values = np.zeros((times, bands, *window.shape), np.float32)
        valid = np.zeros((times, bands, *window.shape), bool)
        inside = window.intersect(whole(self.geobox))
        if inside is None:
            return Tile(values, np.asarray(valid.all(1)))
        at = (slice(None), *inside.within(window))
        for source, t, places in self._plan:
            found, good = source.read(self.geobox, inside)
            for i, c in places:
                target, have = values[t, c][at[1:]], valid[t, c][at[1:]]
                new = good[i] & ~have if have.any() else good[i]
                np.copyto(target, found[i], where=new)
                have |= new
        if self.area is not None:
            valid[:, :, *at[1:]] &= ~self._outside(inside)
        all_bands = np.asarray(valid.all(1))
        values *= all_bands[:, None]
        return Tile(values, all_bands)

    def _outside(self, window: Window) -> Array:
        return np.asarray(
            geometry_mask([self.area], window.shape, window_geobox(self.geobox, window).affine, all_touched=False)
        )

    def select(self, bands: Sequence[str]) -> Cube:
        """Return the cube with these bands, in this order.

        Raises
        ------
        ImageryError
            If one is not there; prints both sides.
        """
        missing = [b for b in bands if b not in self.bands]
        if missing:
            raise ImageryError(
                f"the imagery has no band '{missing[0]}'{nearest(missing[0], self.bands)} "
                f"Wanted: {', '.join(bands)}. There are: {', '.join(self.bands)}"
            )
        return replace(self, bands=tuple(bands))

    def to_xarray(self, chunk: int = 1024) -> xr.Dataset:
        """Return a lazy view: ``values`` (time, band, y, x) float32 and ``valid`` (time, y, x) bool, read by `read`.

        Parameters
        ----------
        chunk : int
            Side of a Dask chunk in pixels.
        """
        import dask.array as da
        import xarray as xr
        from dask import delayed
        from odc.geo.xr import xr_coords

        times, bands, height, width = self.shape
        read = delayed(Cube.read, pure=True)
        rows = []
        for y in range(0, height, chunk):
            row = []
            for x in range(0, width, chunk):
                window = Window(y=y, x=x, height=min(chunk, height - y), width=min(chunk, width - x))
                tile = read(self, window)
                row.append(
                    (
                        da.from_delayed(tile.values, (times, bands, *window.shape), np.float32),
                        da.from_delayed(tile.valid, (times, *window.shape), bool),
                    )
                )
            rows.append(row)
        values = da.block([[v for v, _ in row] for row in rows])
        valid = da.block([[m for _, m in row] for row in rows])
        coordinates = dict(xr_coords(self.geobox)) | {"band": list(self.bands), "time": self._coordinate()}
        rows_name, columns_name = self.geobox.dimensions
        return xr.Dataset(
            {
                "values": (("time", "band", rows_name, columns_name), values),
                "valid": (("time", rows_name, columns_name), valid),
            },
            coords=coordinates,
        )

    def _coordinate(self) -> Array:
        if self.dates[0] is None:
            return np.arange(len(self.dates))
        return np.array(self.dates, dtype="datetime64[ns]")

    def __dask_tokenize__(self) -> Any:
        area = None if self.area is None else self.area.wkb_hex
        return (
            "landweave.Cube",
            repr(self.geobox),
            wkt(self.geobox),
            self.bands,
            self.dates,
            self.sources,
            area,
        )

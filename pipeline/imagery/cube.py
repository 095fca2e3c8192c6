"""All imagery on one grid: dims (time, band, y, x), lazy."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from odc.geo.geobox import GeoBox

from pipeline.errors import ImageryError, nearest
from pipeline.grid import Window, whole, window_geobox, wkt
from pipeline.imagery.area import inside_area
from pipeline.imagery.dates import Period
from pipeline.imagery.indices import Index
from pipeline.imagery.observing import observe
from pipeline.imagery.plan import Piece, pieces
from pipeline.imagery.series import Series
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
    origin : datetime.date or None
        Day zero of `time`; None: the first date.
    series : Series or None
        How images are brought to the dates of the cube, which are its steps; None: they are the images' own.
    indices : tuple of Index
        Bands that are computed from other bands of a date, before images are brought to steps.
    """

    geobox: GeoBox
    bands: tuple[str, ...]
    dates: tuple[datetime.date | None, ...]
    sources: tuple[Source, ...]
    area: BaseGeometry | None = None
    origin: datetime.date | None = None
    series: Series | None = None
    indices: tuple[Index, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Sizes of (time, band, y, x)."""
        return len(self.dates), len(self.bands), int(self.geobox.shape.y), int(self.geobox.shape.x)

    @cached_property
    def time(self) -> Array:
        """Days since the origin, (T,) float32; 0 where there is no date."""
        first = self.origin or self.dates[0]
        return np.array([(d - first).days if d and first else 0 for d in self.dates], dtype=np.float32)

    def during(self, period: Period, length: int | None = None) -> Cube:
        """Return the cube of one period; its time counts from the first day of the period.

        Parameters
        ----------
        period : Period
            Only dates within it are kept. With a series its steps are made anew, from the first day of the period on; images
            up to one step outside serve too.
        length : int, optional
            So many dates: where the period has fewer, dates without any image follow, None, invalid everywhere.

        Raises
        ------
        ImageryError
            If there is no image in the period, or there are more than ``length``; says what there is.
        """
        dates: tuple[datetime.date | None, ...]
        series = None if self.series is None else self.series.around(period)
        dates = tuple(d for d in self.dates if d in period) if series is None else series.steps(period)
        if not dates:
            known = [d for d in self.dates if d is not None]
            there = f"it reaches from {known[0]} to {known[-1]}" if known else "it has no dates"
            raise ImageryError(f"there is no image from {period}: {there}")
        if length is not None and len(dates) > length:
            raise ImageryError(
                f"there are {len(dates)} dates from {period}, and the network takes {length}; choose a shorter period"
            )
        dates += (None,) * ((length or 0) - len(dates))
        return replace(self, dates=dates, origin=period.start, series=series)

    @property
    def observed(self) -> tuple[datetime.date | None, ...]:
        """Dates that are read from files: with a series those of its images, else those of the cube."""
        return self.dates if self.series is None else self.series.observed

    @property
    def planes(self) -> int:
        """Planes of float32 that reading holds at its peak, per pixel: the result, and what it is made from."""
        steps, bands = len(self.dates), len(self.bands)
        # Beside the result lies what one file holds, in its own type.
        result, read = steps * bands + self._largest, len(self.observed) * len(self._planes)
        if self.series is None:
            return result + (0 if len(self._planes) == bands else read)
        composites = (steps + 2) * bands if "none" not in (self.series.composite, self.series.fill) else 0
        # Gaps are found by two numbers of 16 bits per image.
        return result + read + composites + len(self.observed)

    @cached_property
    def _made(self) -> tuple[Index, ...]:
        return tuple(i for i in self.indices if i.name in self.bands)

    @cached_property
    def _planes(self) -> tuple[str, ...]:
        """Names of what is held of a date: the bands, and behind them those that only indices need."""
        return tuple(dict.fromkeys([*self.bands, *(band for index in self._made for band in index.bands)]))

    @cached_property
    def _largest(self) -> int:
        """Bands that are read from one file at once, at most."""
        return max((len(piece.places) for piece in self._plan), default=0)

    @property
    def _direct(self) -> bool:
        """Whether what is read of files is the result itself."""
        return self.series is None and len(self._planes) == len(self.bands)

    @cached_property
    def _plan(self) -> tuple[Piece, ...]:
        return pieces(self.sources, self._planes, self.observed)

    def holds(self, window: Window) -> bool:
        """Return whether anything may be valid in a window inside the grid; False is sure, and costs next to nothing.

        False outside the area, beyond all files, and where the tiles of sparse files are left out.
        """
        if self.area is not None and not self.area.intersects(window_geobox(self.geobox, window).extent.geom):
            return False
        return any(piece.source.holds(self.geobox, window) for piece in self._plan)

    def read(self, window: Window) -> Tile:
        """Read a window, which may lie partly or wholly outside the raster: the plane goes on, invalid.

        Raises
        ------
        ReadError
            If a file cannot be read there; names file and window.
        """
        inside = window.intersect(whole(self.geobox))
        if inside is not None and not self.holds(inside):
            inside = None
        shape = (len(self.dates), len(self.bands), *window.shape)
        # Where nothing is computed from them, values that are not read are invalid, and become zero in the end.
        plain = inside == window and self._direct and not self._made
        values = np.empty(shape, np.float32) if plain else np.zeros(shape, np.float32)
        valid = np.zeros((len(self.dates), *window.shape), bool)
        if inside is not None:
            at = inside.within(window)
            self._fill(inside, values[:, :, *at], valid[:, *at])
        return Tile(values, valid)

    def _fill(self, window: Window, values: Array, valid: Array) -> None:
        """Read a window inside the grid into values (T, C, h, w) and valid (T, h, w); values where it is not are zero then."""
        names, series, direct = self._planes, self.series, self._direct
        seen = values if direct else np.zeros((len(self.observed), len(names), *window.shape), np.float32)
        found = observe(self._plan, self._made, names, self.geobox, window, seen)
        if series is not None:
            found = series.fill_in(seen[:, : len(self.bands)], found, self.dates, values)
        elif not direct:
            values[:] = seen[:, : len(self.bands)]
        if self.area is not None:
            found &= inside_area(self.area, self.geobox, window)
        valid[:] = found
        for t in range(len(values)):
            if not valid[t].all():
                np.copyto(values[t], 0, where=~valid[t])

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
                f"the imagery has no band '{missing[0]}'{nearest(missing[0], self.bands)}; "
                f"wanted: {', '.join(bands)}; there are: {', '.join(self.bands)}"
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
        # The cube is hashed and sent once, not with every chunk.
        cube, read = delayed(self, pure=True, traverse=False), delayed(Cube.read, pure=True)
        rows = []
        for y in range(0, height, chunk):
            row = []
            for x in range(0, width, chunk):
                window = Window(y=y, x=x, height=min(chunk, height - y), width=min(chunk, width - x))
                tile = read(cube, window)
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
            self.origin,
            self.series,
            self.indices,
        )

"""A cube as a lazy xarray.Dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.grid import Window
from pipeline.imagery.cube import Cube

if TYPE_CHECKING:
    import xarray as xr

Array = np.ndarray[Any, Any]


def to_xarray(cube: Cube, chunk: int = 1024) -> xr.Dataset:
    """Return a lazy view: ``values`` (time, band, y, x) float32 and ``valid`` (time, y, x) bool, read by `Cube.read`.

    Parameters
    ----------
    cube : Cube
        What is looked at; nothing of it is read before it is asked for.
    chunk : int
        Side of a Dask chunk in pixels.
    """
    import dask.array as da
    import xarray as xr
    from dask import delayed
    from odc.geo.xr import xr_coords

    times, bands, height, width = cube.shape
    # The cube is hashed and sent once, not with every chunk.
    sent, read = delayed(cube, pure=True, traverse=False), delayed(Cube.read, pure=True)
    rows = []
    for y in range(0, height, chunk):
        row = []
        for x in range(0, width, chunk):
            window = Window(y=y, x=x, height=min(chunk, height - y), width=min(chunk, width - x))
            tile = read(sent, window)
            row.append(
                (
                    da.from_delayed(tile.values, (times, bands, *window.shape), np.float32),
                    da.from_delayed(tile.valid, (times, *window.shape), bool),
                )
            )
        rows.append(row)
    values = da.block([[v for v, _ in row] for row in rows])
    valid = da.block([[m for _, m in row] for row in rows])
    coordinates = dict(xr_coords(cube.geobox)) | {"band": list(cube.bands), "time": _coordinate(cube)}
    rows_name, columns_name = cube.geobox.dimensions
    return xr.Dataset(
        {
            "values": (("time", "band", rows_name, columns_name), values),
            "valid": (("time", rows_name, columns_name), valid),
        },
        coords=coordinates,
    )


def _coordinate(cube: Cube) -> Array:
    if cube.dates[0] is None:
        return np.arange(len(cube.dates))
    return np.array(cube.dates, dtype="datetime64[ns]")

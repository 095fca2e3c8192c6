"""Open imagery: settings to a cube on one grid, with sentences about what was decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from odc.geo.geobox import GeoBox

from pipeline.errors import ImageryError
from pipeline.imagery.area import area_on
from pipeline.imagery.cube import Cube
from pipeline.imagery.entries import entry_sources
from pipeline.imagery.grids import output_grid, placed_crs
from pipeline.imagery.handles import check_pieces, open_raster
from pipeline.imagery.paths import some
from pipeline.imagery.sources import Source
from pipeline.settings import GridSettings, ImagerySettings


def open_cube(
    entries: Sequence[ImagerySettings], grid: GridSettings | None, area: str | None, keep: Sequence[str] = ()
) -> tuple[Cube, list[str]]:
    """Open imagery on one grid.

    Parameters
    ----------
    entries : sequence of ImagerySettings
        The sources; paths are absolute or relative to the working folder.
    grid : GridSettings or None
        The output grid; None takes that of the first source.
    area : str or None
        A vector file; outside its polygons nothing is valid.
    keep : sequence of str
        Names of bands that are measurements, whatever they look like: those that a trained model wants.

    Returns
    -------
    cube, notes
        The cube, and sentences about what was decided, for the user.

    Raises
    ------
    ImageryError
        If a file is missing or is no raster, bands or dates do not fit, or there is no grid.
    ReadError
        If a file is found to be damaged.
    """
    notes: list[str] = []
    sources = [source for entry in entries for source in entry_sources(entry, keep, notes)]
    geobox = output_grid(sources[0], grid, notes)
    _check_grids(sources, geobox, notes)
    bands = tuple(dict.fromkeys(b for s in sources for b in s.bands))
    dates = tuple(sorted({s.date for s in sources if s.date is not None})) or (None,)
    if dates != (None,) and any(s.date is None for s in sources):
        undated = sorted({Path(s.path).name for s in sources if s.date is None})
        raise ImageryError(f"some imagery has dates and some has none: {some(undated)}; give every entry a `date`")
    _check_complete(sources, bands, dates, notes)
    return Cube(geobox, bands, dates, tuple(sources), area_on(area, geobox) if area else None), notes


def _check_grids(sources: Sequence[Source], geobox: GeoBox, notes: list[str]) -> None:
    """Refuse files that cannot be placed or read piece by piece; say which are resampled."""
    warped: dict[str, str] = {}
    for path, source in {s.path: s for s in sources}.items():
        with open_raster(path) as dataset:
            placed_crs(dataset, path, source.crs)
            check_pieces(dataset, path)
        if not source.on_grid(geobox):
            warped[Path(path).name] = source.resampling
    if warped:
        notes.append(
            f"not on the output grid, resampled ({', '.join(sorted(set(warped.values())))}): {some(list(warped))}"
        )


def _check_complete(
    sources: Sequence[Source], bands: tuple[str, ...], dates: tuple[Any, ...], notes: list[str]
) -> None:
    held = Counter((s.date, b) for s in sources for b in s.bands)
    missing = [f"{b} on {d}" for d in dates for b in bands if (d, b) not in held]
    if missing:
        notes.append(f"missing, so these dates are invalid everywhere: {some(missing)}")
    twice = [b if d is None else f"{b} on {d}" for (d, b), n in held.items() if n > 1]
    if twice:
        notes.append(f"given more than once, so the first with a value counts: {some(twice)}")

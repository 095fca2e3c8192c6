"""Open imagery: settings to a cube on one grid, with sentences about what was decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from odc.geo.geobox import GeoBox

from pipeline.errors import ImageryError
from pipeline.imagery.area import area_on
from pipeline.imagery.cube import Cube
from pipeline.imagery.entries import entry_sources
from pipeline.imagery.facts import Known
from pipeline.imagery.grids import output_grid, placed_crs
from pipeline.imagery.handles import check_pieces
from pipeline.imagery.indices import Index, find_indices
from pipeline.imagery.paths import file_name, some
from pipeline.imagery.series import Series
from pipeline.imagery.sources import Source
from pipeline.imagery.views import offset_on
from pipeline.settings import GridSettings, ImagerySettings, TemporalSettings


def open_cube(
    entries: Sequence[ImagerySettings],
    grid: GridSettings | None,
    area: str | None,
    keep: Sequence[str] = (),
    *,
    temporal: TemporalSettings | None = None,
    indices: Sequence[str] = (),
    roles: Mapping[str, str] | None = None,
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
    temporal : TemporalSettings, optional
        How images are brought to steps in time. Default: the cube has the dates of the images, and gaps stay.
    indices : sequence of str
        Spectral indices to be computed, appended to the bands under their names in lower case.
    roles : mapping of str to str, optional
        Bands by their role in indices, where their names do not say it.

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
    known = Known()
    sources = [source for entry in entries for source in entry_sources(entry, keep, notes, known)]
    geobox = output_grid(sources[0], grid, notes)
    _check_grids(sources, geobox, notes, known)
    bands = tuple(dict.fromkeys(b for s in sources for b in s.bands))
    dates = tuple(sorted({s.date for s in sources if s.date is not None})) or (None,)
    if dates != (None,) and any(s.date is None for s in sources):
        undated = sorted({file_name(s.path) for s in sources if s.date is None})
        raise ImageryError(f"some imagery has dates and some has none: {some(undated)}; give every entry a `date`")
    _check_complete(sources, bands, dates, notes)
    made = find_indices(indices, bands, roles)
    notes += _unscaled(made, sources, known)
    cube = Cube(
        geobox, bands + tuple(i.name for i in made), dates, tuple(sources), area_on(area, geobox) if area else None,
        indices=made,
    )  # fmt: skip
    if temporal is not None and temporal != TemporalSettings():
        series = Series.of(dates, temporal)
        cube = replace(cube, dates=series.steps(), series=series)
        notes.append(str(series))
    return cube, notes


def _check_grids(sources: Sequence[Source], geobox: GeoBox, notes: list[str], known: Known) -> None:
    """Refuse files that cannot be placed or read piece by piece; say which are resampled."""
    warped: dict[str, str] = {}
    for path, source in {s.path: s for s in sources}.items():
        facts = known[path]
        placed_crs(facts, path, source.crs)
        check_pieces(facts, path)
        # Whether a file can be warped at all is found out by opening it so.
        if offset_on(facts, geobox, source.crs) is None and not source.on_grid(geobox):
            warped[file_name(path)] = source.resampling
    if warped:
        notes.append(
            f"not on the output grid, resampled ({', '.join(sorted(set(warped.values())))}): {some(list(warped))}"
        )


def _check_complete(
    sources: Sequence[Source], bands: tuple[str, ...], dates: tuple[Any, ...], notes: list[str]
) -> None:
    held = Counter((s.date, b) for s in sources for b in s.bands)
    missing = [(d, b) for d in dates for b in bands if (d, b) not in held]
    if missing and {d for d, _ in missing} == set(dates):
        raise ImageryError(
            f"no date has all bands ({', '.join(bands)}), so nothing would be valid; missing: {_shown(missing)}. Images of one "
            "date belong together: check `date` and `bands` of each entry"
        )
    if missing:
        notes.append(f"missing, so these dates are invalid everywhere: {_shown(missing)}")
    twice = [place for place, n in held.items() if n > 1]
    if twice:
        notes.append(
            f"given more than once, {len(twice)} in all: {_shown(twice)}; the first with a value counts at each pixel, in "
            "order of entries, and within one of the files' names"
        )


def _shown(places: Sequence[tuple[Any, str]]) -> str:
    return some([b if d is None else f"{b} on {d}" for d, b in places])


def _unscaled(indices: Sequence[Index], sources: Sequence[Source], known: Known) -> list[str]:
    """Say which indices hold constants that suit reflectance, and are computed from whole numbers as they are stored."""
    whole_numbers = {
        band
        for s in sources
        for band, i, scale in zip(s.bands, s.indexes, s.scales, strict=True)
        if scale == 1 and "int" in known[s.path].dtypes[i - 1]
    }
    names = [i.name for i in indices if i.constants and whole_numbers.intersection(i.bands)]
    if not names:
        return []
    return [
        f"{', '.join(names)}: the constants of the formula are for reflectance between 0 and 1, and the bands are whole numbers "
        "as they are stored; give `scale`, such as 0.0001"
    ]

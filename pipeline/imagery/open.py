"""Open imagery: settings to a cube on one grid, with sentences about what was decided."""

from __future__ import annotations

import datetime
import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from odc.geo.geobox import GeoBox
from rasterio.crs import CRS
from rasterio.errors import RasterioError

from pipeline.errors import ImageryError, nearest
from pipeline.imagery.bands import chosen, described, file_names, set_aside
from pipeline.imagery.cube import Cube
from pipeline.imagery.dates import date_in, listed
from pipeline.imagery.grids import area_on, output_grid
from pipeline.imagery.handles import open_raster
from pipeline.imagery.sources import Mask, Source, offset_on
from pipeline.settings import GridSettings, ImagerySettings


def open_cube(
    entries: Sequence[ImagerySettings], grid: GridSettings | None, area: str | None
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

    Returns
    -------
    cube, notes
        The cube, and sentences about what was decided, for the user.

    Raises
    ------
    ImageryError
        If a file is missing or is no raster, bands or dates do not fit, or there is no grid.
    """
    notes: list[str] = []
    sources: list[Source] = []
    for entry in entries:
        sources += _entry(entry, notes)
    geobox = output_grid(sources[0], grid, notes)
    _check_grids(sources, geobox, notes)
    bands = tuple(dict.fromkeys(b for s in sources for b in s.bands))
    dates = tuple(sorted({s.date for s in sources if s.date is not None})) or (None,)
    if dates != (None,) and any(s.date is None for s in sources):
        undated = sorted({Path(s.path).name for s in sources if s.date is None})
        raise ImageryError(
            f"some imagery has dates and some has none: {', '.join(undated[:4])}; give every entry a `date`"
        )
    _check_complete(sources, bands, dates, notes)
    shape = area_on(area, geobox) if area else None
    return Cube(geobox, bands, dates, tuple(sources), shape), notes


def expand(path: str | list[str], what: str = "imagery.path") -> list[str]:
    """Return the files of a path, a list or a glob, sorted within each glob.

    Raises
    ------
    ImageryError
        If a glob matches nothing.
    """
    files: list[str] = []
    for text in [path] if isinstance(path, str) else path:
        if any(c in text for c in "*?[") and not Path(text).exists():
            found = sorted(glob.glob(text, recursive=True))  # noqa: PTH207 - the pattern may be absolute
            if not found:
                folder = Path(text).parent
                beside = [p.name for p in folder.iterdir()] if folder.is_dir() else []
                raise ImageryError(f"{what}: {text} matches no file{nearest(Path(text).name, beside)}")
            files += found
        else:
            files.append(text)
    return files


def _entry(entry: ImagerySettings, notes: list[str]) -> list[Source]:
    files = expand(entry.path)
    if entry.dates is not None or entry.band is not None:
        return [s for path in files for s in _series(entry, path, notes)]
    rests, dates = [], []
    for path in files:
        date, rest = (None, Path(path).stem) if entry.date is None else date_in(Path(path).stem, entry.date)
        rests.append(rest)
        dates.append(date)
    with open_raster(files[0]) as first:
        single = first.count == 1 and entry.bands is None
    names: list[str | None] = [None] * len(files)
    if single and len(files) > 1:
        names = _single_names(files, rests, dates)
    masks = _masks(entry, files)
    sources = []
    for path, date, name, mask in zip(files, dates, names, masks, strict=True):
        sources.append(_file(entry, path, date, name, mask, notes if path == files[0] or name else []))
    _check_same(entry, sources)
    if any(names):
        shown = list(dict.fromkeys(n for n in names if n))
        notes.append(f"a file per band: {', '.join(shown)}, named by the parts in which the file names differ")
    return sources


def _single_names(files: list[str], rests: list[str], dates: list[datetime.date | None]) -> list[str | None]:
    """Return band names of files that hold one band each."""
    if len(set(rests)) == 1 and len(set(dates)) == len(dates):
        return [None] * len(files)
    own = []
    for path in files:
        with open_raster(path) as dataset:
            own.append((dataset.descriptions[0] or "").strip())
    if all(own) and len(set(own)) == len(set(rests)):
        return list(own)
    return list(file_names(files, rests))


def _file(
    entry: ImagerySettings,
    path: str,
    date: datetime.date | None,
    name: str | None,
    mask: Mask | None,
    notes: list[str],
) -> Source:
    with open_raster(path) as dataset:
        if dataset.count == 0:
            inner = list(dataset.subdatasets[:3])
            raise ImageryError(
                f"{path} holds no bands itself; give one of its parts as path: {', '.join(inner) or 'none'}"
            )
        if entry.bands is not None:
            indexes, bands = chosen(dataset, entry.bands, path)
        elif name is not None:
            indexes, bands = [1], [name]
        else:
            aside, _ = set_aside(dataset, path) if dataset.count > 1 else ({}, True)
            own = described(dataset)
            masked = entry.mask.band if entry.mask is not None and entry.mask.path is None else None
            indexes = [i for i in range(1, dataset.count + 1) if i not in aside and i != masked]
            bands = [own[i - 1] for i in indexes]
            for i, reason in aside.items():
                if i != masked:
                    notes.append(_aside_note(path, i, own[i - 1], reason))
        for i in indexes:
            if dataset.dtypes[i - 1].startswith("complex"):
                raise ImageryError(
                    f"{path}: band {i} holds complex numbers ({dataset.dtypes[i - 1]}); take its amplitude first"
                )
        nodata = entry.nodata if entry.nodata is not None else dataset.nodatavals[indexes[0] - 1]
        _check_values(entry, dataset, path, nodata, notes)
        return Source(
            path=path,
            indexes=tuple(indexes),
            bands=tuple(bands),
            date=date,
            nodata=nodata,
            scales=tuple(float(entry.scale if entry.scale is not None else dataset.scales[i - 1]) for i in indexes),
            offsets=tuple(float(entry.offset if entry.offset is not None else dataset.offsets[i - 1]) for i in indexes),
            resampling=entry.resampling,
            mask=mask,
            crs=entry.crs,
        )


def _aside_note(path: str, index: int, name: str, reason: str) -> str:
    return (
        f"{Path(path).name}: band {index} ({name}) is left out: {reason}. Name it in `bands` to use it as values, or "
        f"exclude pixels by it with `mask: {{band: {index}, exclude: [...]}}`"
    )


def _check_values(entry: ImagerySettings, dataset: Any, path: str, nodata: float | None, notes: list[str]) -> None:
    from rasterio.enums import MaskFlags

    if nodata is None and MaskFlags.all_valid in dataset.mask_flag_enums[0]:
        notes.append(
            f"{Path(path).name}: no nodata value is declared; every pixel counts as valid (set `nodata` if not so)"
        )
    if entry.crs is not None:
        try:
            CRS.from_user_input(entry.crs)
        except RasterioError as error:
            raise ImageryError(f"imagery.crs: {entry.crs!r} is no CRS ({error})") from error


def _series(entry: ImagerySettings, path: str, notes: list[str]) -> list[Source]:
    """Return a source per band of a file whose bands are dates."""
    with open_raster(path) as dataset:
        dates = listed(entry.dates or "bands", list(dataset.descriptions), path)
        nodata = entry.nodata if entry.nodata is not None else dataset.nodata
        _check_values(entry, dataset, path, nodata, notes)
        name = entry.band or Path(path).stem
        scales = [float(entry.scale if entry.scale is not None else s) for s in dataset.scales]
        offsets = [float(entry.offset if entry.offset is not None else o) for o in dataset.offsets]
    masks = _masks(entry, [path])
    return [
        Source(
            path=path, indexes=(i,), bands=(name,), date=date, nodata=nodata, scales=(scales[i - 1],),
            offsets=(offsets[i - 1],), resampling=entry.resampling, mask=masks[0], crs=entry.crs,
        )
        for i, date in enumerate(dates, start=1)
    ]  # fmt: skip


def _masks(entry: ImagerySettings, files: list[str]) -> list[Mask | None]:
    """Return the mask of each file: a band of its own, one raster for all, or one raster each."""
    if entry.mask is None:
        return [None] * len(files)
    exclude = tuple(entry.mask.exclude)
    own = files if entry.mask.path is None else expand(entry.mask.path, "imagery.mask.path")
    if len(own) == 1:
        own = own * len(files)
    if len(own) != len(files) and entry.date is not None:
        by_date = {date_in(Path(m).stem, entry.date)[0]: m for m in own}
        wanted = [date_in(Path(f).stem, entry.date)[0] for f in files]
        lacking = [d.isoformat() for d in wanted if d not in by_date]
        if lacking:
            raise ImageryError(f"imagery.mask.path: no mask for {', '.join(lacking[:4])}")
        own = [by_date[d] for d in wanted]
    if len(own) != len(files):
        raise ImageryError(f"imagery.mask.path: {len(own)} masks for {len(files)} files; give one, or one each")
    for path in dict.fromkeys(own):
        with open_raster(path) as dataset:
            if entry.mask.band > dataset.count:
                raise ImageryError(f"imagery.mask.band is {entry.mask.band}, and {path} has bands 1 to {dataset.count}")
    return [Mask(path=p, band=entry.mask.band, exclude=exclude) for p in own]


def _check_same(entry: ImagerySettings, sources: list[Source]) -> None:
    """Refuse files that hold the same bands on the same date: which of them counts would be chance."""
    seen: dict[tuple[Any, str], str] = {}
    for source in sources:
        for band in source.bands:
            other = seen.setdefault((source.date, band), source.path)
            if other != source.path:
                when = "and have no date" if source.date is None else f"on {source.date}"
                raise ImageryError(
                    f"{Path(other).name} and {Path(source.path).name} hold the same band '{band}' {when}; "
                    + (
                        'say how a date stands in their names, such as `date: "%Y%m%d"`'
                        if entry.date is None
                        else "keep one"
                    )
                )


def _check_grids(sources: Sequence[Source], geobox: GeoBox, notes: list[str]) -> None:
    warped: dict[str, str] = {}
    for source in sources:
        with open_raster(source.path) as dataset:
            if dataset.crs is None and source.crs is None:
                raise ImageryError(f"{source.path} states no CRS; give it with `crs`, such as crs: EPSG:32633")
            if offset_on(dataset, geobox, source.crs) is None:
                warped[Path(source.path).name] = source.resampling
    if warped:
        shown = ", ".join(list(warped)[:3]) + (f" and {len(warped) - 3} more" if len(warped) > 3 else "")
        notes.append(f"not on the output grid, resampled ({', '.join(sorted(set(warped.values())))}): {shown}")


def _check_complete(
    sources: Sequence[Source], bands: tuple[str, ...], dates: tuple[Any, ...], notes: list[str]
) -> None:
    have = {(s.date, b) for s in sources for b in s.bands}
    missing = [f"{b} on {d}" for d in dates for b in bands if (d, b) not in have]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        notes.append(f"missing, so these dates are invalid everywhere: {', '.join(missing[:3])}{more}")

"""One entry of the job's imagery: its files, with their bands, dates, nodata, scale and masks."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rasterio.crs import CRS

from pipeline.errors import ImageryError
from pipeline.imagery.bands import chosen, described, file_names, set_aside
from pipeline.imagery.dates import date_in, listed
from pipeline.imagery.handles import GDAL_ERRORS, brief, open_raster
from pipeline.imagery.paths import expand, some
from pipeline.imagery.sources import Mask, Source
from pipeline.imagery.validity import Validity, adjusted
from pipeline.settings import ImagerySettings


def entry_sources(entry: ImagerySettings, keep: Sequence[str], notes: list[str]) -> list[Source]:
    """Return the sources of one entry.

    Parameters
    ----------
    entry : ImagerySettings
        As in the job file.
    keep : sequence of str
        Names of bands that are measurements, whatever they look like.
    notes : list of str
        Is added to: sentences about what was decided.

    Raises
    ------
    ImageryError
        If a file is missing or is no raster, or bands or dates do not fit.
    """
    files = expand(entry.path)
    if entry.crs is not None:
        try:
            CRS.from_user_input(entry.crs)
        except GDAL_ERRORS as error:
            raise ImageryError(f"imagery.crs: {entry.crs!r} is no CRS ({brief(error)})") from error
    if entry.dates is not None or entry.band is not None:
        sources = [s for path in files for s in _series(entry, path)]
    else:
        sources = _files(entry, files, keep, notes)
    _nodata_notes(entry, sources, notes)
    return sources


def _files(entry: ImagerySettings, files: list[str], keep: Sequence[str], notes: list[str]) -> list[Source]:
    rests: list[str] = []
    dates: list[datetime.date | None] = []
    for path in files:
        date, rest = (None, Path(path).stem) if entry.date is None else date_in(Path(path).stem, entry.date)
        rests.append(rest)
        dates.append(date)
    layouts = [_layout(path) for path in files]
    names: list[str | None] = [None] * len(files)
    if len(files) > 1 and entry.bands is None and all(len(layout) == 1 for layout in layouts):
        names = _single_names(files, rests, dates, layouts)
    aside = {}
    if entry.bands is None:
        for layout in dict.fromkeys(layouts):
            alike = [p for p, other in zip(files, layouts, strict=True) if other == layout]
            aside[layout] = _without(entry, alike, layout, keep, notes)
    sources = []
    for path, date, name, layout, mask in zip(files, dates, names, layouts, _masks(entry, files), strict=True):
        with open_raster(path) as dataset:
            if entry.bands is not None:
                indexes, bands = chosen(dataset, entry.bands, path)
            elif name is not None:
                indexes, bands = [1], [name]
            else:
                indexes = [i for i in range(1, len(layout) + 1) if i not in aside[layout]]
                bands = [layout[i - 1] for i in indexes]
            sources += _by_nodata(entry, dataset, path, indexes, bands, [date] * len(bands), mask)
    _check_same(entry, sources)
    if any(names):
        shown = list(dict.fromkeys(n for n in names if n))
        notes.append(f"a file per band: {', '.join(shown)}, named by the parts in which the file names differ")
    return sources


def _layout(path: str) -> tuple[str, ...]:
    """Return the names of a file's bands.

    Raises
    ------
    ImageryError
        If it has none, as files of several rasters do.
    """
    with open_raster(path) as dataset:
        if dataset.count == 0:
            inner = ", ".join(dataset.subdatasets[:3])
            raise ImageryError(f"{path} holds no bands itself; give one of its parts as path: {inner or 'it has none'}")
        return tuple(described(dataset))


def _single_names(
    files: list[str], rests: list[str], dates: list[datetime.date | None], layouts: list[tuple[str, ...]]
) -> list[str | None]:
    """Return band names of files that hold one band each; None where files differ in their date alone."""
    if len(set(rests)) == 1 and len(set(dates)) == len(dates):
        return [None] * len(files)
    own = ["" if layout == ("band_1",) else layout[0] for layout in layouts]
    if all(own) and len(set(own)) == len(set(rests)):
        return list(own)
    return list(file_names(files, rests))


def _without(
    entry: ImagerySettings, files: list[str], layout: tuple[str, ...], keep: Sequence[str], notes: list[str]
) -> set[int]:
    """Return the bands, from 1, that are not used as values, and say why."""
    reasons = set_aside(files, keep)
    own_mask = entry.mask.band if entry.mask is not None and entry.mask.path is None else None
    for i, reason in reasons.items():
        if i != own_mask:
            others = f" and {len(files) - 1} more" if len(files) > 1 else ""
            notes.append(f"{Path(files[0]).name}{others}: band {i} ({layout[i - 1]}) is left out: {reason}")
    left = set(reasons) if own_mask is None else {*reasons, own_mask}
    if len(left) == len(layout):
        raise ImageryError(f"{files[0]}: imagery.mask.band is its only band; nothing is left to map")
    return left


def _by_nodata(
    entry: ImagerySettings,
    dataset: Any,
    path: str,
    indexes: list[int],
    bands: list[str],
    dates: Sequence[datetime.date | None],
    mask: Mask | None,
) -> list[Source]:
    """Return the sources of one file: a new one wherever date or nodata change from band to band."""
    runs: list[tuple[tuple[datetime.date | None, float | None], list[tuple[int, str]]]] = []
    for i, name, date in zip(indexes, bands, dates, strict=True):
        if dataset.dtypes[i - 1].startswith("complex"):
            raise ImageryError(
                f"{path}: band {i} holds complex numbers ({dataset.dtypes[i - 1]}); take its amplitude first"
            )
        nodata = entry.nodata if entry.nodata is not None else dataset.nodatavals[i - 1]
        # Compared by what they print: NaN is not equal to itself.
        if runs and repr(runs[-1][0]) == repr((date, nodata)):
            runs[-1][1].append((i, name))
        else:
            runs.append(((date, nodata), [(i, name)]))
    return [
        Source(
            path=path,
            indexes=tuple(i for i, _ in run),
            bands=tuple(name for _, name in run),
            date=date,
            nodata=nodata,
            scales=tuple(float(dataset.scales[i - 1] if entry.scale is None else entry.scale) for i, _ in run),
            offsets=tuple(float(dataset.offsets[i - 1] if entry.offset is None else entry.offset) for i, _ in run),
            resampling=entry.resampling,
            mask=mask,
            crs=entry.crs,
        )
        for (date, nodata), run in runs
    ]


def _series(entry: ImagerySettings, path: str) -> list[Source]:
    """Return the sources of a file whose bands are dates of one band."""
    masks = _masks(entry, [path])
    with open_raster(path) as dataset:
        dates = listed(entry.dates or "bands", list(dataset.descriptions), path)
        names = [entry.band or Path(path).stem] * len(dates)
        return _by_nodata(entry, dataset, path, list(dataset.indexes), names, dates, masks[0])


def _nodata_notes(entry: ImagerySettings, sources: list[Source], notes: list[str]) -> None:
    """Say where nothing tells data from no data, or what should tell cannot."""
    silent: list[str] = []
    impossible: list[str] = []
    for source in {s.path: s for s in sources}.values():
        with open_raster(source.path) as dataset:
            dtype, declared = dataset.dtypes[source.indexes[0] - 1], Validity.declared(dataset)
        name = Path(source.path).name
        if source.nodata is None and not declared.masked and declared.alpha is None and entry.mask is None:
            silent.append(name)
        elif source.nodata is not None and adjusted(source.nodata, dtype) is None:
            impossible.append(f"{name} ({dtype}, nodata {source.nodata:g})")
    if silent:
        notes.append(
            f"{some(silent)}: no nodata value is declared; every pixel counts as valid (set `nodata` if not so)"
        )
    if impossible:
        notes.append(f"{some(impossible)}: no pixel can have that nodata value; every pixel counts as valid")


def _masks(entry: ImagerySettings, files: list[str]) -> list[Mask | None]:
    """Return the mask of each file: a band of its own, one raster for all, or one raster each."""
    if entry.mask is None:
        return [None] * len(files)
    own = files if entry.mask.path is None else expand(entry.mask.path, "imagery.mask.path")
    if len(own) == 1:
        own = own * len(files)
    if len(own) != len(files) and entry.date is not None:
        by_date = {date_in(Path(m).stem, entry.date)[0]: m for m in own}
        wanted = [date_in(Path(f).stem, entry.date)[0] for f in files]
        lacking = [d.isoformat() for d in wanted if d not in by_date]
        if lacking:
            raise ImageryError(f"imagery.mask.path: no mask for {some(lacking)}")
        own = [by_date[d] for d in wanted]
    if len(own) != len(files):
        raise ImageryError(f"imagery.mask.path: {len(own)} masks for {len(files)} files; give one, or one each")
    for path in dict.fromkeys(own):
        with open_raster(path) as dataset:
            if entry.mask.band > dataset.count:
                raise ImageryError(f"imagery.mask.band is {entry.mask.band}, and {path} has bands 1 to {dataset.count}")
            if dataset.crs is None and entry.crs is None and not dataset.gcps[0]:
                raise ImageryError(f"imagery.mask.path: {path} states no CRS; give it with `crs`")
    exclude = tuple(entry.mask.exclude)
    return [Mask(path=p, band=entry.mask.band, exclude=exclude, crs=entry.crs) for p in own]


def _check_same(entry: ImagerySettings, sources: list[Source]) -> None:
    """Refuse files that hold the same bands on the same date: which of them counts would be chance."""
    seen: dict[tuple[Any, str], str] = {}
    for source in sources:
        for band in source.bands:
            other = seen.setdefault((source.date, band), source.path)
            if other != source.path:
                when = "and have no date" if source.date is None else f"on {source.date}"
                mend = (
                    'say how a date stands in their names, such as `date: "%Y%m%d"`, or name the bands of each in an entry '
                    "of its own"
                    if entry.date is None
                    else "keep one"
                )
                raise ImageryError(
                    f"{Path(other).name} and {Path(source.path).name} hold the same band '{band}' {when}; {mend}"
                )

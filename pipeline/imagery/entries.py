"""One entry of the job's imagery: its files, with their bands, dates, nodata, scale and masks."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from rasterio.crs import CRS

from pipeline.errors import ImageryError
from pipeline.imagery.bands import chosen, described, file_names, set_aside
from pipeline.imagery.dates import date_in, holding, listed
from pipeline.imagery.duplicates import in_order
from pipeline.imagery.facts import Facts, Known
from pipeline.imagery.handles import brief
from pipeline.imagery.masks import masks_of
from pipeline.imagery.paths import expand, file_name, some, stem
from pipeline.imagery.remote import GDAL_ERRORS
from pipeline.imagery.sources import Mask, Source
from pipeline.imagery.validity import Validity, adjusted
from pipeline.settings import ImagerySettings


def entry_sources(entry: ImagerySettings, keep: Sequence[str], notes: list[str], known: Known) -> list[Source]:
    """Return the sources of one entry.

    Parameters
    ----------
    entry : ImagerySettings
        As in the job file.
    keep : sequence of str
        Names of bands that are measurements, whatever they look like.
    notes : list of str
        Is added to: sentences about what was decided.
    known : Known
        Facts of files; is added to.

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
        masks = masks_of(entry, files, known)
        sources = [s for path, mask in zip(files, masks, strict=True) for s in _series(entry, path, mask, known)]
    else:
        sources = _files(entry, files, keep, notes, known)
    _nodata_notes(entry, sources, notes, known)
    return in_order(sources, known)


def _files(
    entry: ImagerySettings, files: list[str], keep: Sequence[str], notes: list[str], known: Known
) -> list[Source]:
    rests: list[str] = []
    dates: list[datetime.date | None] = []
    for path in files:
        date, rest = (None, stem(path)) if entry.date is None else date_in(stem(path), entry.date)
        rests.append(rest)
        dates.append(date)
    layouts = [_layout(path, known) for path in files]
    names: list[str | None] = [None] * len(files)
    if len(files) > 1 and entry.bands is None and all(len(layout) == 1 for layout in layouts):
        names = _single_names(files, rests, dates, layouts)
    aside = {}
    if entry.bands is None:
        for layout in dict.fromkeys(layouts):
            alike = [p for p, other in zip(files, layouts, strict=True) if other == layout]
            aside[layout] = _without(entry, alike, layout, keep, notes)
    sources = []
    masks = masks_of(entry, files, known)
    for path, date, name, layout, mask in zip(files, dates, names, layouts, masks, strict=True):
        facts = known[path]
        if entry.bands is not None:
            indexes, bands = chosen(facts, entry.bands, path)
        elif name is not None:
            indexes, bands = [1], [name]
        else:
            indexes = [i for i in range(1, len(layout) + 1) if i not in aside[layout]]
            bands = [layout[i - 1] for i in indexes]
        sources += _by_nodata(entry, facts, path, indexes, bands, [date] * len(bands), mask)
    if any(names):
        shown = list(dict.fromkeys(n for n in names if n))
        notes.append(f"a file per band: {', '.join(shown)}, named by the parts in which the file names differ")
    return sources


def _layout(path: str, known: Known) -> tuple[str, ...]:
    """Return the names of a file's bands.

    Raises
    ------
    ImageryError
        If it has none, as files of several rasters do.
    """
    facts = known[path]
    if facts.count == 0:
        inner = ", ".join(facts.subdatasets[:3])
        raise ImageryError(f"{path} holds no bands itself; give one of its parts as path: {inner or 'it has none'}")
    return tuple(described(facts))


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
    reasons = set_aside(files, keep) if len(layout) > 1 else {}
    own_mask = None
    if entry.mask is not None and entry.mask.path is None:
        own_mask = entry.mask.band if isinstance(entry.mask.band, int) else 1
    for i, reason in reasons.items():
        if i != own_mask:
            others = f" and {len(files) - 1} more" if len(files) > 1 else ""
            notes.append(f"{file_name(files[0])}{others}: band {i} ({layout[i - 1]}) is left out: {reason}")
    left = set(reasons) if own_mask is None else {*reasons, own_mask}
    if len(left) == len(layout):
        raise ImageryError(f"{files[0]}: imagery.mask.band is its only band; nothing is left to map")
    return left


def _by_nodata(
    entry: ImagerySettings,
    facts: Facts,
    path: str,
    indexes: list[int],
    bands: list[str],
    dates: Sequence[datetime.date | None],
    mask: Mask | None,
) -> list[Source]:
    """Return the sources of one file: a new one wherever date or nodata change from band to band."""
    runs: list[tuple[tuple[datetime.date | None, float | None], list[tuple[int, int, str]]]] = []
    for place, (i, name, date) in enumerate(zip(indexes, bands, dates, strict=True)):
        if facts.dtypes[i - 1].startswith("complex"):
            raise ImageryError(
                f"{path}: band {i} holds complex numbers ({facts.dtypes[i - 1]}); take its amplitude first"
            )
        nodata = holding(entry.nodata, date, facts.nodatavals[i - 1], "imagery.nodata")
        # Compared by what they print: NaN is not equal to itself.
        if runs and repr(runs[-1][0]) == repr((date, nodata)):
            runs[-1][1].append((place, i, name))
        else:
            runs.append(((date, nodata), [(place, i, name)]))

    def per_band(
        setting: Any, own: Sequence[float], date: datetime.date | None, run: Any, what: str
    ) -> tuple[float, ...]:
        return tuple(float(holding(setting, date, own[i - 1], f"imagery.{what}") or 0) for _, i, _ in run)

    return [
        Source(
            path=path,
            indexes=tuple(i for _, i, _ in run),
            bands=tuple(name for *_, name in run),
            date=date,
            nodata=nodata,
            scales=per_band(entry.scale, facts.scales, date, run, "scale"),
            offsets=per_band(entry.offset, facts.offsets, date, run, "offset"),
            resampling=entry.resampling,
            mask=None if mask is None else mask.of([place for place, *_ in run]),
            crs=entry.crs,
        )
        for (date, nodata), run in runs
    ]


def _series(entry: ImagerySettings, path: str, mask: Mask | None, known: Known) -> list[Source]:
    """Return the sources of a file whose bands are dates of one band."""
    facts = known[path]
    dates = listed(entry.dates or "bands", list(facts.descriptions), path)
    names = [entry.band or stem(path)] * len(dates)
    return _by_nodata(entry, facts, path, list(range(1, facts.count + 1)), names, dates, mask)


def _nodata_notes(entry: ImagerySettings, sources: list[Source], notes: list[str], known: Known) -> None:
    """Say where nothing tells data from no data, or what should tell cannot."""
    silent: list[str] = []
    impossible: list[str] = []
    for source in {s.path: s for s in sources}.values():
        facts = known[source.path]
        dtype, declared = facts.dtypes[source.indexes[0] - 1], Validity.declared(facts)
        name = file_name(source.path)
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

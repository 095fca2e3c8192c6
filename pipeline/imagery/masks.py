"""Which mask belongs to which file of imagery."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from pipeline.errors import ImageryError
from pipeline.imagery.dates import date_in, dates_in_names
from pipeline.imagery.facts import Known
from pipeline.imagery.paths import expand, file_name, some, stem
from pipeline.imagery.sources import Mask
from pipeline.settings import ImagerySettings, MaskSettings


def masks_of(entry: ImagerySettings, files: Sequence[str], known: Known) -> list[Mask | None]:
    """Return the mask of each file of an entry: a band of its own, one raster for all, or one raster each.

    Masks are matched by their dates where their names hold any, else by the order of files.

    Raises
    ------
    ImageryError
        If there are too few or too many, or one lacks the band, a CRS, or bits.
    """
    settings = entry.mask
    if settings is None:
        return [None] * len(files)
    own = list(files) if settings.path is None else expand(settings.path, "imagery.mask.path")
    if len(own) == 1:
        own = own * len(files)
    elif settings.path is not None:
        own = _by_date(entry, settings, list(files), own)
    made: list[Mask | None] = []
    for file, path in zip(files, own, strict=True):
        bands = _bands(entry, settings, file, path, known)
        facts = known[path]
        if facts.crs is None and entry.crs is None and not facts.gcps[0]:
            raise ImageryError(f"imagery.mask.path: {path} states no CRS; give it with `crs`")
        kind = facts.dtypes[bands[0] - 1]
        if settings.bits and not kind.startswith(("int", "uint")):
            raise ImageryError(
                f"imagery.mask.bits: {path} holds {kind}, and only whole numbers have bits; name values with `exclude`"
            )
        if settings.bits and max(settings.bits) >= (width := int("".join(filter(str.isdigit, kind)))):
            raise ImageryError(
                f"imagery.mask.bits: {path} holds {kind}, which has bits 0 to {width - 1}; found {max(settings.bits)}"
            )
        bits = sum(1 << bit for bit in set(settings.bits))
        made.append(Mask(path=path, bands=bands, exclude=tuple(settings.exclude), bits=bits, crs=entry.crs))
    return made


def _by_date(entry: ImagerySettings, settings: MaskSettings, files: list[str], masks: list[str]) -> list[str]:
    """Return a mask for each file: that of its date; of several files of a date, in their order."""
    pattern = settings.date or entry.date
    if entry.date is None or pattern is None or "%" not in pattern or "%" not in entry.date:
        return _by_order(files, masks)
    if settings.date is None and len(masks) == len(files):
        try:
            date_in(stem(masks[0]), pattern)
        except ImageryError:
            return _by_order(files, masks)
    theirs: dict[datetime.date, list[str]] = {}
    for mask in masks:
        theirs.setdefault(date_in(stem(mask), pattern)[0], []).append(mask)
    ours: dict[datetime.date, list[str]] = {}
    for file in files:
        ours.setdefault(date_in(stem(file), entry.date)[0], []).append(file)
    lacking = [d.isoformat() for d in ours if d not in theirs]
    if lacking:
        raise ImageryError(f"imagery.mask.path: no mask for {some(lacking)}")
    chosen: dict[str, str] = {}
    for date, same in ours.items():
        found = theirs[date]
        if len(found) not in (1, len(same)):
            raise ImageryError(
                f"imagery.mask.path: {len(found)} masks on {date} ({some([file_name(m) for m in found])}) for {len(same)} files; "
                "give one a date, or one each"
            )
        chosen |= dict(zip(same, found * len(same) if len(found) == 1 else found, strict=True))
    return [chosen[file] for file in files]


def _by_order(files: list[str], masks: list[str]) -> list[str]:
    if len(masks) != len(files):
        raise ImageryError(f"imagery.mask.path: {len(masks)} masks for {len(files)} files; give one, or one each")
    return masks


def _bands(entry: ImagerySettings, settings: MaskSettings, file: str, path: str, known: Known) -> tuple[int, ...]:
    """Return the bands of a mask, from 1: one for all bands of the file, or one each."""
    count, wanted, dated = known[path].count, settings.band, entry.dates is not None or entry.band is not None
    if wanted == "dates" and not dated:
        raise ImageryError(
            "imagery.mask.band: `dates` is for files whose bands are dates (imagery.dates); give the number of a band"
        )
    alike = dated and count == known[file].count
    if wanted == "dates" and not alike:
        raise ImageryError(
            f"imagery.mask.band: dates needs as many bands as the imagery has; {path} has {count}, {file} has "
            f"{known[file].count}"
        )
    if not alike or isinstance(wanted, int):
        band = wanted if isinstance(wanted, int) else 1
        if band > count:
            raise ImageryError(f"imagery.mask.band is {band}, and {path} has bands 1 to {count}")
        return (band,)
    one, other = dates_in_names(known[path].descriptions), dates_in_names(known[file].descriptions)
    for i, (a, b) in enumerate(zip(one, other, strict=True), start=1):
        if a is not None and b is not None and a != b:
            raise ImageryError(
                f"imagery.mask.path: band {i} of {path} is of {a}, and that of {file} is of {b}; bring them into one order"
            )
    return tuple(range(1, count + 1))

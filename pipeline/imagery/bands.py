"""Names of bands, and which bands are no measurements."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp

from pipeline.errors import ImageryError, nearest
from pipeline.grid import Window
from pipeline.imagery.handles import open_raster, unreadable
from pipeline.imagery.paths import stem
from pipeline.imagery.remote import GDAL_ERRORS, patiently
from pipeline.imagery.validity import adjusted

Array = np.ndarray[Any, Any]

_MASK_WORDS = re.compile(
    r"(^|[^a-z])(f?mask|scl|qa|bqa|qa_?pixel|quality|cloud|clouds|clm|alpha|valid)([^a-z]|$)", re.IGNORECASE
)
# So many files are looked at, each in windows of this side, that many along each axis: a file's size does not matter.
_FILES, _SIDE, _STEPS = 6, 64, 3
# A band with so few values is a classification if the others have many more.
_FEW, _MANY = 8, 64


def stem_parts(stems: Sequence[str]) -> list[str]:
    """Return, for names that differ in some of their parts, those parts: ``B1``, ``B2``, ... of ``LT5_B1``, ``LT5_B2``."""
    split = [re.split(r"[_\-. ]+", s) for s in stems]
    if len({len(s) for s in split}) != 1:
        return list(stems)
    differing = [i for i in range(len(split[0])) if len({s[i] for s in split}) > 1]
    return ["_".join(s[i] for i in differing) for s in split]


def described(dataset: Any) -> list[str]:
    """Return a name for each band of a file: its description, else its number."""
    names = [(text or "").strip() or f"band_{i}" for i, text in enumerate(dataset.descriptions, start=1)]
    return [n if names.count(n) == 1 else f"{n}_{i}" for i, n in enumerate(names, start=1)]


def chosen(dataset: Any, bands: dict[str, int] | list[str], path: str) -> tuple[list[int], list[str]]:
    """Return numbers and names of the bands that the job names.

    Raises
    ------
    ImageryError
        If the file has no such band.
    """
    if isinstance(bands, list):
        if len(bands) > dataset.count:
            raise ImageryError(
                f"{path} has {dataset.count} bands, and imagery.bands names {len(bands)}: {', '.join(bands)}"
            )
        own = described(dataset)
        if all(b in own for b in bands):
            return [own.index(b) + 1 for b in bands], list(bands)
        strangers = [b for b in bands if b not in own]
        if len(bands) != dataset.count and any(d for d in dataset.descriptions):
            raise ImageryError(
                f"{path} has no band '{strangers[0]}'{nearest(strangers[0], own)}; it has: {', '.join(own)}. A list in file "
                "order must name every band; {name: number} picks some"
            )
        return list(range(1, len(bands) + 1)), list(bands)
    for name, index in bands.items():
        if not 1 <= index <= dataset.count:
            raise ImageryError(f"{path}: imagery.bands.{name} is {index}, and the file has bands 1 to {dataset.count}")
    return list(bands.values()), list(bands)


def set_aside(paths: Sequence[str], keep: Sequence[str] = ()) -> dict[int, str]:
    """Return the bands, from 1, of files that are alike which carry no measurements, with the reason.

    A band is set aside if it is an alpha band, is named like a mask, holds a single value wherever it was looked at, or
    holds a few whole numbers while the others hold many: such a band is a classification, and its numbers are names. All
    files are judged together, so that a date on which a band happens to be constant does not lose it.

    Parameters
    ----------
    paths : sequence of str
        Files with the same bands. A few of them are looked at.
    keep : sequence of str
        Names of bands that are known to be measurements.

    Raises
    ------
    ReadError
        If a file cannot be read; names it.
    """
    with open_raster(paths[0]) as first:
        names, count, interpretations = described(first), first.count, first.colorinterp
    if count == 1:
        return {}
    step = max(1, len(paths) // _FILES)
    seen = [_samples(p) for p in paths[::step][:_FILES]]
    samples = [np.concatenate([s[i] for s in seen]) for i in range(count)]
    distinct = [len(np.unique(s)) for s in samples]
    enough, most = min(s.size for s in samples) >= _MANY, max(distinct)
    reasons: dict[int, str] = {}
    for i, (name, values, n) in enumerate(zip(names, samples, distinct, strict=True), start=1):
        whole_numbers = values.dtype.kind in "iu"
        if name in keep:
            continue
        if interpretations[i - 1] == ColorInterp.alpha:
            reasons[i] = "it is the alpha band; pixels where it is zero count as no data"
        elif whole_numbers and _MASK_WORDS.search(name):
            reasons[i] = f"its name says it is a mask. {_use(i, values)}"
        elif enough and n == 1 and most > 1:
            reasons[i] = f"it holds nothing but {values[0]:g}. {_use(i, values)}"
        elif enough and whole_numbers and n <= _FEW and most >= _MANY:
            shown = ", ".join(str(v) for v in np.unique(values))
            reasons[i] = f"it holds only the values {shown}, as a mask or a classification does. {_use(i, values)}"
    if len(reasons) == count:
        # Something has to be mapped: all but the alpha band, which is in the validity already.
        return {i: r for i, r in reasons.items() if interpretations[i - 1] == ColorInterp.alpha}
    return reasons


def _use(band: int, values: Array) -> str:
    """Return what to do with a band that looks like a mask; what is seen most is taken for a clear view."""
    found, counts = np.unique(values, return_counts=True)
    rest = [f"{v:g}" for v in np.delete(found, counts.argmax())] if 1 < found.size <= _FEW else ["..."]
    return (
        "Name it in `bands` to use it as values, or leave out pixels by it, for example with "
        f"`mask: {{band: {band}, exclude: [{', '.join(rest)}]}}`"
    )


def _samples(path: str) -> list[Array]:
    """Return valid stored values per band, from a few small windows spread over the file."""
    with open_raster(path) as dataset:
        side_y, side_x = min(_SIDE, dataset.height), min(_SIDE, dataset.width)
        steps = np.linspace(0, 1, _STEPS)
        rows = {round((dataset.height - side_y) * float(s)) for s in steps}
        columns = {round((dataset.width - side_x) * float(s)) for s in steps}
        nodata, pieces = dataset.nodatavals, []
        for y, x in sorted((y, x) for y in rows for x in columns):
            window = Window(y=y, x=x, height=side_y, width=side_x)
            try:
                pieces.append(patiently(path, partial(_read, dataset, window)))
            except GDAL_ERRORS as error:
                raise unreadable(path, window, error) from error
    kept = []
    for band, value in zip(zip(*pieces, strict=True), nodata, strict=True):
        values = np.concatenate([p.ravel() for p in band])
        good = np.isfinite(values) if values.dtype.kind in "fc" else np.ones(values.shape, bool)
        missing = None if value is None else adjusted(value, str(values.dtype))
        kept.append(values[good] if missing is None else values[good & (values != values.dtype.type(missing))])
    return kept


def _read(dataset: Any, window: Window) -> list[Array]:
    # Band by band: they may differ in type.
    return [dataset.read(i, window=window.to_rasterio()) for i in dataset.indexes]


def file_names(paths: Sequence[str], rests: Sequence[str]) -> list[str]:
    """Return a band name for each file of one band, from the parts in which their names differ."""
    names = stem_parts(list(rests))
    if "" in names:
        names = [n or stem(p) for n, p in zip(names, paths, strict=True)]
    return names

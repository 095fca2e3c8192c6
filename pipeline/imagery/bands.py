"""Names of bands, and which bands are no measurements."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp

from pipeline.errors import ImageryError, nearest
from pipeline.grid import Window
from pipeline.imagery.handles import open_raster

Array = np.ndarray[Any, Any]

_MASK_WORDS = re.compile(
    r"(^|[^a-z])(f?mask|scl|qa|bqa|qa_?pixel|quality|cloud|clouds|clm|alpha|valid)([^a-z]|$)", re.IGNORECASE
)
# Seen in so many windows of this side, so that a file's size does not matter.
_WINDOWS, _SIDE = 9, 64
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
                f"{path} has no band '{strangers[0]}'{nearest(strangers[0], own)} It has: {', '.join(own)}. A list in file "
                "order must name every band; {name: number} picks some"
            )
        return list(range(1, len(bands) + 1)), list(bands)
    for name, index in bands.items():
        if not 1 <= index <= dataset.count:
            raise ImageryError(f"{path}: imagery.bands.{name} is {index}, and the file has bands 1 to {dataset.count}")
    return list(bands.values()), list(bands)


def set_aside(dataset: Any, path: str) -> tuple[dict[int, str], bool]:
    """Return the bands of a file that carry no measurements, with the reason, and whether enough was seen to tell.

    A band is set aside if it is an alpha band, is named like a mask, holds a single value wherever it was looked at, or
    holds a few whole numbers while the others hold many: such a band is a classification, and its numbers are names.
    """
    reasons: dict[int, str] = {}
    names = described(dataset)
    samples = _samples(path)
    distinct = [len(np.unique(s)) if s.size else 0 for s in samples]
    enough = all(s.size >= _MANY for s in samples)
    most = max(distinct)
    for i in range(1, dataset.count + 1):
        values, n = samples[i - 1], distinct[i - 1]
        if dataset.colorinterp[i - 1] == ColorInterp.alpha:
            reasons[i] = "it is the alpha band"
        elif _MASK_WORDS.search(names[i - 1]) and values.dtype.kind in "iu":
            reasons[i] = "its name says it is a mask"
        elif enough and n == 1 and most > 1:
            reasons[i] = f"it holds nothing but {values[0]:g}"
        elif enough and values.dtype.kind in "iu" and n <= _FEW and most >= _MANY:
            shown = ", ".join(str(v) for v in np.unique(values))
            reasons[i] = f"it holds only the values {shown}, as a mask or a classification does"
    return ({} if len(reasons) == dataset.count else reasons), enough


def _samples(path: str) -> list[Array]:
    """Return valid stored values per band, from a few small windows spread over the file."""
    with open_raster(path) as dataset:
        side_y, side_x = min(_SIDE, dataset.height), min(_SIDE, dataset.width)
        steps = round(_WINDOWS**0.5)
        corners = {
            (round((dataset.height - side_y) * i / (steps - 1)), round((dataset.width - side_x) * j / (steps - 1)))
            for i in range(steps)
            for j in range(steps)
        }
        pieces = []
        for y, x in sorted(corners):
            window = Window(y=y, x=x, height=side_y, width=side_x).to_rasterio()
            pieces.append(dataset.read(window=window).reshape(dataset.count, -1))
    values = np.concatenate(pieces, 1)
    kept = []
    for band, nodata in zip(values, dataset.nodatavals, strict=True):
        good = np.isfinite(band) if band.dtype.kind == "f" else np.ones(band.shape, bool)
        kept.append(band[good & (band != nodata)] if nodata is not None else band[good])
    return kept


def file_names(paths: Sequence[str], rests: Sequence[str]) -> list[str]:
    """Return a band name for each file of one band, from the parts in which their names differ."""
    names = stem_parts(list(rests))
    if "" in names:
        names = [n or Path(p).stem for n, p in zip(names, paths, strict=True)]
    return names

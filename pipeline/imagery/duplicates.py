"""Bands that are given more than once for a date: merged by a rule, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.errors import ImageryError
from pipeline.imagery.facts import Facts, Known
from pipeline.imagery.paths import file_name
from pipeline.imagery.sources import Source


def in_order(sources: Sequence[Source], known: Known) -> list[Source]:
    """Return the sources of an entry with those of the same band and date in the order of their files' names.

    Of these, the first with a value counts at each pixel; so the result does not hang on the order in which a folder lists
    its files, or on that of a list.

    Parameters
    ----------
    sources : sequence of Source
        All sources of one entry.
    known : Known
        Facts of the files.

    Raises
    ------
    ImageryError
        If two files hold the same band without a date, or on one date with other sizes or places.
    """
    first: dict[tuple[Any, str], Source] = {}
    twice: set[tuple[Any, str]] = set()
    for source in sources:
        for band in source.bands:
            other = first.setdefault((source.date, band), source)
            if other is source:
                continue
            twice.add((source.date, band))
            if other.path != source.path:
                _check(other, source, band, known)
    places = [i for i, s in enumerate(sources) if any((s.date, b) in twice for b in s.bands)]
    ordered = sorted((sources[i] for i in places), key=lambda s: (file_name(s.path), s.path, s.indexes))
    result = list(sources)
    for i, source in zip(places, ordered, strict=True):
        result[i] = source
    return result


def _check(other: Source, source: Source, band: str, known: Known) -> None:
    names = f"{file_name(other.path)} and {file_name(source.path)} hold the same band '{band}'"
    if source.date is None:
        raise ImageryError(
            f'{names} and have no date; say how a date stands in their names, such as `date: "%Y%m%d"`, or name the bands of '
            "each in an entry of its own"
        )
    a, b = known[other.path], known[source.path]
    if (a.shape, a.crs) != (b.shape, b.crs) or not a.transform.almost_equals(b.transform, 1e-6 * abs(a.transform.a)):
        raise ImageryError(
            f"{names} on {source.date}, and lie on different grids: {_grid(a)} against {_grid(b)}. Keep one, or give each an "
            "entry of its own: where both have a value, the first entry counts"
        )


def _grid(facts: Facts) -> str:
    height, width = facts.shape
    t = facts.transform
    return f"{height} x {width} pixels of {abs(t.a):g} at ({t.c:.10g}, {t.f:.10g})"

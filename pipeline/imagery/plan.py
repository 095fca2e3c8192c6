"""Which file fills which bands and dates of a cube, in as few reads as can be."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.imagery.sources import Mask, Source

Array = np.ndarray[Any, Any]

# Bands taken from one file at once: enough that pixel-interleaved files are decoded once, few enough for the memory.
_TOGETHER = 32


@dataclass(frozen=True, slots=True)
class Piece:
    """One read: a source whose bands are all needed, and the place of each, (date, band), in the cube.

    Attributes
    ----------
    source : Source
        Its dates and band names are not looked at any more.
    places : tuple of (int, int)
        Index of date and band in the cube, per band of the source.
    alone : bool
        No other piece fills any of these places.
    """

    source: Source
    places: tuple[tuple[int, int], ...]
    alone: bool

    def target(self, values: Array) -> Array | None:
        """Return the view (n, h, w) of the cube's values (T, C, h, w) that the source may be decoded into, if there is one."""
        if not self.alone:
            return None
        (t, c), n = self.places[0], len(self.places)
        if self.places == tuple((t, c + i) for i in range(n)):
            return np.asarray(values[t, c : c + n])
        if self.places == tuple((t + i, c) for i in range(n)):
            return np.asarray(values[t : t + n, c])
        return None


def pieces(sources: Sequence[Source], bands: Sequence[str], dates: Sequence[datetime.date | None]) -> tuple[Piece, ...]:
    """Return the reads that fill a cube of these bands and dates; sources of others are left out.

    Bands of one file that stand side by side in the list of sources are read together, also where they are dates.
    """
    # Of dates that are alike, None, the first counts.
    rows, columns = ({key: i for i, key in reversed(list(enumerate(keys)))} for keys in (dates, bands))
    runs: list[list[tuple[Source, int, tuple[int, int]]]] = []
    for source in sources:
        for i, name in enumerate(source.bands):
            if name not in columns or source.date not in rows:
                continue
            entry = (source, i, (rows[source.date], columns[name]))
            if runs and len(runs[-1]) < _TOGETHER and _together(runs[-1][-1][0], source):
                runs[-1].append(entry)
            else:
                runs.append([entry])
    filled = Counter(place for run in runs for *_, place in run)
    return tuple(
        Piece(
            replace(
                run[0][0],
                indexes=tuple(s.indexes[i] for s, i, _ in run),
                bands=tuple(s.bands[i] for s, i, _ in run),
                scales=tuple(s.scales[i] for s, i, _ in run),
                offsets=tuple(s.offsets[i] for s, i, _ in run),
                mask=_joined([(s.mask, i) for s, i, _ in run]),
            ),
            tuple(place for *_, place in run),
            all(filled[place] == 1 for *_, place in run),
        )
        for run in runs
    )


def _joined(masks: Sequence[tuple[Mask | None, int]]) -> Mask | None:
    """Return one mask from those of bands that are read together, each with the band's place in its source."""
    first = masks[0][0]
    if first is None:
        return None
    bands = tuple(m.of([i]).bands[0] for m, i in masks if m is not None)
    return replace(first, bands=bands).of(range(len(bands)))


def _together(a: Source, b: Source) -> bool:
    return _reading(a) == _reading(b)


def _reading(source: Source) -> tuple[object, ...]:
    """Return what two bands must share to be read at once: all but their numbers in the file and in its mask."""
    mask = None if source.mask is None else replace(source.mask, bands=())
    # Nodata is compared by what it prints: NaN is not equal to itself.
    return source.path, repr(source.nodata), source.resampling, mask, source.crs

"""Images as they are: what files hold of a window on each date, and the indices computed from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from odc.geo.geobox import GeoBox

from pipeline.grid import Window
from pipeline.imagery.indices import Index
from pipeline.imagery.plan import Piece

Array = np.ndarray[Any, Any]


def observe(
    plan: Sequence[Piece],
    indices: Sequence[Index],
    names: Sequence[str],
    geobox: GeoBox,
    window: Window,
    values: Array,
) -> Array:
    """Read a window inside the grid on all dates, and compute the indices.

    Parameters
    ----------
    plan : sequence of Piece
        The reads that fill the bands of files.
    indices : sequence of Index
        Those to be computed.
    names : sequence of str
        Name of each plane of a date: bands of files and indices.
    geobox, window
        The grid, and a window inside it.
    values : (T, C, h, w) float32
        Is filled; zeros, or anything where there are no indices. What it holds where a date is invalid means nothing.

    Returns
    -------
    valid : (T, h, w) bool
        Where all planes of a date have a finite value.

    Raises
    ------
    ReadError
        If a file cannot be read there; names file and window.
    """
    times = len(values)
    made = {index.name: index for index in indices}
    stored = [c for c, name in enumerate(names) if name not in made]
    # A date is valid where all its bands are; those that no source holds never are.
    held = {place for piece in plan for place in piece.places}
    valid = np.zeros((times, *window.shape), bool)
    for t in range(times):
        valid[t] = all((t, c) in held for c in stored)
    shared: dict[tuple[int, int], Array] = {}
    for piece in plan:
        target = piece.target(values)
        found = target if target is not None else np.zeros((len(piece.places), *window.shape), np.float32)
        good = piece.source.fill(geobox, window, found)
        for i, (t, c) in enumerate(piece.places):
            if target is not None:
                valid[t] &= good[i]
                continue
            have = shared.setdefault((t, c), np.zeros(window.shape, bool))
            np.copyto(values[t, c], found[i], where=good[i] & ~have)
            have |= good[i]
    for (t, _), have in shared.items():
        valid[t] &= have
    column = {name: c for c, name in enumerate(names)}
    for index in made.values():
        for t in range(times):
            plane = values[t, column[index.name]]
            plane[:] = index.of({band: values[t, column[band]] for band in index.bands})
            valid[t] &= np.isfinite(plane)
    return valid

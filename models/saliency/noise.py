"""Noise that hangs on the place and not on the tile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# Noise is drawn cell by cell of the grid, each from a generator of its own.
_CELL = 64
# Tiles reach beyond the grid, and seeds may not be negative.
_BEFORE = 1 << 31


def noise(shape: Sequence[int], origins: Sequence[tuple[int, int]], *, copy: int, seed: int) -> Tensor:
    """Return standard normal noise for tiles of a grid; the same place gets the same noise on every tile.

    Parameters
    ----------
    shape : sequence of int
        (B, T, C, H, W).
    origins : sequence of (int, int)
        Row and column on the grid of the upper left pixel of each tile; B of them. May be negative.
    copy, seed : int
        Different ones give noise that has nothing to do with each other.

    Returns
    -------
    Tensor
        (B, T, C, H, W) float32.
    """
    _, dates, bands, height, width = shape
    result = np.empty(tuple(shape), np.float32)
    for i, (top, left) in enumerate(origins):
        for row in range(top // _CELL, (top + height - 1) // _CELL + 1):
            for column in range(left // _CELL, (left + width - 1) // _CELL + 1):
                draw = np.random.default_rng((seed, copy, row + _BEFORE, column + _BEFORE))
                cell = draw.standard_normal((dates, bands, _CELL, _CELL), dtype=np.float32)
                y, x = row * _CELL - top, column * _CELL - left
                to = slice(max(y, 0), y + _CELL), slice(max(x, 0), x + _CELL)
                part = result[i, ..., to[0], to[1]]
                part[:] = cell[..., max(-y, 0) : max(-y, 0) + part.shape[-2], max(-x, 0) : max(-x, 0) + part.shape[-1]]
    return torch.from_numpy(result)

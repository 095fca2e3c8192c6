"""Naive implementations, slow and plain, that the real ones are compared with."""

from __future__ import annotations

import numpy as np


def assembled(arrays, windows, shape, nodata):
    """Place the arrays (bands, h, w) of blocks on one array (bands, H, W); the rest is nodata."""
    first = next(iter(arrays.values()))
    result = np.full((first.shape[0], *shape), nodata, dtype=first.dtype)
    for index, array in arrays.items():
        window = windows[index]
        result[:, window.y : window.bottom, window.x : window.right] = array
    return result

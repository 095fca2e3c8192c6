"""Explanations and their summaries by plain loops, which the real ones are compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def shares_by_hand(
    values: np.ndarray[Any, Any], codes: np.ndarray[Any, Any], code: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any], int]:
    """Return mean, 10th and 90th percentile of the shares, mean value, and number of pixels of a class, one by one.

    Values are (n, h, w) with NaN where there is nothing, codes (h, w). A share is a size over the sum of sizes at a pixel.
    """
    parts, signed = [], []
    for y, x in np.argwhere(codes == code):
        at = values[:, y, x].astype(float)
        total = sum(abs(v) for v in at)
        if np.isnan(at).any() or total == 0:
            continue
        parts.append([abs(v) / total for v in at])
        signed.append(at)
    table = np.sort(np.array(parts), axis=0)

    def percentile(q: float) -> np.ndarray[Any, Any]:
        place = q * (len(table) - 1)
        low, share = int(place), place - int(place)
        return table[low] * (1 - share) + table[min(low + 1, len(table) - 1)] * share

    return table.mean(0), percentile(0.1), percentile(0.9), np.mean(signed, axis=0), len(parts)


def patch_occlusion_by_hand(network, cube, valid, time, where, target, baseline, origin, patch, step):  # type: ignore[no-untyped-def]
    """Take away patch after patch of one tile, one forward pass each: the mean fall of those that lie on a pixel, (H, W)."""
    import torch

    def amount(values):  # type: ignore[no-untyped-def]
        with torch.no_grad():
            return (weights * target.amounts(network(values, valid, time))).sum(dtype=torch.float64)

    with torch.no_grad():
        weights = target.weights(network(cube, valid, time)) * where
    h, w = cube.shape[-2:]
    before = amount(cube)
    falls: dict[tuple[int, int], list[float]] = {(y, x): [] for y in range(h) for x in range(w)}
    for top in range(-60 * step, 60 * step, step):
        for left in range(-60 * step, 60 * step, step):
            on_it = [
                (y - origin[0], x - origin[1])
                for y in range(max(top, origin[0]), min(top + patch, origin[0] + h))
                for x in range(max(left, origin[1]), min(left + patch, origin[1] + w))
            ]
            if on_it:
                changed = cube.clone()
                for y, x in on_it:
                    changed[0, :, :, y, x] = baseline
                fall = float(before - amount(changed))
                for pixel in on_it:
                    falls[pixel].append(fall)
    return torch.tensor([[np.mean(falls[y, x]) for x in range(w)] for y in range(h)])


def removal_by_hand(
    score: Callable[[np.ndarray[Any, Any]], float], values: np.ndarray[Any, Any], order: list[int], blank: float
) -> list[float]:
    """Return what is left of a score of values (n,) as they are replaced one after another, in an order."""
    left = values.copy()
    found = [score(left)]
    for i in order:
        left[i] = blank
        found.append(score(left))
    return found


def own_shares_by_hand(attribution: np.ndarray[Any, Any], axis: str) -> list[list[float]]:
    """Return of attributions (N, T, C, H, W) the share of each band, or date, of each place, by loops over sizes."""
    n, dates, bands, _, _ = attribution.shape
    found = []
    for i in range(n):
        sizes = [0.0] * (bands if axis == "band" else dates)
        for t in range(dates):
            for c in range(bands):
                sizes[c if axis == "band" else t] += float(np.abs(attribution[i, t, c]).sum())
        found.append([s / sum(sizes) for s in sizes])
    return found

"""Labels and chips by plain loops, pixel by pixel, which the real ones are compared with."""

from __future__ import annotations

from typing import Any

import numpy as np


def nearest_distance(a: Any, b: Any) -> int:
    """Return the smallest Chebyshev distance between two sets of pixels (rows, columns), pair by pair."""
    rows, columns = (np.abs(np.subtract.outer(getattr(a, n), getattr(b, n)).astype(int)) for n in ("rows", "columns"))
    return int(np.maximum(rows, columns).min())


def labelled_by_hand(shapes, classes, geobox, all_touched=False):
    """Label a grid pixel by pixel: the last feature in the file that covers the centre (of lines: any part) counts."""
    from shapely.geometry import Point, box

    height, width = int(geobox.shape.y), int(geobox.shape.x)
    codes = np.full((height, width), -1)
    t = geobox.affine
    for i in range(height):
        for j in range(width):
            square = box(t.c + t.a * j, t.f + t.e * (i + 1), t.c + t.a * (j + 1), t.f + t.e * i)
            centre = Point(t.c + t.a * (j + 0.5), t.f + t.e * (i + 0.5))
            for shape, index in zip(shapes, classes, strict=True):
                touched = all_touched or shape.geom_type in ("LineString", "Point")
                if (square if touched else centre).intersects(shape):
                    codes[i, j] = index
    return codes


def buffered_by_hand(role, buffer, train, val, test, kept=(), elsewhen=()):
    """Drop training labels with a validation or test label within ``buffer`` pixels, and validation ones near test ones.

    ``kept`` are places (row, column) whose labels stay all the same; ``elsewhen`` roles that labels of other periods have.
    """
    made = role.copy()
    for y, x in zip(*np.nonzero(role), strict=True):
        around = slice(max(0, y - buffer), y + buffer + 1), slice(max(0, x - buffer), x + buffer + 1)
        foes = {train: (val, test), val: (test,), test: ()}[int(role[y, x])]
        if (y, x) not in kept and any((r[around] == foe).any() for foe in foes for r in (role, *elsewhen)):
            made[y, x] = 0
    return made


def zoomed_by_hand(cube, valid, labels, factor):  # type: ignore[no-untyped-def]
    """Show one chip (T, C, S, S) larger or smaller about its centre, pixel by pixel."""
    side = cube.shape[-1]
    centre = (side - 1) / 2
    made, seen, known = np.zeros_like(cube), np.zeros_like(valid), np.full_like(labels, -1)
    for y in range(side):
        for x in range(side):
            v, u = centre + (y - centre) / factor, centre + (x - centre) / factor
            i, j = int(np.floor(v + 0.5)), int(np.floor(u + 0.5))
            if not (0 <= i < side and 0 <= j < side):
                continue
            known[y, x] = labels[i, j]
            for t in range(len(cube)):
                if not valid[t, i, j]:
                    continue
                seen[t, y, x] = True
                total, weight = np.zeros(cube.shape[1]), 0.0
                for a in (int(np.floor(v)), int(np.floor(v)) + 1):
                    for b in (int(np.floor(u)), int(np.floor(u)) + 1):
                        if 0 <= a < side and 0 <= b < side and valid[t, a, b]:
                            share = (1 - abs(v - a)) * (1 - abs(u - b))
                            total += share * cube[t, :, a, b]
                            weight += share
                made[t, :, y, x] = total / weight
    return made, seen, known


def centre_by_hand(values: Any, radius: int) -> Any:
    """Return the pixels (C, S, S) around the pixel at half height and half width of a chip (C, H, W), one by one."""
    bands, height, width = values.shape
    found = np.empty((bands, 2 * radius + 1, 2 * radius + 1), values.dtype)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            y, x = height // 2 + dy, width // 2 + dx
            if not (0 <= y < height and 0 <= x < width):
                raise IndexError(f"({y}, {x}) lies outside a chip of {height} x {width}")
            found[:, dy + radius, dx + radius] = values[:, y, x]
    return found

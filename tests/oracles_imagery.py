"""Imagery read, resampled, brought to steps and put together by plain loops, which the real one is compared with."""

from __future__ import annotations

import datetime

import numpy as np


def assembled(arrays, windows, shape, nodata):
    """Place the arrays (bands, h, w) of blocks on one array (bands, H, W); the rest is nodata."""
    first = next(iter(arrays.values()))
    result = np.full((first.shape[0], *shape), nodata, dtype=first.dtype)
    for index, array in arrays.items():
        window = windows[index]
        result[:, window.y : window.bottom, window.x : window.right] = array
    return result


def naive_read(bands, nodata, scale, offset, y, x, height, width):
    """Read a window of stored bands (C, H, W) pixel by pixel; outside, nodata and non-finite values are zero and invalid."""
    count, rows, columns = bands.shape
    values = np.zeros((count, height, width), np.float32)
    valid = np.zeros((count, height, width), bool)
    for c in range(count):
        for i in range(height):
            for j in range(width):
                if 0 <= y + i < rows and 0 <= x + j < columns:
                    stored = bands[c, y + i, x + j]
                    same = np.isnan(stored) if nodata is not None and np.isnan(nodata) else stored == nodata
                    if not same and np.isfinite(stored):
                        valid[c, i, j] = True
                        values[c, i, j] = np.float32(np.float32(stored) * np.float32(scale)) + np.float32(offset)
    return values, valid


def bilinear_at(band, row, column):
    """Interpolate a band (H, W) at a place given in pixels, whose centres lie at 0.5."""
    r, c = row - 0.5, column - 0.5
    i, j = int(np.floor(r)), int(np.floor(c))
    a, b = r - i, c - j
    corners = [
        (weight, min(max(i + di, 0), band.shape[0] - 1), min(max(j + dj, 0), band.shape[1] - 1))
        for di, dj, weight in ((0, 0, (1 - a) * (1 - b)), (0, 1, (1 - a) * b), (1, 0, a * (1 - b)), (1, 1, a * b))
    ]
    return sum(weight * float(band[y, x]) for weight, y, x in corners)


def naive_steps(values, valid, days, at, every=None, fill="none", composite="none"):
    """Bring observations (T, C, h, w) of each pixel to steps by plain loops, in float32 as the real one."""
    _, bands, height, width = values.shape
    result = np.zeros((len(at), bands, height, width), np.float32)
    good = np.zeros((len(at), height, width), bool)
    for y in range(height):
        for x in range(width):
            seen = [(day, values[t, :, y, x]) for t, day in enumerate(days) if valid[t, y, x]]
            reach = every or 0
            if composite != "none":
                grid = list(at) if fill == "none" else [at[0] - every, *at, at[-1] + every]
                made = [(day, _composite(seen, day, every, composite)) for day in grid]
                seen, reach = [(day, value) for day, value in made if value is not None], 0
            for s, day in enumerate(at):
                value = _on_step(seen, day, reach, fill)
                if value is not None:
                    result[s, :, y, x], good[s, y, x] = value, True
    return result, good


def _composite(seen, day, every, kind):
    inside = [(d, v) for d, v in seen if day <= d < day + every]
    if not inside:
        return None
    if kind == "best":
        middle = day + (every - 1) / 2
        return min(inside, key=lambda o: (abs(o[0] - middle), o[0]))[1]
    rows = np.sort(np.array([v for _, v in inside], np.float32), axis=0)
    half = np.float32(0.5)
    return rows[(len(rows) - 1) // 2] * half + rows[len(rows) // 2] * half


def _on_step(seen, day, reach, fill):
    if not seen:
        return None
    near = min(seen, key=lambda o: (abs(o[0] - day), o[0]))
    if fill == "nearest":
        return near[1]
    if fill == "none":
        return near[1] if 2 * abs(near[0] - day) <= reach else None
    before, after = [o for o in seen if o[0] <= day], [o for o in seen if o[0] >= day]
    if not before or not after or before[-1][0] == after[0][0]:
        return (before or after)[-1 if before else 0][1]
    (d0, v0), (d1, v1) = before[-1], after[0]
    weight = np.float32((day - d0) / (d1 - d0))
    return v0 * (np.float32(1) - weight) + v1 * weight


def naive_dates(seen: list[datetime.date], to_come: list[datetime.date]) -> list[datetime.date]:
    """Return the date of the naive forecast of each date: a whole number of years before, as few as there need be."""
    found = []
    step = (seen[-1] - seen[0]).days / max(1, len(seen) - 1)
    for day in to_come:
        before = [day - datetime.timedelta(365 * years) for years in range(1, 30)]
        same = next(d for d in before if d <= seen[-1])
        if (seen[0] - same).days > step / 2:
            found.append(seen[-1])
        else:
            found.append(min(seen, key=lambda d: abs((d - same).days)))
    return found

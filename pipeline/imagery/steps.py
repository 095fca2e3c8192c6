"""Observations on irregular days to values on given steps: composites and gap filling, pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def stepped(
    values: Array,
    valid: Array,
    days: Sequence[int],
    at: Sequence[int],
    *,
    every: int | None = None,
    fill: str = "none",
    composite: str = "none",
    out: Array | None = None,
) -> tuple[Array, Array]:
    """Return values on steps, and where there are any.

    Each pixel is computed from itself alone, by the same arithmetic whatever stands beside it: a window cut into blocks gives
    the same bits as the whole. A pixel that is never valid stays invalid. A composite stands for all days of its step, so
    gaps between composites are filled from step to step; those of the step before the first and of the step after the last
    serve too, where there are observations.

    Parameters
    ----------
    values : (T, C, h, w) float32
        Observations; finite where valid.
    valid : (T, h, w) bool
        Validity of a date, of all its bands together.
    days : sequence of int
        Day of each observation, rising.
    at : sequence of int
        Day of each step, rising.
    every : int, optional
        Days from one step to the next.
    fill : {"linear", "nearest", "none"}
        linear: between the nearest valid observations before and after, held constant before the first and after the last.
        nearest: the nearest valid observation, of two the earlier. none: the same, where it lies within half of ``every``.
    composite : {"none", "median", "best"}
        One value from the valid observations on the days from a step to the next; needs ``every``. median: of each band, the
        mean of the middle two of an even number. best: the one nearest to the middle of these days, of two the earlier.
    out : (S, C, h, w) float32, optional
        Is overwritten.

    Returns
    -------
    values : (S, C, h, w) float32
        ``out``, if given; zero where invalid.
    valid : (S, h, w) bool
    """
    if out is None:
        out = np.empty((len(at), *values.shape[1:]), np.float32)
    if composite == "none" or not at:
        return out, _filled(values, valid, days, at, fill, every or 0, out)
    assert every is not None, "a composite is made of the days of a step"
    make = _median if composite == "median" else _best
    if fill == "none":
        return out, _composites(make, values, valid, days, at, every, out)
    around = [at[0] - every, *at, at[-1] + every]
    made = np.empty((len(around), *values.shape[1:]), np.float32)
    held = _composites(make, values, valid, days, around, every, made)
    return out, _filled(made, held, around, at, fill, 0, out)


def _filled(
    values: Array, valid: Array, days: Sequence[int], at: Sequence[int], fill: str, every: int, out: Array
) -> Array:
    """Fill ``out`` (S, C, h, w) from the valid observations around each step; return where there is one."""
    good = np.zeros((len(at), *valid.shape[1:]), bool)
    count = len(days)
    if count == 0:
        out[:] = 0
        return good
    when = np.asarray(days, np.int32)
    # The last valid observation up to each one, and the first from each one on: their numbers, -1 and count for none.
    small = np.int16 if count < np.iinfo(np.int16).max else np.int32
    numbers = np.arange(count, dtype=small)[:, None, None]
    before, after = np.where(valid, numbers, small(-1)), np.where(valid, numbers, small(count))
    # Plane by plane: accumulate() along the first axis walks through memory pixel by pixel, at a tenth of the speed.
    for t in range(1, count):
        np.maximum(before[t], before[t - 1], out=before[t])
        np.minimum(after[-t - 1], after[-t], out=after[-t - 1])
    nothing = np.full(valid.shape[1:], -1, small)
    for s, day in enumerate(at):
        last, first = int(np.searchsorted(when, day, "right")) - 1, int(np.searchsorted(when, day, "left"))
        a = before[last] if last >= 0 else nothing
        b = after[first] if first < count else nothing + small(count + 1)
        if (a == a.flat[0]).all() and (b == b.flat[0]).all():
            # One number for all pixels, as where nothing is masked: the same arithmetic, once.
            a, b = a[:1, :1], b[:1, :1]
        has_a, has_b = a >= 0, b < count
        # Where one of both is missing the other stands for it; where both are, any number will do.
        a, b = np.where(has_a, a, np.minimum(b, count - 1)), np.where(has_b, b, np.maximum(a, 0))
        good[s] = has_a | has_b
        if fill == "linear":
            _between(values, a, b, when, day, out[s])
        else:
            later = has_b & (~has_a | (when[b] - day < day - when[a]))
            chosen = np.where(later, b, a)
            if fill == "none":
                good[s] &= 2 * np.abs(when[chosen] - day) <= every
            out[s] = _taken(values, chosen)
        if not good[s].all():
            np.copyto(out[s], np.float32(0), where=~good[s])
    return good


def _between(values: Array, a: Array, b: Array, when: Array, day: int, out: Array) -> None:
    """Weigh the observations numbered ``a`` and ``b`` (h, w) by their days; where both are one, it is taken as it is."""
    span = when[b] - when[a]
    weight = ((day - when[a]) * (span > 0) / np.maximum(span, 1)).astype(np.float32)
    if not weight.any():
        out[:] = _taken(values, a)
        return
    # Weights that add up to one cannot leave the range of what they weigh. What is invalid may hold anything, unseen.
    with np.errstate(over="ignore", invalid="ignore"):
        np.multiply(_taken(values, a), np.float32(1) - weight, out=out)
        out += _taken(values, b) * weight


def _taken(values: Array, numbers: Array) -> Array:
    """Return, of values (T, C, h, w), for each pixel those of the observation with its number (h, w): (C, h, w)."""
    first = numbers.flat[0]
    if (numbers == first).all():
        return np.asarray(values[first])
    return np.asarray(np.take_along_axis(values, numbers[None, None].astype(np.intp), axis=0)[0])


def _composites(
    make: Any, values: Array, valid: Array, days: Sequence[int], at: Sequence[int], every: int, out: Array
) -> Array:
    """Fill ``out`` (S, C, h, w) with one value from the observations on the days of each step; return where there is one."""
    good = np.zeros((len(at), *valid.shape[1:]), bool)
    for s, day in enumerate(at):
        first, end = np.searchsorted(days, [day, day + every])
        good[s] = valid[first:end].any(0)
        if not good[s].any():
            out[s] = 0
            continue
        # Twice the distance from the middle of the days, so that it is a whole number.
        aside = [abs(2 * (d - day) - (every - 1)) for d in days[first:end]]
        make(values[first:end], valid[first:end], aside, out[s])
        if not good[s].all():
            np.copyto(out[s], np.float32(0), where=~good[s])
    return good


def _median(values: Array, valid: Array, _aside: list[int], out: Array) -> None:
    n = valid.sum(0)
    low, high = np.maximum(n - 1, 0) // 2, np.minimum(n // 2, len(values) - 1)
    # Band by band: sorting needs a copy.
    for c in range(values.shape[1]):
        ordered = np.where(valid, values[:, c], np.float32(np.inf))
        ordered.sort(axis=0)
        lower, upper = (np.take_along_axis(ordered, i[None], axis=0)[0] for i in (low, high))
        np.multiply(lower, np.float32(0.5), out=out[c])
        out[c] += upper * np.float32(0.5)


def _best(values: Array, valid: Array, aside: list[int], out: Array) -> None:
    have = np.zeros(valid.shape[1:], bool)
    for t in sorted(range(len(values)), key=aside.__getitem__):
        np.copyto(out, values[t], where=valid[t] & ~have)
        have |= valid[t]

"""Band statistics: moments that can be computed piece by piece, and the normalisation made from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and sum of squared deviations per band, float64 (C,).

    Pieces are combined exactly (Chan, Golub and LeVeque 1979), so that the result does not hang on their sizes and no
    raster is ever held whole.
    """

    count: Array
    mean: Array
    m2: Array

    @classmethod
    def of(cls, values: Array) -> Moments:
        """Return the moments of values (C, N); N may be zero."""
        bands, n = values.shape
        v = values.astype(np.float64)
        mean = v.mean(1) if n else np.zeros(bands)
        return cls(np.full(bands, float(n)), mean, ((v - mean[:, None]) ** 2).sum(1))

    @classmethod
    def none(cls, bands: int) -> Moments:
        """Return the moments of no values at all."""
        return cls(np.zeros(bands), np.zeros(bands), np.zeros(bands))

    def combine(self, other: Moments) -> Moments:
        """Return the moments of both together."""
        count = self.count + other.count
        some = np.maximum(count, 1)
        delta = other.mean - self.mean
        return Moments(
            count,
            self.mean + delta * other.count / some,
            self.m2 + other.m2 + delta**2 * self.count * other.count / some,
        )


@dataclass(frozen=True, slots=True)
class Statistics:
    """Mean and standard deviation per band, float32 (C,), fitted once on the training fold."""

    mean: Array
    std: Array

    @classmethod
    def from_moments(cls, moments: Moments) -> Statistics:
        """Return statistics; a band that does not vary keeps its values' size (standard deviation one)."""
        std = np.sqrt(moments.m2 / np.maximum(moments.count, 1))
        # Below the precision of float32 a deviation is rounding, not signal.
        flat = std <= 1e-6 * np.maximum(np.abs(moments.mean), 1e-30)
        return cls(moments.mean.astype(np.float32), np.where(flat, 1.0, std).astype(np.float32))

    def normalise(self, values: Array, valid: Array) -> Array:
        """Return (values - mean) / std as float32, zero where invalid.

        Parameters
        ----------
        values : (..., T, C, H, W) float32
        valid : (..., T, H, W) bool
        """
        shape = (-1, 1, 1)
        normal = np.subtract(values, self.mean.reshape(shape), dtype=np.float32)
        normal /= self.std.reshape(shape)
        # In place, and only where there is something to do: batches and blocks are large, and most are valid throughout.
        if not valid.all():
            np.copyto(normal, np.float32(0), where=~np.expand_dims(valid, -3))
        return normal

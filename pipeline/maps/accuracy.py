"""Figures of accuracy from a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.maps.layers import LegendEntry


def confusion(reference: np.ndarray[Any, Any], predicted: np.ndarray[Any, Any], k: int) -> np.ndarray[Any, Any]:
    """Count pairs of classes.

    Parameters
    ----------
    reference, predicted : (N,) int
        Class indices in 0..k-1.
    k : int
        Number of classes.

    Returns
    -------
    (k, k) int64
        Rows = reference, columns = map.

    Raises
    ------
    ValueError
        If lengths differ or an index is outside the classes.
    """
    if reference.shape != predicted.shape or reference.ndim != 1:
        raise ValueError(f"expected two vectors of one length, got {reference.shape} and {predicted.shape}")
    for name, values in (("reference", reference), ("predicted", predicted)):
        if values.size and (values.min() < 0 or values.max() >= k):
            raise ValueError(f"{name}: class indices must lie in 0..{k - 1}, got {values.min()}..{values.max()}")
    counts = np.bincount(reference.astype(np.int64) * k + predicted, minlength=k * k)
    return counts.reshape(k, k).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Figures of a confusion matrix. A figure that is not defined is None, never NaN.

    Attributes
    ----------
    confusion : (K, K) int64
        Rows = reference, columns = map.
    classes : tuple of LegendEntry
        The K classes, in the order of the legend.
    """

    confusion: np.ndarray[Any, Any]
    classes: tuple[LegendEntry, ...]

    def __post_init__(self) -> None:
        k = len(self.classes)
        if self.confusion.shape != (k, k):
            raise ValueError(f"{k} classes need a confusion matrix of {(k, k)}, got {self.confusion.shape}")
        if (self.confusion < 0).any():
            raise ValueError("a confusion matrix holds counts, found a negative one")

    @classmethod
    def of(cls, matrix: np.ndarray[Any, Any], classes: Sequence[LegendEntry]) -> Accuracy:
        """Return the figures of a (K, K) matrix, rows = reference, columns = map."""
        return cls(np.asarray(matrix, dtype=np.int64), tuple(classes))

    @property
    def n(self) -> int:
        """Number of samples."""
        return int(self.confusion.sum())

    @property
    def overall(self) -> float | None:
        """Share of samples on which map and reference agree."""
        return _share(int(np.trace(self.confusion)), self.n)

    @property
    def kappa(self) -> float | None:
        """Agreement beyond chance (Cohen 1960); None where chance alone agrees fully."""
        n = self.n
        if not n:
            return None
        by_chance = float((self.confusion.sum(axis=1) * (self.confusion.sum(axis=0) / n**2)).sum())
        return None if by_chance >= 1 else (float(np.trace(self.confusion)) / n - by_chance) / (1 - by_chance)

    @property
    def support(self) -> list[int]:
        """Samples of each class in the reference."""
        return [int(v) for v in self.confusion.sum(axis=1)]

    @property
    def precision(self) -> list[float | None]:
        """Of what the map calls a class, the share that is (user's accuracy); None for a class the map never shows."""
        return self._per_class(self.confusion.sum(axis=0))

    @property
    def recall(self) -> list[float | None]:
        """Of what is a class, the share the map shows (producer's accuracy); None for a class without samples."""
        return self._per_class(self.confusion.sum(axis=1))

    @property
    def f1(self) -> list[float | None]:
        """Harmonic mean of precision and recall; None for a class that neither map nor reference holds."""
        half = (self.confusion.sum(axis=0) + self.confusion.sum(axis=1)) / 2
        return self._per_class(half)

    @property
    def iou(self) -> list[float | None]:
        """Intersection over union; None for a class that neither map nor reference holds."""
        return self._per_class(self.confusion.sum(axis=0) + self.confusion.sum(axis=1) - np.diag(self.confusion))

    @property
    def macro_f1(self) -> float | None:
        """Mean F1 of the classes that map or reference hold."""
        found = [v for v in self.f1 if v is not None]
        return sum(found) / len(found) if found else None

    def _per_class(self, whole: np.ndarray[Any, Any]) -> list[float | None]:
        return [_share(hit, of) for hit, of in zip(np.diag(self.confusion).tolist(), whole.tolist(), strict=True)]

    def to_json(self) -> dict[str, Any]:
        """Return the figures as accuracy.json holds them; classes in the order of the legend."""
        columns = (self.support, self.precision, self.recall, self.f1, self.iou)
        names = ("support", "precision", "recall", "f1", "iou")
        return {
            "n": self.n,
            "overall": self.overall,
            "kappa": self.kappa,
            "macro_f1": self.macro_f1,
            "classes": [
                {"code": int(entry.code), "name": str(entry.name), **dict(zip(names, row, strict=True))}
                for entry, row in zip(self.classes, zip(*columns, strict=True), strict=True)
            ],
            "confusion": self.confusion.tolist(),
        }


def _share(hit: float, whole: float) -> float | None:
    return float(hit) / float(whole) if whole else None

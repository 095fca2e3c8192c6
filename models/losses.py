"""Losses over labelled pixels only, weighted by class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from models.network import ModelError
from models.settings import LossSettings

IGNORE = -1
"""Label of pixels that are not labelled."""


def class_weights(setting: str | list[float], counts: Sequence[int]) -> Tensor | None:
    """Return a weight per class, (K,) float32, or None.

    ``balanced`` gives n / (K n_k), so that each class present weighs the same and the mean weight of a pixel is one;
    a class without training pixels gets weight zero.

    Raises
    ------
    ModelError
        If weights are given for another number of classes.
    """
    if setting == "none":
        return None
    if isinstance(setting, list):
        if len(setting) != len(counts):
            raise ModelError(
                f"training.loss.class_weights: expected a weight for each of the {len(counts)} classes, found {setting}"
            )
        return torch.tensor(setting, dtype=torch.float32)
    n = torch.as_tensor(list(counts), dtype=torch.float32)
    present = n > 0
    return torch.where(present, n.sum() / (present.sum() * n.clamp(min=1)), torch.zeros(()))


def masked_cross_entropy(
    scores: Tensor, labels: Tensor, weights: Tensor | None, settings: LossSettings, *, reduction: str = "mean"
) -> Tensor:
    """Return the cross-entropy over labelled pixels.

    Parameters
    ----------
    scores : (B, K, H, W) float
        Logits.
    labels : (B, H, W) int64
        Class indices; `IGNORE` where not labelled.
    weights : (K,) float or None
        Weight per class.
    reduction : str
        ``mean`` divides by the summed weights of the labelled pixels; ``sum`` does not divide.
    """
    return F.cross_entropy(
        scores.float(),
        labels,
        weight=weights,
        ignore_index=IGNORE,
        label_smoothing=settings.label_smoothing,
        reduction=reduction,
    )

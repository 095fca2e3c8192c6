"""Losses on labelled pixels: most pixels of a chip have no label and take no part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.network import ModelError
from models.settings import LossSettings

IGNORE = -1
"""Class index of a pixel without a label."""


def labelled(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return scores (N, K) and labels (N,) of the pixels that have a label.

    Parameters
    ----------
    scores : Tensor
        (B, K, H, W).
    labels : Tensor
        Class indices, `IGNORE` where there is no label; (B, H, W) int64.
    """
    where = labels != IGNORE
    return scores.permute(0, 2, 3, 1)[where], labels[where]


def cross_entropy(scores: Tensor, target: Tensor, weights: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Return the summed cross-entropy of pixels, each weighted by its class, and the sum of these weights.

    Parameters
    ----------
    scores, target : Tensor
        (N, K) and (N,), as `labelled` returns them.
    weights : Tensor
        Weight per class; (K,).
    smoothing : float
        Share of each label that is spread evenly over all classes (Szegedy et al. 2016).

    Returns
    -------
    tuple of Tensor
        Sum and weight; their ratio is the loss. Both can be added up over batches, so figures of a fold do not depend
        on how it was cut into batches.
    """
    each = F.cross_entropy(scores, target, label_smoothing=smoothing, reduction="none")
    weight = weights[target]
    return (each * weight).sum(), weight.sum()


Loss = Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]
LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy}


def class_weights(settings: LossSettings, counts: Sequence[int] | np.ndarray[Any, Any], classes: int) -> Tensor:
    """Return the weight of each class, (K,) float32.

    Parameters
    ----------
    settings : LossSettings
        ``balanced``: n / (K n_k), as scikit-learn defines it; a class without training pixels gets 1. ``none``: 1.
    counts : (K,) int
        Training pixels per class.
    classes : int
        K.

    Raises
    ------
    ModelError
        If a list of weights does not have one per class, or all are zero.
    """
    if isinstance(settings.class_weights, list):
        if len(settings.class_weights) != classes:
            raise ModelError(
                f"training.loss.class_weights holds {len(settings.class_weights)} weights, the legend has {classes} "
                "classes; give one for each, in the legend's order"
            )
        if not any(settings.class_weights):
            raise ModelError("training.loss.class_weights are all 0: nothing would be learnt")
        return torch.tensor(settings.class_weights, dtype=torch.float32)
    if settings.class_weights == "none":
        return torch.ones(classes)
    found = np.asarray(counts, dtype=np.float64)
    present = found > 0
    weights = np.ones(classes)
    weights[present] = found.sum() / (present.sum() * found[present])
    return torch.from_numpy(weights.astype(np.float32))

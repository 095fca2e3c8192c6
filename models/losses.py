"""Losses on labelled pixels: most pixels of a chip have no label and take no part.

Each returns a sum and a weight, whose ratio is the loss. The weight is the same for all losses of a batch, so losses can be
added up; and both can be added up over batches, so figures of a fold do not depend on how it was cut into batches (but
for `dice`).
"""

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
    """
    each = F.cross_entropy(scores, target, label_smoothing=smoothing, reduction="none")
    weight = weights[target]
    return (each * weight).sum(), weight.sum()


def binary_cross_entropy(scores: Tensor, target: Tensor, weights: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Return the summed binary cross-entropy of two classes; parameters as of `cross_entropy`.

    The logit of the second class is z_1 - z_0, and its sigmoid is just what the softmax gives that class in the map: so this
    is `cross_entropy` for K = 2, number by number. It is here for those who look for it by name.

    Raises
    ------
    ModelError
        If there are not two classes.
    """
    if scores.shape[1] != 2:
        raise ModelError(
            f"training.loss.name: binary_cross_entropy is for two classes, found {scores.shape[1]}; use cross_entropy"
        )
    truth = target.to(scores.dtype) * (1 - smoothing) + smoothing / 2
    each = F.binary_cross_entropy_with_logits(scores[:, 1] - scores[:, 0], truth, reduction="none")
    weight = weights[target]
    return (each * weight).sum(), weight.sum()


def focal(scores: Tensor, target: Tensor, weights: Tensor, smoothing: float, gamma: float) -> tuple[Tensor, Tensor]:
    """Return the summed focal loss (Lin et al. 2017): cross-entropy times (1 - p)^gamma; parameters as of `cross_entropy`.

    A smoothed label is a sum over classes, and each class has its own factor. With ``gamma`` 0 it is `cross_entropy`.
    """
    logs = F.log_softmax(scores, 1)
    truth = F.one_hot(target, scores.shape[1]) * (1 - smoothing) + smoothing / scores.shape[1]
    # Of a class that is certain, 1 - p is 0, where a power below one has no slope.
    hard = (1 - logs.exp()).clamp(min=torch.finfo(scores.dtype).eps) ** gamma
    weight = weights[target]
    return (-(truth * hard * logs).sum(1) * weight).sum(), weight.sum()


def dice(scores: Tensor, target: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return one minus the soft overlap of classes, times the weight of the pixels, and that weight.

    The overlap of a class is 2 sum(p g) / (sum(p) + sum(g)) over the labelled pixels of the batch, with g 1 where it is the
    label (Sudre et al. 2017, each class by itself); then the mean over the classes of which the batch has a label, weighted
    by class. It is a ratio over a batch and no sum over pixels: the figure of a fold is the weighted mean of those of
    its batches, and depends on them a little.

    Parameters
    ----------
    scores, target, weights : Tensor
        As of `cross_entropy`.
    """
    chance = scores.softmax(1)
    truth = F.one_hot(target, scores.shape[1]).to(chance.dtype)
    found = truth.sum(0)
    overlap = 2 * (chance * truth).sum(0) / (chance.sum(0) + found).clamp(min=torch.finfo(chance.dtype).tiny)
    counted = weights * (found > 0)
    mean = (counted * overlap).sum() / counted.sum().clamp(min=torch.finfo(chance.dtype).tiny)
    weight = weights[target].sum()
    return (1 - mean) * weight, weight


Loss = Callable[[Tensor, Tensor, Tensor, LossSettings], tuple[Tensor, Tensor]]
"""Of scores (N, K), target (N,) and weights per class (K,)."""

LOSSES: dict[str, Loss] = {
    "cross_entropy": lambda z, y, w, s: cross_entropy(z, y, w, s.label_smoothing),
    "binary_cross_entropy": lambda z, y, w, s: binary_cross_entropy(z, y, w, s.label_smoothing),
    "focal": lambda z, y, w, s: focal(z, y, w, s.label_smoothing, s.gamma),
    "dice": lambda z, y, w, _: dice(z, y, w),
}


def _regression(each: Callable[[Tensor, Tensor, LossSettings], Tensor]) -> Loss:
    """Return a loss of values and targets (N, K), and weights (N,), from that of each value by itself.

    A target that is no number takes no part, nor does what weighs nothing.
    """

    def loss(values: Tensor, target: Tensor, weights: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
        known = torch.isfinite(target)
        weight = weights[:, None] * known
        # What is not known is set equal, so that neither it nor its gradient is NaN.
        found = each(values, torch.where(known, target, values.detach()), settings)
        return (found * weight).sum(), weight.sum()

    return loss


REGRESSION_LOSSES: dict[str, Loss] = {
    "mean_squared": _regression(lambda z, y, _: (z - y).square()),
    "absolute": _regression(lambda z, y, _: (z - y).abs()),
    "huber": _regression(lambda z, y, s: F.huber_loss(z, y, reduction="none", delta=s.delta)),
}


def summed(settings: LossSettings, table: dict[str, Loss]) -> Loss:
    """Return the loss that the settings ask for: one of a table, or the sum of several; ``auto`` is the table's first.

    Raises
    ------
    ModelError
        If a loss is not in the table: it is made for another kind of learning.
    """
    names = [next(iter(table))] if settings.name == "auto" else settings.name
    names = [names] if isinstance(names, str) else names
    for name in names:
        if name not in table:
            raise ModelError(
                f"training.loss.name: found {name}, which is not made for what is learnt here; allowed are {', '.join(table)}"
            )

    def loss(scores: Tensor, target: Tensor, weights: Tensor, settings: LossSettings) -> tuple[Tensor, Tensor]:
        pairs = [table[name](scores, target, weights, settings) for name in names]
        return torch.stack([total for total, _ in pairs]).sum(), pairs[0][1]

    return loss


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

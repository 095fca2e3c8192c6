"""Learning curves in plain words: what the losses of both folds say about a training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

_LEAST = 5  # epochs below which curves say nothing
_TAIL = 0.1  # the part of the epochs that is taken for the end, and for what was just before it
_FALLING = 0.02  # a loss that falls by more than this share over the end still falls
_RISEN = 2.0  # a loss at so many times its lowest has run away from it
_GAP = 1.5  # a validation loss of so many times the training loss is a gap
_LEARNT = 0.2  # less than this share of the first training loss is hardly a fall
_KAPPA = 0.4  # agreement beyond chance; below, Landis and Koch (1977) call it slight or fair

History = Sequence[Mapping[str, float]]


def judge(history: History) -> tuple[str, str]:
    """Return what a training amounts to: a name, and a sentence that says why and what to do.

    Names, the first that holds:

    - ``too short``: fewer than 5 epochs.
    - ``diverged``: an epoch without a finite training loss, or one that ends at twice its lowest or more.
    - ``still falling``: the loss of the validation fold, over the last tenth of the epochs, is more than 2 % below that of the
      tenth before it, and no less than 2 % below its lowest before.
    - ``high variance``: at the best epoch the validation loss is 1.5 times the training loss or more.
    - ``high bias``: the training loss has fallen by less than a fifth from that of the first epoch, and a kappa on the
      validation fold, where there is one, stays below 0.4.
    - ``fine``.

    Dropout, augmentation and being measured while weights still move raise the training loss: a gap is real, no gap proves
    little.

    Parameters
    ----------
    history : sequence of mapping
        Figures of each epoch: ``train_loss``; ``val_loss`` and ``val_kappa`` where there are. Without a validation
        fold, the training loss alone is judged.
    """
    train = [float(row.get("train_loss", math.nan)) for row in history]
    if train and not math.isfinite(train[-1]):
        return "diverged", _DIVERGED
    if len(train) < _LEAST:
        return "too short", f"The curves are too short to tell: {len(train)} epochs, 5 are needed."
    if train[-1] >= _RISEN * min(train) > 0:
        return "diverged", _DIVERGED
    val = [float(row["val_loss"]) for row in history if "val_loss" in row]
    watched = val if len(val) == len(train) else train
    falls = _fall(watched)
    if falls > _FALLING:
        return (
            "still falling",
            f"The loss still falls, by {falls:.0%} over the last tenth of the epochs: more epochs (training.epochs), or a "
            "higher learning rate, would learn more.",
        )
    best = min(range(len(watched)), key=watched.__getitem__)
    if watched is val and val[best] >= _GAP * train[best] > 0:
        return (
            "high variance",
            f"High variance: the validation loss is {val[best] / train[best]:.1f} times the training loss. The network "
            "knows its samples better than the land: more labels in more places, augmentation, dropout, weight decay or a "
            "smaller network help.",
        )
    kappa = history[best].get("val_kappa")
    if min(train) > (1 - _LEARNT) * train[0] and (kappa is None or kappa < _KAPPA):
        return (
            "high bias",
            f"High bias: the training loss fell by no more than {1 - min(train) / train[0]:.0%}. The network hardly learns "
            "even what it is shown: a larger network, a higher learning rate, less dropout or penalty, or bands and dates "
            "that tell the classes apart help.",
        )
    return "fine", "The curves look fine: the loss has come to rest, and the folds lie close together."


_DIVERGED = (
    "Training diverged: the loss rose and did not come back. A smaller training.optimizer.lr, training.warmup or "
    "training.clip help; the best weights before that were kept."
)


def _fall(losses: Sequence[float]) -> float:
    """Return the share by which the end of a curve lies below what was before it: the nearest tenth, and the lowest epoch."""
    n = max(2, round(_TAIL * len(losses)))
    end, before = fmean(losses[-n:]), fmean(losses[-2 * n : -n])
    lowest = min(losses[:-n])
    return min(1 - end / before, 1 - end / lowest) if before > 0 and lowest > 0 else 0.0

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
_LEARNT = 0.2  # less than this share of the first training loss is hardly a fall, nor a rise
_KAPPA = 0.4  # agreement beyond chance; below, Landis and Koch (1977) call it slight or fair

History = Sequence[Mapping[str, float]]


def judge(history: History) -> tuple[str, str]:
    """Return what a training amounts to: a name, and a sentence that says why and what to do.

    Names, the first that holds:

    - ``too short``: fewer than 5 epochs.
    - ``diverged``: an epoch without a finite training loss, or one that ends (its last tenth) at
      twice its lowest or more, and a fifth of what it was in the first epoch above that.
    - ``still falling``: the loss of the validation fold, over the last tenth of the epochs, is more than 2 % below that of the
      tenth before it, and no less than 2 % below its lowest before.
    - ``high variance``: over the last tenth of the epochs the validation loss is 1.5 times the training loss or more.
    - ``high bias``: there the training loss is less than a fifth below that of the first epoch, and the kappa on the
      validation fold, where there is one, has never reached 0.4.
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
    # Of a loss that is nearly nothing, twice as much is nearly nothing too.
    if _end(train) >= _RISEN * min(train) > 0 and _end(train) - min(train) >= _LEARNT * train[0]:
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
    end, kept = _end(train), _end(watched)
    if watched is val and kept >= _GAP * end > 0:
        return (
            "high variance",
            f"High variance: at the end the validation loss is {kept / end:.1f} times the training loss. The network "
            "knows its samples better than the land: more labels in more places, augmentation, dropout, weight decay or a "
            "smaller network help.",
        )
    kappas = [float(row["val_kappa"]) for row in history if "val_kappa" in row]
    if end > (1 - _LEARNT) * train[0] and max(kappas, default=0.0) < _KAPPA:
        return (
            "high bias",
            f"High bias: the training loss fell by {max(0.0, 1 - end / train[0]):.0%} only. The network hardly learns "
            "even what it is shown: a larger network, a higher learning rate, less dropout or penalty, or bands and dates "
            "that tell the classes apart help.",
        )
    return "fine", "The curves look fine: the loss has come to rest, and the folds lie close together."


_DIVERGED = (
    "Training diverged: the loss rose and did not come back. A smaller training.optimizer.lr, training.warmup or "
    "training.clip help; the best weights before that were kept."
)


def _end(losses: Sequence[float]) -> float:
    """Return the mean of the last tenth of the epochs, two at least."""
    return fmean(losses[-_tail(losses) :])


def _tail(losses: Sequence[float]) -> int:
    return max(2, round(_TAIL * len(losses)))


def _fall(losses: Sequence[float]) -> float:
    """Return the share by which the end of a curve lies below what was before it: the nearest tenth, and the lowest epoch."""
    n = _tail(losses)
    end, before = _end(losses), fmean(losses[-2 * n : -n])
    lowest = min(losses[:-n])
    return min(1 - end / before, 1 - end / lowest) if before > 0 and lowest > 0 else 0.0

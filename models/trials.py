"""Before a training: whether the network can learn one batch, and which learning rate it wants."""

from __future__ import annotations

import contextlib
import copy
import io
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.tuner.tuning import Tuner
from torch import nn

from models.learning import Batch, LearningTask
from models.network import ModelError

_SAMPLES = 8  # of the batch that is to be learnt: few enough to be learnt by heart
_FALL = 0.1  # the share by which its loss must fall ...
_STEPS = 60  # ... in so many steps ...
_SECONDS = 10.0  # ... or so much time
_RATE = 0.003  # at which Adam learns a batch with most networks

_RANGE = (1e-6, 10.0)
_TRIED = 100  # rates in that range
_SKIPPED = 10  # the first losses are means over too few steps


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeTest:
    """A learning-rate range test (Smith 2017): the loss while the rate rises, and the rate that it suggests.

    Attributes
    ----------
    lr, loss : list of float
        The rate of each step, and the loss behind it, smoothed; those that are no numbers are left out.
    suggestion : float
        Where the loss falls most steeply over the logarithm of the rate.
    """

    lr: list[float]
    loss: list[float]
    suggestion: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def learns_one_batch(task: LearningTask, data: LightningDataModule) -> str | None:
    """Let a copy of the network learn a few samples by heart; return what is wrong, in words, if it cannot.

    Dropout is off, chance is the same in each step, and neither penalties nor smoothed labels stand in the way. Nothing of
    it is left: neither in the weights, nor in torch's random numbers.
    """
    with _apart(task) as (trial, device):
        batch = _few(data, device)
        if batch is None or trial.samples(batch) < 2:
            return None
        for module in trial.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.eval()
        optimizer = torch.optim.Adam(trial.network.parameters(), lr=_RATE)
        first, lowest, start = math.nan, math.inf, time.monotonic()
        for step in range(_STEPS):
            torch.manual_seed(0)
            total, weight = trial.loss(batch)
            if not weight > 0:
                return None
            loss = total / weight
            found = float(loss.detach())
            first = found if step == 0 else first
            lowest = min(lowest, found)
            late = time.monotonic() - start > _SECONDS
            # What is no number will be said of the training itself.
            if not math.isfinite(found) or found <= (1 - _FALL) * first or late:
                return None
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return (
        f"the network could not learn even one batch of {len(batch['cube'])} samples: its loss went from {first:.3g} to no less "
        f"than {lowest:.3g} in {_STEPS} steps. Look for labels that contradict the imagery, values that do not differ, or "
        "a network that is too small or badly scaled (initialisation, activation, normalisation)"
    )


def _few(data: LightningDataModule, device: torch.device) -> Batch | None:
    """Return the first samples of training, or None where there are none."""
    for batch in data.train_dataloader():
        return {name: value[:_SAMPLES].to(device) for name, value in batch.items()}
    return None


@contextlib.contextmanager
def _apart(task: LearningTask) -> Iterator[tuple[LearningTask, torch.device]]:
    """Give a copy of a task to try things on, on the device that will train, and put chance back as it was."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if cuda else []):
        trial = copy.deepcopy(task).to(device).train()
        loss = trial.settings.loss.model_copy(update={"label_smoothing": 0.0})
        trial.settings = trial.settings.model_copy(update={"loss": loss})
        yield trial, device


def range_test(task: LearningTask, data: LightningDataModule, options: dict[str, Any]) -> RangeTest:
    """Let the rate of a copy of the network rise from step to step, until its loss explodes.

    Parameters
    ----------
    task, data
        As of `fit`; neither changes.
    options : dict
        Of the trainer: device, precision.

    Raises
    ------
    ModelError
        If the loss falls nowhere.
    """
    low, high = _RANGE
    trial = copy.deepcopy(task)
    optimizer = task.settings.optimizer.model_copy(update={"lr": low})
    trial.settings = task.settings.model_copy(update={"optimizer": optimizer})
    # The tuner draws a progress bar that cannot be switched off, and writes a checkpoint of its own.
    with (
        torch.random.fork_rng(),
        contextlib.redirect_stderr(io.StringIO()),
        tempfile.TemporaryDirectory() as folder,
    ):
        trainer = Trainer(
            **options,
            max_epochs=_TRIED,
            check_val_every_n_epoch=_TRIED + 1,
            logger=False,
            enable_checkpointing=False,
            default_root_dir=folder,
        )
        found = Tuner(trainer).lr_find(
            trial.train(), datamodule=data, min_lr=low, max_lr=high, num_training=_TRIED, update_attr=False
        )
    assert found is not None
    pairs = zip(found.results["lr"], found.results["loss"], strict=False)
    lrs, losses = zip(*[(lr, loss) for lr, loss in pairs if math.isfinite(loss)], strict=True)
    return RangeTest(lr=list(lrs), loss=list(losses), suggestion=steepest(lrs, losses))


def steepest(lrs: Sequence[float], losses: Sequence[float]) -> float:
    """Return the rate at which the loss falls most steeply over the logarithm of the rate.

    Raises
    ------
    ModelError
        If it falls nowhere.
    """
    slopes = [
        (losses[i + 1] - losses[i - 1]) / math.log(lrs[i + 1] / lrs[i - 1]) for i in range(_SKIPPED, len(lrs) - 1)
    ]
    if not slopes or min(slopes) >= 0:
        raise ModelError(
            "training.optimizer.lr: auto found no rate at which the loss falls; give a number, such as 0.001"
        )
    return lrs[_SKIPPED + slopes.index(min(slopes))]

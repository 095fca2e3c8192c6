"""Learning classes from few labels and much land without any: a classifier of patches against a generator."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn import functional as F

from models.learning import Batch
from models.networks.gan import GAN
from models.networks.layers import convolved
from models.optimisers import optimizer
from models.settings import TrainingSettings
from models.tasks import ClassificationTask

_START = 4  # side of the coarsest level of the generator, at most


class AdversarialTask(ClassificationTask):
    """Learn classes from labelled patches, and what land looks like from all others.

    After Salimans et al. (2016). The classifier's loss is that of the labelled patches and, weighed, `unsupervised_loss`;
    the generator's is `feature_matching`: the means over a batch of what the classifier's last but one layer makes of real
    and of made-up patches, in squared distance. Each batch makes a step of both.

    Batches of training also hold ``unlabelled``: a batch of ``cube``, ``valid`` and ``time`` of patches. Without it, and in
    validation, only labels count. ``train_loss`` and ``val_loss`` are those of the labels, to be compared with any
    other network's; ``train_unsupervised`` and ``train_generator`` are the other two.

    Parameters
    ----------
    network : GAN
        The classifier: what learns, and what is kept.
    classes, settings, counts
        As of `ClassificationTask`.
    """

    network: GAN

    def __init__(
        self,
        network: GAN,
        *,
        classes: int,
        settings: TrainingSettings,
        counts: Sequence[int] | np.ndarray[Any, Any],
    ) -> None:
        super().__init__(network, classes=classes, settings=settings, counts=counts, centred=True)
        # Two optimisers, each with steps of its own: Lightning's automatic loop knows one.
        self.automatic_optimization = False
        self.generator = Generator(network)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:  # type: ignore[override]
        """Return the optimisers of the classifier and of the generator."""
        return [optimizer(part, self.settings.optimizer) for part in (self.network, self.generator)]

    def training_step(self, batch: Batch, index: int) -> None:  # noqa: ARG002 - Lightning's signature
        """Make a step of the classifier, then one of the generator against what the classifier has become."""
        classifier, generator = cast(list[LightningOptimizer], self.optimizers())
        unlabelled = cast(Batch | None, batch.get("unlabelled"))
        total, weight = self.loss(batch)
        cost = self.penalty()
        if weight > 0:
            self.train_mean.update(total.detach(), weight)
            cost = cost + total / weight
        if unlabelled is not None:
            real, valid = self._patches(unlabelled)
            # Gaps as in real patches: by their absence a made-up one would be known.
            made = self.generator(len(real), valid)
            found, _ = self.network.judge(real, valid)
            told, _ = self.network.judge(made.detach(), valid)
            unsupervised = unsupervised_loss(found.float(), told.float())
            cost = cost + self.network.settings.unlabelled_weight * unsupervised
            self._log("train_unsupervised", unsupervised, len(real))
        if cost.requires_grad:
            self._step(classifier, cost)
        if unlabelled is not None:
            with torch.no_grad():
                _, features = self.network.judge(real, valid)
            _, imitated = self.network.judge(made, valid)
            distance = feature_matching(features.float(), imitated.float())
            self._step(generator, distance)
            self._log("train_generator", distance, len(real))

    def _patches(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the middle of patches, (B, T, C, S, S) and (B, T, S, S); they may have been read with a margin."""
        side = self.network.chip
        over = (batch["cube"].shape[-1] - side) // 2
        inner = slice(over, over + side)
        return batch["cube"][..., inner, inner], batch["valid"][..., inner, inner]

    def _step(self, steps: LightningOptimizer, cost: Tensor) -> None:
        steps.zero_grad()
        self.manual_backward(cost)
        steps.step()

    def _log(self, name: str, value: Tensor, size: int) -> None:
        self.log(name, value.detach(), on_step=False, on_epoch=True, batch_size=size)


class Generator(nn.Module):
    """Patches from noise: a fully connected layer, then upsampling by 2 and a convolution for each level.

    Parameters
    ----------
    network : GAN
        Which the patches are made for.
    """

    def __init__(self, network: GAN) -> None:
        super().__init__()
        settings = network.settings
        self.noise, self.side = settings.noise, network.chip
        self.dates, self.bands = network.dates, network.bands
        levels = 0
        while _START * 2**levels < self.side:
            levels += 1
        widths = [settings.generator_width * 2**level for level in range(levels, -1, -1)]
        layers: list[nn.Module] = [
            nn.Linear(self.noise, widths[0] * _START**2),
            nn.Unflatten(1, (widths[0], _START, _START)),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        ]
        for inputs, outputs in itertools.pairwise(widths):
            layers.append(nn.Upsample(scale_factor=2))
            layers += convolved(nn.Conv2d, inputs, outputs, 3, padding=1, normalisation="batch", follows="relu")
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], self.dates * self.bands, 3, padding=1))

    def forward(self, count: int, valid: Tensor) -> Tensor:
        """Return patches (count, T, C, S, S) of noise from torch's global generator, on the device of ``valid``."""
        noise = torch.randn(count, self.noise, device=valid.device)
        side = slice(0, self.side)
        values: Tensor = self.layers(noise)[..., side, side]
        return values.reshape(count, self.dates, self.bands, self.side, self.side)


def unsupervised_loss(real: Tensor, made: Tensor) -> Tensor:
    """Return -log D of real patches and -log(1 - D) of made-up ones, each its mean (Salimans et al. 2016).

    D = Z / (Z + 1) with Z the sum of the exponentials of the scores (N, K): the probability that a patch is of any of the K
    classes, where the score of being made up is 0. With s = log Z that is a sigmoid of s.
    """
    return F.softplus(-real.logsumexp(1)).mean() + F.softplus(made.logsumexp(1)).mean()


def feature_matching(real: Tensor, made: Tensor) -> Tensor:
    """Return the mean squared difference of the mean features (N, F) of real and of made-up patches."""
    return (real.mean(0) - made.mean(0)).square().mean()

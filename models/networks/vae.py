"""A variational autoencoder."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from models.networks.coding import CodingNetwork, CodingSettings


class VAESettings(CodingSettings):
    """Settings of the variational autoencoder."""

    beta: float = Field(
        0.05,
        ge=0,
        description="Weight of the divergence of the code from a standard normal distribution. It is the variance of the "
        "noise that is expected in the values, in squared standard deviations of a band: larger is smoother.",
    )
    warm_up: int = Field(
        10,
        ge=0,
        description="Epochs over which beta rises to its value: a code that costs from the start may never be used.",
    )


class VAE(CodingNetwork):
    """Variational autoencoder: gives pixels or chips back through a code that is a smooth distribution.

    After Kingma and Welling (2014): the encoder gives mean and logarithm of the variance of each number of the code, and the
    decoder gets a draw from it while learning. The embedding is the mean, and outside learning nothing is drawn.

    With values of a noise of variance beta, minus twice beta times the evidence bound is the sum of squared errors and
    2 beta KL(q || N(0, I)); that, over the number of values, is the loss. A beta of 1 is the plain bound for a noise of unit
    variance; to weigh it is after Higgins et al. (2017).
    """

    name = "vae"
    Settings = VAESettings
    settings: VAESettings

    @property
    def encoded(self) -> int:
        """A mean and a variance for each number of the code."""
        return 2 * self.features

    def embedding(self, encoded: Tensor) -> Tensor:
        """Return the means."""
        return encoded[:, : self.features]

    def code(self, encoded: Tensor) -> Tensor:
        """Return a draw from the code's distribution while learning, from torch's global generator, else the means."""
        if not self.training:
            return self.embedding(encoded)
        mean, log_variance = encoded.chunk(2, dim=1)
        return mean + (0.5 * log_variance).exp() * torch.randn_like(mean)

    def corrupt(self, cube: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Show everything, and ask for everything: the noise is in the code."""
        return cube, valid, torch.ones_like(cube, dtype=torch.bool)

    def penalty(self, encoded: Tensor, epoch: int | None = None) -> Tensor:
        """Return 2 beta KL, shared evenly by the pixels of a cell of the code."""
        mean, log_variance = encoded.float().chunk(2, dim=1)
        divergence = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(1, keepdim=True)
        risen = 1.0 if epoch is None or not self.settings.warm_up else min(1.0, (epoch + 1) / self.settings.warm_up)
        return 2 * self.settings.beta * risen * self._fine(divergence)[:, 0] / self.stride**2

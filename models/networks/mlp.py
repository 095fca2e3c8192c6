"""A multi-layer perceptron on single pixels."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from models.network import NetworkSettings, PixelNetwork
from models.networks.layers import Activation, Dropout, Normalisation, activation, expanded


class MLPSettings(NetworkSettings):
    """Settings of the multi-layer perceptron."""

    hidden: list[Annotated[int, Field(ge=1, le=8192)]] = Field(
        [64, 64], description="Units of each hidden layer. []: none, which is logistic regression."
    )
    activation: Activation = Field(
        "relu", description="What follows each hidden layer: relu, leaky_relu, elu, gelu, silu, sigmoid, tanh, maxout."
    )
    normalisation: Normalisation = Field("none", description="Normalisation of each hidden layer: batch or none.")
    dropout: Dropout = Field(0.1, description="Share of hidden units left out in each step of training.")


class MLP(PixelNetwork):
    """Perceptron on the bands of single pixels: the plain, fast, strong baseline.

    All dates and bands of a pixel are one vector. With several dates their validity is part of it, so that a missing
    value is not taken for an average one. Without hidden layers this is logistic regression.
    """

    name = "mlp"
    Settings = MLPSettings
    settings: MLPSettings

    def __init__(self, settings: MLPSettings, *, bands: int, dates: int, classes: int) -> None:
        super().__init__(settings, bands=bands, dates=dates, classes=classes)
        width = dates * bands + (dates if dates > 1 else 0)
        layers: list[nn.Module] = []
        for units in settings.hidden:
            made = expanded(units, settings.activation)
            layers.append(nn.Linear(width, made))
            if settings.normalisation == "batch":
                layers.append(nn.BatchNorm1d(made))
            layers.append(activation(settings.activation))
            layers.append(nn.Dropout(settings.dropout))
            width = units
        layers.append(nn.Linear(width, classes))
        self.layers = nn.Sequential(*layers)

    def pixels(self, series: Tensor, valid: Tensor, time: Tensor) -> Tensor:  # noqa: ARG002 - dates are fixed places here
        """Return scores (N, K) of pixels (N, T, C)."""
        x = series.flatten(1)  # (N, T * C)
        if self.dates > 1:
            x = torch.cat([x, valid.to(x.dtype)], dim=1)  # (N, T * C + T)
        scores: Tensor = self.layers(x)
        return scores

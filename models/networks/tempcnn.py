"""A temporal convolutional network on the time series of single pixels."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.network import NetworkSettings, PixelNetwork
from models.networks.layers import Activation, Dropout, Normalisation, activation, expanded


class TempCNNSettings(NetworkSettings):
    """Settings of the temporal convolutional network; the defaults are those of the paper."""

    filters: int = Field(64, ge=1, le=1024, description="Channels of each convolution over the dates.")
    kernel: Literal[3, 5, 7, 9, 11, 13, 15] = Field(
        5, description="Dates that each convolution sees at once: 3, 5, 7, 9, 11, 13 or 15."
    )
    layers: int = Field(3, ge=1, le=8, description="Convolutions, one after another.")
    dense: int = Field(256, ge=1, le=8192, description="Units of the layer between the convolutions and the scores.")
    activation: Activation = Field(
        "relu", description="What follows each layer: relu, leaky_relu, elu, gelu, silu, sigmoid, tanh, maxout."
    )
    normalisation: Normalisation = Field("batch", description="Normalisation of each layer: batch or none.")
    dropout: Dropout = Field(0.5, description="Share of values left out behind each layer in each step of training.")


class TempCNN(PixelNetwork):
    """TempCNN (Pelletier, Webb and Petitjean 2019): convolutions over the dates, then a dense layer.

    Neighbouring dates are taken for neighbours in time, so it wants a regular series, the same in every place. With
    several dates, whether one is valid is a channel of its own.
    """

    name = "tempcnn"
    Settings = TempCNNSettings
    settings: TempCNNSettings
    temporal = True
    slab = 512

    def __init__(self, settings: TempCNNSettings, *, bands: int, dates: int, classes: int) -> None:
        super().__init__(settings, bands=bands, dates=dates, classes=classes)
        width = bands + (1 if dates > 1 else 0)
        layers: list[nn.Module] = []
        for _ in range(settings.layers):
            made = expanded(settings.filters, settings.activation)
            layers.append(nn.Conv1d(width, made, settings.kernel, padding=settings.kernel // 2))
            layers += self._after(made)
            width = settings.filters
        made = expanded(settings.dense, settings.activation)
        layers += [nn.Flatten(), nn.Linear(dates * width, made), *self._after(made)]
        layers.append(nn.Linear(settings.dense, classes))
        self.layers = nn.Sequential(*layers)

    def _after(self, made: int) -> list[nn.Module]:
        normalised = [nn.BatchNorm1d(made)] if self.settings.normalisation == "batch" else []
        return [*normalised, activation(self.settings.activation), nn.Dropout(self.settings.dropout)]

    def pixels(self, series: Tensor, valid: Tensor, time: Tensor) -> Tensor:  # noqa: ARG002 - dates are fixed places here
        """Return scores (N, K) of pixels (N, T, C)."""
        x = series
        if self.dates > 1:
            x = torch.cat([x, valid[..., None].to(x.dtype)], dim=-1)  # (N, T, C + 1)
        scores: Tensor = self.layers(x.transpose(1, 2))
        return scores

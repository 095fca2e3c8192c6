"""Lightweight temporal attention on the time series of single pixels."""

from __future__ import annotations

from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from models.network import NetworkSettings, PixelNetwork
from models.networks.layers import Dropout, day_encoding, masked_softmax, per_tile


class LTAESettings(NetworkSettings):
    """Settings of the lightweight temporal attention encoder; the defaults are those of the paper."""

    width: int = Field(256, ge=1, le=2048, description="Channels of each date; the heads share them in equal groups.")
    heads: int = Field(16, ge=1, le=128, description="Attentions beside each other, each on its own group of channels.")
    keys: int = Field(8, ge=1, le=256, description="Size of the query and the keys of each head.")
    features: int = Field(128, ge=1, le=4096, description="Channels that the attended dates of all heads are mixed to.")
    hidden: list[Annotated[int, Field(ge=1, le=8192)]] = Field(
        [64, 32], description="Units of each layer between the features and the scores. []: none."
    )
    dropout: Dropout = Field(0.2, description="Share of features left out in each step of training.")

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, got a width of {self.width} and {self.heads} heads")
        return self


class LightAttention(nn.Module):
    """Weigh the dates of a series, each head its own group of channels, and mix what comes of it.

    After Garnot and Landrieu (2020). Each head has one learnt query for all pixels, so a head's weight of a date comes
    from a single product with the date's channels: query and key matrix are multiplied once, not per date. Where the
    paper normalises the inputs over groups of channels and all dates, here each date is normalised alone, after the
    embedding: a masked date must not move the others, and a single band must not vanish.

    Parameters
    ----------
    inputs, width, outputs : int
        Channels of each date as given, while attended to, and of the result.
    heads, keys : int
        Number of heads, and size of their queries.
    dropout : float
        Share of outputs left out in training.
    """

    def __init__(self, inputs: int, *, width: int, heads: int, keys: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        self.embed = nn.Sequential(nn.Linear(inputs, width), nn.LayerNorm(width))
        # Drawn as in the paper's code: products of two draws, over sqrt(keys), are logits of the order of one.
        self.query = nn.Parameter(torch.randn(heads, keys) * (2.0 / keys) ** 0.5)
        self.key = nn.Parameter(torch.randn(heads, keys, width) * (2.0 / keys) ** 0.5)
        self.mix = nn.Sequential(nn.Linear(width, outputs), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True))
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, series: Tensor, valid: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (N, outputs) of series (N, T, inputs), and each head's logits of the dates (N, T, heads).

        ``valid`` is (N, T) bool, ``time`` (N, T) in days.
        """
        heads, keys = self.query.shape
        x = self.embed(series) + per_tile(self._encode, time)  # (N, T, width)
        look = torch.einsum("hkw,hk->wh", self.key, self.query) / keys**0.5
        logits = x @ look  # (N, T, heads)
        weights = masked_softmax(logits, valid[..., None], 1)
        seen = (x.unflatten(-1, (heads, -1)) * weights[..., None]).sum(1).flatten(1)  # (N, width)
        return self.norm(self.dropout(self.mix(seen))), logits

    def _encode(self, time: Tensor) -> Tensor:
        """Return the encoding (N, T, width) of days (N, T): the same for each head."""
        heads = self.query.shape[0]
        return day_encoding(time, self.width // heads).repeat(1, 1, heads)


class LTAE(PixelNetwork):
    """Lightweight temporal attention encoder (Garnot and Landrieu 2020): the dates that tell, at little cost.

    The day of a date is added to its values as a sinusoidal encoding, so dates may be irregular; masked dates weigh nothing.
    """

    name = "ltae"
    Settings = LTAESettings
    settings: LTAESettings
    temporal = True
    fixed_dates = False
    slab = 128

    def __init__(self, settings: LTAESettings, *, bands: int, dates: int, classes: int) -> None:
        super().__init__(settings, bands=bands, dates=dates, classes=classes)
        self.attention = LightAttention(
            bands,
            width=settings.width,
            heads=settings.heads,
            keys=settings.keys,
            outputs=settings.features,
            dropout=settings.dropout,
        )
        width = settings.features
        layers: list[nn.Module] = []
        for units in settings.hidden:
            layers += [nn.Linear(width, units), nn.BatchNorm1d(units), nn.ReLU(inplace=True)]
            width = units
        self.layers = nn.Sequential(*layers, nn.Linear(width, classes))

    def pixels(self, series: Tensor, valid: Tensor, time: Tensor) -> Tensor:
        """Return scores (N, K) of pixels (N, T, C)."""
        features, _ = self.attention(series, valid, time)
        scores: Tensor = self.layers(features)
        return scores

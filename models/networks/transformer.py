"""A transformer on the time series of single pixels."""

from __future__ import annotations

from functools import partial
from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from models.network import NetworkSettings, PixelNetwork
from models.networks.layers import Dropout, Pooling, day_encoding, per_tile


class TransformerSettings(NetworkSettings):
    """Settings of the transformer."""

    width: int = Field(64, ge=2, le=1024, description="Channels of each date; a multiple of the heads.")
    heads: int = Field(4, ge=1, le=64, description="Attentions beside each other in each layer.")
    layers: int = Field(2, ge=1, le=12, description="Layers, each an attention and a perceptron.")
    feedforward: int = Field(128, ge=1, le=4096, description="Hidden units of the perceptron of each layer.")
    pooling: Literal["max", "mean", "attention"] = Field(
        "max",
        description="What the scores are made from: max, mean or attention (a weighted mean with learnt weights) over "
        "the valid dates.",
    )
    dropout: Dropout = Field(0.1, description="Share of values left out in each step of training.")

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, got a width of {self.width} and {self.heads} heads")
        return self


class Transformer(PixelNetwork):
    """Transformer encoder (Vaswani et al. 2017) on raw series, after Russwurm and Körner (2020).

    Every valid date looks at every other. The day of a date is added to its values as a sinusoidal encoding, so dates may
    be irregular. Normalisation comes before each part (Xiong et al. 2020), which trains without a warm-up. It wants
    more labels than a recurrent network or an `ltae`, and more time.
    """

    name = "transformer"
    Settings = TransformerSettings
    settings: TransformerSettings
    temporal = True
    fixed_dates = False
    slab = 256

    def __init__(self, settings: TransformerSettings, *, bands: int, dates: int, classes: int) -> None:
        super().__init__(settings, bands=bands, dates=dates, classes=classes)
        self.embed = nn.Linear(bands, settings.width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                settings.width,
                settings.heads,
                settings.feedforward,
                settings.dropout,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(settings.layers)
        )
        self.norm = nn.LayerNorm(settings.width)
        self.pooling = Pooling(settings.pooling, settings.width)
        self.head = nn.Linear(settings.width, classes)

    def pixels(self, series: Tensor, valid: Tensor, time: Tensor) -> Tensor:
        """Return scores (N, K) of pixels (N, T, C)."""
        x = self.embed(series) + per_tile(partial(day_encoding, width=self.settings.width), time)  # (N, T, width)
        # Attention to nothing is not a number: a pixel without any valid date may look at its first; nothing comes of it.
        hidden = ~valid
        hidden[:, 0] &= valid.any(1)
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=hidden)
        scores: Tensor = self.head(self.pooling(self.norm(x), valid))
        return scores

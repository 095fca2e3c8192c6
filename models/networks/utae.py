"""A U-Net with temporal attention on tiles."""

from __future__ import annotations

from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from models.network import masked
from models.networks.layers import masked_softmax
from models.networks.ltae import LightAttention
from models.networks.unet import UNet, UNetSettings


class UTAESettings(UNetSettings):
    """Settings of the U-Net with temporal attention."""

    heads: int = Field(
        16,
        ge=1,
        le=128,
        description="Attentions beside each other; each weighs the dates for its own group of channels.",
    )
    keys: int = Field(4, ge=1, le=256, description="Size of the query and the keys of each head.")
    attention: int = Field(
        256, ge=1, le=2048, description="Channels of each date while it is attended to; a multiple of the heads."
    )

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        for name in ("width", "attention"):
            if getattr(self, name) % self.heads:
                raise ValueError(
                    f"{name} must be a multiple of heads, got {getattr(self, name)} channels and {self.heads} heads"
                )
        return self


class UTAE(UNet):
    """U-Net with temporal attention encoder (Garnot and Landrieu 2021): form and season at once.

    One encoder sees each date by itself. At the lowest resolution, lightweight temporal attention (see `ltae`) weighs the
    dates; the same weights, brought up to each finer resolution, make one skip map of those of all dates. There
    the weights are taken over the dates that are valid at the finer pixel, so a cloud's own pixels are left out to
    the edge. As in the U-Net, batch normalisation stands for the paper's group normalisation, which takes its mean
    over the whole tile, and upsampling is nearest-neighbour. Attention looks at one pixel at a time, at whatever
    resolution: radius and stride are those of the U-Net.
    """

    name = "utae"
    Settings = UTAESettings
    settings: UTAESettings
    temporal = True
    fixed_dates = False

    def __init__(self, settings: UTAESettings, *, bands: int, dates: int, classes: int) -> None:
        super().__init__(settings, bands=bands, dates=dates, classes=classes)
        deepest = settings.width * 2**settings.depth
        self.attention = LightAttention(
            deepest,
            width=settings.attention,
            heads=settings.heads,
            keys=settings.keys,
            outputs=deepest,
            dropout=settings.dropout,
        )

    @property
    def inputs(self) -> int:
        """Channels of one date that go in: its bands, and whether it is valid."""
        return self.bands + 1

    def forward(self, cube: Tensor, valid: Tensor, time: Tensor) -> Tensor:
        """Return scores (B, K, H, W)."""
        self.check(cube)
        b, t = cube.shape[:2]
        flags = valid.to(cube.dtype)  # (B, T, H, W)
        x = torch.cat([masked(cube, valid), flags[:, :, None]], dim=2).flatten(0, 1)  # (B * T, C + 1, H, W)
        skips: list[tuple[Tensor, Tensor]] = []
        for encoder in self.encoders[:-1]:
            skips.append((encoder(x), flags))  # (B * T, width * 2**i, H / 2**i, W / 2**i)
            x = F.max_pool2d(skips[-1][0], 2)
            # A coarse pixel is valid at a date where any of its pixels is.
            flags = F.max_pool2d(flags, 2)
        x = self.encoders[-1](x)
        h, w = x.shape[-2:]
        series = x.unflatten(0, (b, t)).permute(0, 3, 4, 1, 2).flatten(0, 2).contiguous()  # (B * h * w, T, channels)
        seen = flags.permute(0, 2, 3, 1).flatten(0, 2) > 0  # (B * h * w, T)
        days = time[:, None].expand(b, h * w, t).reshape(b * h * w, t)
        features, logits = self.attention(series, seen, days)
        x = features.unflatten(0, (b, h, w)).permute(0, 3, 1, 2)  # (B, channels, h, w)
        logits = logits.unflatten(0, (b, h, w)).permute(0, 3, 4, 1, 2).flatten(1, 2)  # (B, T * heads, h, w)
        for lift, decoder in zip(reversed(self.lifts), reversed(self.decoders), strict=True):
            x = F.interpolate(lift(x), scale_factor=2, mode="nearest")
            logits = F.interpolate(logits, scale_factor=2, mode="nearest")
            x = decoder(torch.cat([self._weighed(*skips.pop(), logits), x], dim=1))
        scores: Tensor = self.head(x)
        return scores

    def _weighed(self, maps: Tensor, flags: Tensor, logits: Tensor) -> Tensor:
        """Return one map (B, channels, H, W) of those of all dates (B * T, channels, H, W), by logits (B, T * heads, H, W)."""
        b, t, h, w = flags.shape
        heads = self.settings.heads
        weights = masked_softmax(logits.reshape(b, t, heads, 1, h, w), flags[:, :, None, None] > 0, 1)
        groups = maps.reshape(b, t, heads, -1, h, w)  # (B, T, heads, channels / heads, H, W)
        return (groups * weights).sum(1).flatten(1, 2)

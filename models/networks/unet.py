"""A U-Net on tiles."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from models.network import Network, NetworkSettings, masked
from models.networks.layers import Activation, Dropout, Normalisation, activation, expanded
from models.receptive import Span, receptive_radius

_KERNEL = 3
_CONVS = 2  # convolutions in each block


class UNetSettings(NetworkSettings):
    """Settings of the U-Net."""

    width: int = Field(16, ge=1, le=512, description="Channels at full resolution; doubled at each level below.")
    depth: int = Field(
        1,
        ge=1,
        le=5,
        description="How often the resolution is halved. Each level doubles the context a pixel sees and the halo "
        "that is read around each block: 10, 24 and 56 pixels for a depth of 1, 2 and 3.",
    )
    dropout: Dropout = Field(
        0.1, description="Share of channels left out in each step of training, below full resolution."
    )
    activation: Activation = Field(
        "relu", description="What follows each convolution: relu, leaky_relu, elu, gelu, silu, sigmoid, tanh, maxout."
    )
    normalisation: Normalisation = Field("batch", description="Normalisation of each convolution: batch or none.")
    padding: Literal["zeros", "reflect", "replicate"] = Field(
        "zeros",
        description="How chips go on beyond their border while training. Maps do not depend on it: there the halo "
        "holds what really lies beyond.",
    )


class UNet(Network):
    """U-Net: sees form and texture around a pixel, at two or more scales.

    After Ronneberger et al. (2015), with batch normalisation and same-size convolutions. Whether a pixel is valid is an
    input of its own, for a masked pixel is not an average one. Upsampling is nearest-neighbour behind a 1 x 1
    convolution: each fine pixel hangs on exactly one coarse pixel, so the halo is exact, and it costs a quarter of a
    transposed convolution. The default depth of 1 keeps the halo at 10 pixels: the
    halo is also the buffer between folds, and with 24 pixels (a depth of 2) more than half of the labels of a small
    reference set are lost to it. Where labels are many and far apart, a depth of 2 or 3 sees larger forms.
    """

    name = "unet"
    Settings = UNetSettings
    settings: UNetSettings

    def __init__(self, settings: UNetSettings, *, bands: int, dates: int, classes: int) -> None:
        super().__init__(settings, bands=bands, dates=dates, classes=classes)
        widths = [settings.width * 2**level for level in range(settings.depth + 1)]
        inputs = [self.inputs, *widths]
        self.encoders = nn.ModuleList(self._block(inputs[i], widths[i], i) for i in range(settings.depth + 1))
        self.lifts = nn.ModuleList(nn.Conv2d(widths[i + 1], widths[i], 1) for i in range(settings.depth))
        self.decoders = nn.ModuleList(self._block(2 * widths[i], widths[i], i) for i in range(settings.depth))
        self.head = nn.Conv2d(widths[0], classes, 1)

    @property
    def inputs(self) -> int:
        """Channels that go in: the bands of all dates, and whether each date is valid."""
        return self.dates * self.bands + self.dates

    def _block(self, inputs: int, outputs: int, level: int) -> nn.Sequential:
        settings = self.settings
        layers: list[nn.Module] = []
        made = expanded(outputs, settings.activation)
        for i in range(_CONVS):
            layers.append(
                nn.Conv2d(
                    inputs if i == 0 else outputs,
                    made,
                    _KERNEL,
                    padding=_KERNEL // 2,
                    padding_mode=settings.padding,
                    bias=settings.normalisation == "none",
                )
            )
            if settings.normalisation == "batch":
                layers.append(nn.BatchNorm2d(made))
            layers.append(activation(settings.activation))
        if level > 0:
            layers.append(nn.Dropout2d(settings.dropout))
        return nn.Sequential(*layers)

    @property
    def stride(self) -> int:
        """Two to the depth."""
        return int(2**self.settings.depth)

    @property
    def radius(self) -> int:
        """Receptive radius: 9, 23 or 51 pixels for a depth of 1, 2 or 3."""
        return receptive_radius(lambda span: self._reads(span, 0), self.stride)

    def _reads(self, span: Span, level: int) -> Span:
        """Return what a level reads from the level above to make ``span``."""
        if level == self.settings.depth:
            return span.conv(_KERNEL, _CONVS)
        joined = span.conv(_KERNEL, _CONVS)
        below = self._reads(joined.upsample(), level + 1).pool()
        return joined.join(below).conv(_KERNEL, _CONVS)

    @property
    def chip(self) -> int:
        """At least a halo and 32 pixels: small chips are many, and a few labels are seen in many steps."""
        side = max(32, self.halo)
        return -(-side // self.stride) * self.stride

    def forward(self, cube: Tensor, valid: Tensor, time: Tensor) -> Tensor:  # noqa: ARG002 - dates are fixed places here
        """Return scores (B, K, H, W); dates are folded into the channels."""
        self.check(cube)
        x = torch.cat([masked(cube, valid).flatten(1, 2), valid.to(cube.dtype)], dim=1)  # (B, T * C + T, H, W)
        skips: list[Tensor] = []
        for encoder in self.encoders[:-1]:
            skips.append(encoder(x))  # (B, width * 2**i, H / 2**i, W / 2**i)
            x = F.max_pool2d(skips[-1], 2)
        x = self.encoders[-1](x)
        for lift, decoder in zip(reversed(self.lifts), reversed(self.decoders), strict=True):
            x = F.interpolate(lift(x), scale_factor=2, mode="nearest")
            x = decoder(torch.cat([skips.pop(), x], dim=1))
        scores: Tensor = self.head(x)
        return scores

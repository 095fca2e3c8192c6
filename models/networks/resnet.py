"""A residual network of dilated convolutions on tiles."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from models.network import Network, NetworkSettings, masked
from models.networks.layers import Activation, Dropout, Normalisation, convolved
from models.receptive import Span, receptive_radius

_KERNEL = 3


class ResNetSettings(NetworkSettings):
    """Settings of the dilated residual network."""

    width: int = Field(32, ge=1, le=1024, description="Channels of every layer.")
    dilations: list[Annotated[int, Field(ge=1, le=64)]] = Field(
        [1, 2, 4],
        min_length=1,
        max_length=16,
        description="How far apart the pixels lie that each residual block looks at. A block adds so many pixels of context "
        "on every side, and one more.",
    )
    activation: Activation = Field(
        "relu", description="What follows each convolution: relu, leaky_relu, elu, gelu, silu, sigmoid, tanh, maxout."
    )
    normalisation: Normalisation = Field("batch", description="Normalisation of each convolution: batch or none.")
    dropout: Dropout = Field(0.1, description="Share of channels left out in each step of training, within each block.")


class ResNet(Network):
    """Dilated residual network: texture at full resolution, for imagery of 1 to 10 m.

    Residual blocks (He et al. 2016) keep the resolution, and dilation takes the place of downsampling (Yu and Koltun 2016;
    Yu et al. 2017), so thin things stay where they are. Nothing but the sum acts on the shortcut (He et al. 2016,
    "Identity mappings"). Dilated convolutions one on another would see a lattice of pixels, and draw it into the map:
    in each block a plain convolution follows the dilated one, the smoothing that Yu et al. (2017) put at the end of
    the network. Normalisation stands behind convolutions, where it is folded into them for prediction. Whether a pixel
    is valid is an input of its own.
    """

    name = "resnet"
    Settings = ResNetSettings
    settings: ResNetSettings

    def __init__(self, settings: ResNetSettings, *, bands: int, dates: int, classes: int) -> None:
        super().__init__(settings, bands=bands, dates=dates, classes=classes)
        width = settings.width
        self.stem = nn.Sequential(
            *convolved(
                nn.Conv2d,
                dates * bands + dates,
                width,
                _KERNEL,
                padding=_KERNEL // 2,
                normalisation=settings.normalisation,
                follows=settings.activation,
            )
        )
        self.blocks = nn.ModuleList(self._block(dilation) for dilation in settings.dilations)
        self.head = nn.Conv2d(width, classes, 1)

    def _block(self, dilation: int) -> nn.Sequential:
        settings = self.settings
        width = settings.width
        first = convolved(
            nn.Conv2d,
            width,
            width,
            _KERNEL,
            padding=dilation * (_KERNEL // 2),
            dilation=dilation,
            normalisation=settings.normalisation,
            follows=settings.activation,
        )
        second = convolved(
            nn.Conv2d, width, width, _KERNEL, padding=_KERNEL // 2, normalisation=settings.normalisation, follows=None
        )
        return nn.Sequential(*first, nn.Dropout2d(settings.dropout), *second)

    @property
    def stride(self) -> int:
        """Any size will do."""
        return 1

    @property
    def radius(self) -> int:
        """One pixel for the stem, and for each block its dilation and one: 11 by default."""
        return receptive_radius(self._reads, self.stride)

    def _reads(self, span: Span) -> Span:
        for dilation in reversed(self.settings.dilations):
            span = span.join(span.conv(_KERNEL).conv(_KERNEL, dilation=dilation))
        return span.conv(_KERNEL)

    @property
    def chip(self) -> int:
        """At least a halo and 32 pixels, as for the U-Net."""
        return max(32, self.halo)

    def forward(self, cube: Tensor, valid: Tensor, time: Tensor) -> Tensor:  # noqa: ARG002 - dates are fixed places here
        """Return scores (B, K, H, W); dates are folded into the channels."""
        self.check(cube)
        x = self.stem(torch.cat([masked(cube, valid).flatten(1, 2), valid.to(cube.dtype)], dim=1))  # (B, width, H, W)
        for block in self.blocks:
            x = x + block(x)
        scores: Tensor = self.head(x)
        return scores

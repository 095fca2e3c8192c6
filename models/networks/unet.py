"""A U-Net: context on several scales, scores at full resolution."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from models.network import Network, NetworkSettings
from models.networks.layers import Activation, activation, normalisation, tileable

_KERNEL = 3


class UNetSettings(NetworkSettings):
    """A U-Net after Ronneberger et al. 2015, on all dates and bands side by side."""

    width: int = Field(32, ge=1, description="Channels at full resolution; doubled at each step down.")
    depth: int = Field(
        2,
        ge=1,
        le=6,
        description="Steps down. Each doubles the context: the halo is 10, 24, 56, 112 pixels for 1, 2, 3, 4. Labels "
        "nearer than that to labels of another fold are left out of training, so few labels want few steps.",
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="Share of channels left out at random while training.")
    activation: Activation = Field("relu", description="What follows each convolution.")
    normalisation: str = Field("batch", description="batch or none.")
    padding: Literal["zeros", "replicate", "reflect"] = Field(
        "zeros", description="What convolutions see beyond a tile. It reaches the margin only, which is cut off."
    )

    @field_validator("normalisation")
    @classmethod
    def _tileable(cls, name: str) -> str:
        return tileable(name)


class UNet(Network):
    """U-Net: convolutions on several scales (Ronneberger et al. 2015), for texture and shape."""

    name: ClassVar[str] = "unet"
    Settings: ClassVar[type[NetworkSettings]] = UNetSettings
    chip: ClassVar[int] = 64

    def __init__(self, settings: UNetSettings, *, bands: int, dates: int, classes: int) -> None:
        super().__init__(settings, bands=bands, dates=dates, classes=classes)
        self.depth = settings.depth
        widths = [settings.width * 2**level for level in range(settings.depth + 1)]
        # Where a date has no value the cube is zero, which is also the mean: the masks tell the two apart.
        channels = dates * bands + dates
        self.down = nn.ModuleList()
        for width in widths:
            self.down.append(_Convolutions(channels, width, settings))
            channels = width
        self.pool = nn.MaxPool2d(2)
        self.up, self.join = nn.ModuleList(), nn.ModuleList()
        for width in reversed(widths[:-1]):
            self.up.append(nn.ConvTranspose2d(2 * width, width, 2, stride=2))
            self.join.append(_Convolutions(2 * width, width, settings))
        self.dropout = nn.Dropout2d(settings.dropout)
        self.head = nn.Conv2d(widths[0], classes, 1)

    @property
    def stride(self) -> int:
        """Pooling repeats on this step."""
        return int(2**self.depth)

    @property
    def halo(self) -> int:
        """Largest receptive radius over the phases of the stride, rounded up to a multiple of the stride."""
        radius = receptive_radius(self.depth)
        return -(-radius // self.stride) * self.stride

    def forward(self, cube: Tensor, valid: Tensor, time: Tensor) -> Tensor:  # noqa: ARG002 - one contract for all
        """Score each pixel; see `Network.forward`."""
        self.check(cube)
        x = torch.cat([cube.flatten(1, 2), valid.to(cube.dtype)], 1)  # (B, T * C + T, H, W)
        x = x.contiguous(memory_format=torch.channels_last)
        kept = []
        for convolutions in self.down[:-1]:
            x = convolutions(x)
            kept.append(x)
            x = self.pool(x)  # half the side, half the stride left
        x = self.dropout(self.down[-1](x))
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([kept.pop(), up(x)], 1))
        scores: Tensor = self.head(x)  # (B, K, H, W)
        return scores


class _Convolutions(nn.Sequential):
    """Two 3 x 3 convolutions, each with normalisation and activation."""

    def __init__(self, channels: int, width: int, settings: UNetSettings) -> None:
        layers: list[nn.Module] = []
        for inputs in (channels, width):
            layers += [
                nn.Conv2d(
                    inputs,
                    width,
                    _KERNEL,
                    padding=_KERNEL // 2,
                    padding_mode=settings.padding,
                    bias=settings.normalisation == "none",
                ),
                normalisation(settings.normalisation, width, 2),
                activation(settings.activation),
            ]
        super().__init__(*layers)


def receptive_radius(depth: int) -> int:
    """Return the largest distance at which an input pixel reaches an output pixel, over all phases of the stride.

    Intervals of input pixels are followed backwards through the layers: a 3 x 3 convolution widens an interval by one
    on each side, an upsampling by two takes it to half resolution (rounding outwards), a pooling takes it back to
    full. Skip connections are followed too; the widest path counts.
    """
    worst = 0
    for phase in range(2**depth):
        low, high = _needed(phase, phase, 0, depth)
        worst = max(worst, phase - low, high - phase)
    return worst


def _needed(low: int, high: int, level: int, depth: int) -> tuple[int, int]:
    """Return the input pixels of a level (at its resolution, before its convolutions) that an output interval needs."""
    low, high = low - 2, high + 2
    if level == depth:
        return low, high
    # Below: through the upsampling to half resolution, the level below, and the pooling back to this resolution.
    inner_low, inner_high = _needed(low // 2, high // 2, level + 1, depth)
    low, high = min(low, 2 * inner_low), max(high, 2 * inner_high + 1)
    # This level's own convolutions on the way down; the skip connection passes through them as well.
    return low - 2, high + 2

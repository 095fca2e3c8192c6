"""Convolutions over bands and land at once, for imagery with many bands."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from models.network import ModelError, Network, NetworkSettings, masked
from models.networks.layers import Activation, Dropout, Normalisation, convolved
from models.receptive import receptive_radius

_KERNEL = 3  # over the land

# Along a component with less than this share of the variance of the first there is only rounding.
_NOTHING = 1e-6

Units = Annotated[int, Field(ge=1, le=8192)]


class SpectralSettings(NetworkSettings):
    """Settings of the spectral-spatial network."""

    components: int = Field(
        0,
        ge=0,
        le=1024,
        description="Principal components that the bands are reduced to first, fitted on the training fold; 0: the bands as "
        "they are. 15 to 30 make a network of hundreds of bands several times cheaper.",
    )
    filters: list[Units] = Field(
        [8, 16, 32],
        min_length=1,
        max_length=8,
        description="Channels of each 3-D convolution, one after another; each adds a pixel of context on every side.",
    )
    kernel: Literal[3, 5, 7, 9, 11, 13, 15] = Field(
        5,
        description="Bands that each 3-D convolution sees at once: 3, 5, 7, 9, 11, 13 or 15; no more than reach all of them.",
    )
    stride: int = Field(
        2, ge=1, le=8, description="Step of each 3-D convolution over the bands; 1 keeps as many as there are."
    )
    width: int = Field(64, ge=1, le=1024, description="Channels of the 2-D convolution behind them.")
    hidden: list[Units] = Field(
        [128], max_length=4, description="Units of each layer between the convolutions and the scores; may be empty."
    )
    activation: Activation = Field(
        "relu", description="What follows each layer: relu, leaky_relu, elu, gelu, silu, sigmoid, tanh, maxout."
    )
    normalisation: Normalisation = Field("batch", description="Normalisation of each layer: batch or none.")
    dropout: Dropout = Field(
        0.2, description="Share of channels left out behind each 2-D layer in each step of training."
    )

    @field_validator("stride")
    @classmethod
    def _sees_all(cls, stride: int, info: ValidationInfo) -> int:
        most = info.data.get("kernel", 15) // 2 + 1
        if stride > most:
            raise ValueError(
                f"with a larger step than {most}, kernels of {info.data['kernel']} bands miss the last bands"
            )
        return stride


class Spectral(Network):
    """Spectral-spatial network: 3-D, then 2-D convolutions, for imagery with up to hundreds of bands.

    After HybridSN (Roy et al. 2020), which classifies patches; here it is dense, same-size over the land, and so learns from
    chips with many labels. Over the bands 3-D convolutions take steps, which HybridSN does not: bands are never cut into
    tiles. They are padded with zeros there, so the first and the last are seen as well, and a kernel is clipped to the
    bands that there are. Several dates are so many bands; whether each is valid goes into the 2-D convolution.

    With `components`, each date's bands are first brought to principal components of unit variance, as in HybridSN
    (`project`). What is masked stays zero: the cube is normalised, so zero is the mean.
    """

    name = "spectral"
    Settings = SpectralSettings
    settings: SpectralSettings
    projection: Tensor

    def __init__(self, settings: SpectralSettings, *, bands: int, dates: int, classes: int) -> None:
        super().__init__(settings, bands=bands, dates=dates, classes=classes)
        if settings.components > bands:
            raise ModelError(
                f"settings of the network 'spectral': components: found {settings.components}, and the imagery has {bands} "
                f"bands; at most {bands} are allowed, and 0 takes the bands as they are"
            )
        if settings.components:
            # Not numbers until they are fitted: a network that nobody told its components must not seem to work.
            self.register_buffer("projection", torch.full((settings.components, bands), torch.nan))
        depth, channels = dates * (settings.components or bands), 1
        cubic: list[nn.Module] = []
        for filters in settings.filters:
            reach = min(settings.kernel // 2, depth - 1)
            cubic += convolved(
                nn.Conv3d,
                channels,
                filters,
                (_KERNEL, _KERNEL, 2 * reach + 1),
                stride=(1, 1, settings.stride),
                padding=(_KERNEL // 2, _KERNEL // 2, reach),
                normalisation=settings.normalisation,
                follows=settings.activation,
            )
            depth, channels = -(-depth // settings.stride), filters
        self.cubic = nn.Sequential(*cubic)
        flat: list[nn.Module] = []
        width, kernel = depth * channels + dates, _KERNEL
        for units in (settings.width, *settings.hidden):
            flat += convolved(
                nn.Conv2d,
                width,
                units,
                kernel,
                padding=kernel // 2,
                normalisation=settings.normalisation,
                follows=settings.activation,
            )
            flat.append(nn.Dropout2d(settings.dropout))
            width, kernel = units, 1
        self.flat = nn.Sequential(*flat, nn.Conv2d(width, classes, 1))

    @property
    def components(self) -> int:
        """As the settings say."""
        return self.settings.components

    @torch.no_grad()
    def project(self, covariance: Tensor) -> None:
        """Take the principal components, whitened, of normalised bands with a covariance (C, C).

        The signs are made definite: the largest weight of a component is positive. One along which nothing varies is
        zero.
        """
        variance, axes = torch.linalg.eigh(covariance.double())  # ascending; (C,), (C, C) with axes in columns
        variance, axes = variance.flip(0)[: self.components], axes.flip(1)[:, : self.components].T
        largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
        something = variance > _NOTHING * variance[0].clamp(min=0)
        scale = torch.where(something, variance.clamp(min=1e-30).rsqrt(), 0.0)
        self.projection.copy_(axes * largest.sign() * scale[:, None])

    @property
    def stride(self) -> int:
        """Any size will do."""
        return 1

    @property
    def radius(self) -> int:
        """One pixel for each 3-D convolution, and one for the 2-D convolution: 4 by default."""
        return receptive_radius(lambda span: span.conv(_KERNEL, len(self.settings.filters) + 1), self.stride)

    @property
    def chip(self) -> int:
        """At least a halo and 32 pixels, as for the U-Net."""
        return max(32, self.halo)

    def forward(self, cube: Tensor, valid: Tensor, time: Tensor) -> Tensor:  # noqa: ARG002 - dates are fixed places here
        """Return scores (B, K, H, W)."""
        self.check(cube)
        x = masked(cube, valid)
        if self.components:
            x = torch.einsum("kc,btchw->btkhw", self.projection, x)
        # Bands last: for the shape with bands first torch (2.13, on a CPU) takes a convolution that is six times slower.
        x = self.cubic(x.flatten(1, 2).permute(0, 2, 3, 1)[:, None])  # (B, filters, H, W, bands left)
        x = torch.cat([x.permute(0, 1, 4, 2, 3).flatten(1, 2), valid.to(cube.dtype)], dim=1)
        scores: Tensor = self.flat(x)
        return scores

"""A classifier of patches, run on whole tiles."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from models.network import ModelError, Network, NetworkSettings, masked
from models.networks.layers import Activation, Dropout, Normalisation, convolved
from models.networks.patches import PatchLayers, PatchPool, PoolKind, Window, left, odd, reads

Size = Annotated[int, Field(ge=1, le=31)]


def _exact(value: object) -> object:
    if value == "same":
        raise ValueError(
            "with 'same' a patch is filled up with zeros at its own border, where in the map there is land, so the map "
            "would differ from the patches that were learnt: found 'same', allowed is valid"
        )
    return value


Padding = Annotated[Literal["valid"], BeforeValidator(_exact)]


class CNNSettings(NetworkSettings):
    """Settings of the classifier of patches."""

    filters: list[Annotated[int, Field(ge=1, le=1024)]] = Field(
        [32, 64], min_length=1, max_length=12, description="Channels of each convolution, one after another."
    )
    kernel: Size | list[Size] = Field(
        3, description="Side of the square that each convolution sees: one number, or one for each."
    )
    stride: Size | list[Size] = Field(1, description="Step of each convolution: one number, or one for each.")
    pooling: PoolKind = Field(
        "max", description="What is made of each pooled square: max, average or l2 (the root of the sum of squares)."
    )
    pool: Size | list[Size] = Field(
        [1, 2],
        description="Side of the squares that are pooled behind each convolution, 1 for none: one number, or one for each.",
    )
    padding: Padding = Field(
        "valid",
        description="How convolutions treat the border of a patch: valid, they stay inside. Nothing else would make the "
        "map equal to its patches.",
    )
    patch: int = Field(
        9,
        ge=3,
        le=255,
        description="Side of the patch that is looked at to tell the class of its centre, in pixels; odd. Half of it is the "
        "halo that is read around each block and kept free between folds.",
    )
    hidden: list[Annotated[int, Field(ge=1, le=8192)]] = Field(
        [128],
        max_length=4,
        description="Units of each fully connected layer between the convolutions and the scores; may be empty.",
    )
    activation: Activation = Field(
        "relu", description="What follows each layer: relu, leaky_relu, elu, gelu, silu, sigmoid, tanh, maxout."
    )
    normalisation: Normalisation = Field("batch", description="Normalisation of each layer: batch or none.")
    dropout: Dropout = Field(0.2, description="Share of channels left out behind each layer in each step of training.")

    @field_validator("kernel", "stride", "pool")
    @classmethod
    def _one_for_each(cls, value: int | list[int], info: ValidationInfo) -> int | list[int]:
        layers = len(info.data.get("filters", []))
        if isinstance(value, list) and layers and len(value) != layers:
            raise ValueError(
                f"there are {layers} convolutions (filters) and {len(value)} numbers here; give one number, or {layers}"
            )
        return value

    @field_validator("patch")
    @classmethod
    def _fits(cls, patch: int, info: ValidationInfo) -> int:
        if patch % 2 == 0:
            raise ValueError(f"the label is at a patch's centre, so its side is odd: {patch - 1} or {patch + 1}")
        if {"filters", "kernel", "stride", "pool"} <= set(info.data):
            _check(patch, _windows(cls.model_construct(**info.data)))
        return patch

    def of_each(self) -> list[tuple[int, int, int, int]]:
        """Return filters, kernel, stride and pool of each convolution."""
        n = len(self.filters)
        kernel, stride, pool = (v if isinstance(v, list) else [v] * n for v in (self.kernel, self.stride, self.pool))
        return list(zip(self.filters, kernel, stride, pool, strict=True))


def _windows(settings: CNNSettings) -> list[Window]:
    """Return what the convolutions and poolings look at, in their order."""
    found = []
    for i, (_, kernel, stride, pool) in enumerate(settings.of_each(), 1):
        found.append(Window(f"convolution {i} ({kernel} x {kernel}, stride {stride})", kernel, stride))
        if pool > 1:
            found.append(Window(f"the pooling behind convolution {i} ({pool} x {pool})", pool, pool))
    return found


def _check(patch: int, windows: list[Window]) -> None:
    """Refuse layers that leave nothing of a patch, or do not look at all of it; name a patch that would do."""
    side = patch
    for window in windows:
        if window.kernel > side:
            raise ValueError(
                f"{window.name} finds {side} x {side} values, so nothing is left; the smallest patch for these layers is "
                f"{odd(reads(windows, 1))}; or take fewer layers, smaller kernels or less pooling"
            )
        side = window.leaves(side)
    # One row and one column are left over where an even number is read; more would be a halo that says nothing.
    if patch > odd(reads(windows, side)):
        raise ValueError(
            f"with these strides and poolings the layers read {reads(windows, side)} of the {patch} pixels of a side; "
            f"{odd(reads(windows, side))} is the same network, {odd(reads(windows, side + 1))} the next larger one"
        )


def patch_classifier(settings: CNNSettings, inputs: int, outputs: int) -> PatchLayers:
    """Return layers that make (N, outputs, 1, 1) of patches (N, inputs, S, S) with S the patch of the settings."""
    layers: list[nn.Module] = []
    width = inputs

    def add(units: int, kernel: int, stride: int = 1, pool: int = 1) -> None:
        nonlocal width
        layers.extend(
            convolved(
                nn.Conv2d,
                width,
                units,
                kernel,
                stride=stride,
                normalisation=settings.normalisation,
                follows=settings.activation,
            )
        )
        if pool > 1:
            layers.append(PatchPool(settings.pooling, pool))
        layers.append(nn.Dropout2d(settings.dropout))
        width = units

    for units, kernel, stride, pool in settings.of_each():
        add(units, kernel, stride, pool)
    side = left(_windows(settings), settings.patch)
    for units in settings.hidden:
        # The first sees all that is left, and leaves one value for those that follow.
        add(units, side)
        side = 1
    return PatchLayers(*layers, nn.Conv2d(width, outputs, side))


class CNN(Network):
    """Convolutional network on patches: the class of a pixel from the square of land around it.

    Convolutions and pooling, then fully connected layers, as LeCun et al. (1998). It learns from patches with the label at
    the centre, each by itself, and maps tiles as a fully convolutional network (Long et al. 2015): strides become
    dilations, and fully connected layers convolutions. The map equals the scores of every single patch, at a fraction of
    the cost. Whether a pixel is valid is an input of its own, as in the U-Net.

    The defaults see 9 x 9 pixels, 90 m of Sentinel-2 or 270 m of Landsat: a field's texture and its border. The halo, and
    so the buffer between folds, is 4 pixels.
    """

    name = "cnn"
    Settings = CNNSettings
    settings: CNNSettings
    centred = True

    def __init__(self, settings: CNNSettings, *, bands: int, dates: int, classes: int) -> None:
        super().__init__(settings, bands=bands, dates=dates, classes=classes)
        self.layers = patch_classifier(settings, dates * bands + dates, classes)
        windows = _windows(settings)
        self.reads = reads(windows, left(windows, settings.patch))

    @property
    def stride(self) -> int:
        """Any size will do: no stride is ever taken on a tile."""
        return 1

    @property
    def radius(self) -> int:
        """Half of the patch. Where an even number of pixels is read, it is half a pixel less to the right and below."""
        return self.settings.patch // 2

    @property
    def chip(self) -> int:
        """A patch."""
        return self.settings.patch

    def _inputs(self, cube: Tensor, valid: Tensor) -> Tensor:
        """Return the bands of all dates, and whether each date is valid: (B, T * C + T, H, W)."""
        self.check(cube)
        return torch.cat([masked(cube, valid).flatten(1, 2), valid.to(cube.dtype)], dim=1)

    def centre(self, cube: Tensor, valid: Tensor, time: Tensor) -> Tensor:  # noqa: ARG002 - dates are fixed places here
        """Return the scores (B, K) of the centres of patches (B, T, C, S, S), by the strided pass over each."""
        side = cube.shape[-1]
        if side < self.chip or side % 2 == 0 or cube.shape[-2] != side:
            raise ModelError(
                f"the network '{self.name}' learns from patches of {self.chip} x {self.chip} pixels or a larger odd number, got "
                f"{cube.shape[-2]} x {side}"
            )
        beyond = (side - self.chip) // 2
        x = self._inputs(cube, valid)[..., beyond : side - beyond, beyond : side - beyond]
        scores: Tensor = self.layers(x)  # (B, K, 1, 1)
        return scores.flatten(1)

    def forward(self, cube: Tensor, valid: Tensor, time: Tensor) -> Tensor:  # noqa: ARG002 - dates are fixed places here
        """Return scores (B, K, H, W): for each pixel those of the patch around it, zero and invalid beyond the tile."""
        before, after = self.radius, self.reads - 1 - self.radius
        return self.layers.dense(F.pad(self._inputs(cube, valid), (before, after, before, after)))

"""What the networks share that learn without labels: an encoder, a narrow code, and a decoder or a head."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from models.network import EncodingNetwork, NetworkSettings, masked
from models.networks.layers import Activation, Normalisation, activation, expanded
from models.receptive import Span, receptive_radius

_CONVS = 2  # convolutions at each level of the encoder
_WIDEST = 32  # numbers of a code that nobody has chosen
_NARROWER = 3  # values of the cube to each number of such a code


class CodingSettings(NetworkSettings):
    """Settings of every network with a code."""

    looks_at: Literal["pixel", "land"] = Field(
        "pixel",
        description="pixel: the values of each pixel by itself. land: chips, whose resolution is halved on the way to the "
        "code, so texture and form count; map and embedding are then as coarse as the code.",
    )
    code: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        "auto",
        description="Numbers in the code, which is the embedding. auto: a third of the values that it stands for, 32 at most.",
    )
    width: int = Field(
        32,
        ge=1,
        le=1024,
        description="Units of each hidden layer; of land, channels at full resolution, doubled below.",
    )
    depth: int = Field(1, ge=1, le=5, description="How often the resolution is halved; of land only.")
    activation: Activation = Field(
        "relu", description="What follows each layer: relu, leaky_relu, elu, gelu, silu, sigmoid, tanh, maxout."
    )
    normalisation: Normalisation = Field("batch", description="Normalisation of each layer: batch or none.")


class CodingNetwork(EncodingNetwork):
    """An encoder to a narrow code, and a decoder back; or, for classes, a head in its place.

    Dates are fixed places: the values of all dates, and whether each is valid, go in as channels. Of single pixels all
    kernels are 1 x 1 and nothing is pooled; of land each level of the encoder has two 3 x 3 convolutions and the levels
    stand a max-pooling by 2 apart. The code at the coarsest level is all that the decoder sees. Upsampling is by transposed
    convolutions of 2 x 2: each fine pixel hangs on one coarse pixel, so the halo is exact.
    """

    settings: CodingSettings

    def __init__(self, settings: CodingSettings, *, bands: int, dates: int, classes: int) -> None:
        super().__init__(settings, bands=bands, dates=dates, classes=classes)
        widths = [settings.width * 2**level for level in range(self.levels + 1)]
        self.encoder = _Encoder(settings, self.kernel, dates * bands + dates, widths, self.encoded)
        if classes:
            self.head = nn.Sequential(
                *_stack(settings, 1, 1, self.features, settings.width), nn.Conv2d(settings.width, classes, 1)
            )
        else:
            self.decoder = _Decoder(settings, self.kernel, self.features, widths, dates * bands)

    @property
    def features(self) -> int:
        """Size of the code."""
        if self.settings.code != "auto":
            return self.settings.code
        values = self.dates * self.bands * self.stride**2
        return min(max(values // _NARROWER, 1), _WIDEST)

    @property
    def encoded(self) -> int:
        """How many channels the encoder gives."""
        return self.features

    @property
    def levels(self) -> int:
        """How often the resolution is halved."""
        return self.settings.depth if self.settings.looks_at == "land" else 0

    @property
    def kernel(self) -> int:
        """Side of the convolutions."""
        return 3 if self.settings.looks_at == "land" else 1

    @property
    def stride(self) -> int:
        """Two to the number of levels; 1 for single pixels."""
        return int(2**self.levels)

    @property
    def radius(self) -> int:
        """Receptive radius of the scores, or of the reconstruction: that reads through decoder and encoder."""
        return receptive_radius(self._reads, self.stride)

    def _reads(self, span: Span) -> Span:
        for _ in range(self.levels):
            span = (span if self.classes else span.conv(self.kernel)).upsample()
        for _ in range(self.levels):
            span = span.conv(self.kernel, _CONVS).pool()
        return span.conv(self.kernel, _CONVS)

    @property
    def chip(self) -> int:
        """At least a halo and 32 pixels; single pixels have none around them."""
        if self.pixelwise:
            return 1
        side = max(32, self.halo)
        return -(-side // self.stride) * self.stride

    def encode(self, cube: Tensor, valid: Tensor) -> Tensor:
        """Return what the encoder gives, (B, F, H / stride, W / stride)."""
        self.check(cube)
        x = torch.cat([masked(cube, valid).flatten(1, 2), valid.to(cube.dtype)], dim=1)  # (B, T * C + T, H, W)
        found: Tensor = self.encoder(x)
        return found

    def embedding(self, encoded: Tensor) -> Tensor:
        """Return the code (B, E, h, w) that stands for what the encoder gave."""
        return encoded

    def code(self, encoded: Tensor) -> Tensor:
        """Return the code (B, E, h, w) that the decoder is given."""
        return self.embedding(encoded)

    def decode(self, code: Tensor) -> Tensor:
        """Return the reconstruction (B, T, C, H, W) of a code (B, E, h, w)."""
        values: Tensor = self.decoder(code)
        return values.view(len(values), self.dates, self.bands, *values.shape[2:])

    @abstractmethod
    def corrupt(self, cube: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return cube and valid as they are shown while learning, and which values are to be guessed (B, T, C, H, W) bool."""

    @abstractmethod
    def penalty(self, encoded: Tensor, epoch: int | None = None) -> Tensor | None:
        """Return what the code of each pixel costs beside its squared errors, (B, H, W), or None: nothing.

        ``epoch`` counts from 0 while learning; None: as after the last one.
        """

    def forward(self, cube: Tensor, valid: Tensor, time: Tensor) -> Tensor:  # noqa: ARG002 - dates are fixed places here
        """Return scores (B, K, H, W), or reconstruction and embedding (B, T * C + E, H, W)."""
        encoded = self.encode(cube, valid)
        if self.classes:
            # A head of single pixels gives the same before and behind the upsampling.
            return self._fine(self.head(self.embedding(encoded)))
        reconstruction = self.decode(self.code(encoded)).flatten(1, 2)
        return torch.cat([reconstruction, self._fine(self.embedding(encoded))], dim=1)

    def _fine(self, x: Tensor) -> Tensor:
        """Return (B, F, H, W) of (B, F, h, w): every pixel as the cell of the code that it lies in."""
        return x if self.stride == 1 else F.interpolate(x, scale_factor=self.stride, mode="nearest")


class _Encoder(nn.Module):
    """Levels of convolutions with a max-pooling by 2 between them, and the code at the end."""

    def __init__(self, settings: CodingSettings, kernel: int, inputs: int, widths: list[int], outputs: int) -> None:
        super().__init__()
        ins = [inputs, *widths]
        self.levels = nn.ModuleList(
            nn.Sequential(*_stack(settings, kernel, _CONVS, ins[i], width)) for i, width in enumerate(widths)
        )
        self.code = nn.Conv2d(widths[-1], outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, F, h, w) of (B, T * C + T, H, W)."""
        for i, level in enumerate(self.levels):
            x = level(F.max_pool2d(x, 2) if i else x)
        code: Tensor = self.code(x)
        return code


class _Decoder(nn.Module):
    """From the code back to the values, level by level."""

    def __init__(self, settings: CodingSettings, kernel: int, features: int, widths: list[int], values: int) -> None:
        super().__init__()
        layers = _stack(settings, 1, _CONVS, features, widths[-1])
        for below, above in zip(widths[:0:-1], widths[-2::-1], strict=True):
            layers.append(nn.ConvTranspose2d(below, above, 2, stride=2))
            layers += _stack(settings, kernel, 1, above, above)
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[0], values, 1))

    def forward(self, code: Tensor) -> Tensor:
        """Return (B, T * C, H, W) of (B, E, h, w)."""
        values: Tensor = self.layers(code)
        return values


def _stack(settings: CodingSettings, kernel: int, convs: int, inputs: int, width: int) -> list[nn.Module]:
    """Return convolutions one after another, each with its normalisation and activation."""
    layers: list[nn.Module] = []
    made = expanded(width, settings.activation)
    for i in range(convs):
        plain = settings.normalisation == "none"
        layers.append(nn.Conv2d(width if i else inputs, made, kernel, padding=kernel // 2, bias=plain))
        if not plain:
            layers.append(nn.BatchNorm2d(made))
        layers.append(activation(settings.activation))
    return layers

"""The contract of a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn


class ModelError(ValueError):
    """Something about a network, a training or a bundle is the user's to mend; the message is complete by itself."""

    exit_status = 2


class NetworkSettings(BaseModel):
    """Base of the settings of every network: unknown keys are refused, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Network(nn.Module, ABC):
    """A map from a tile of the cube to scores per class on the same pixels.

    Nothing in a forward pass may depend on the tile as a whole: that is what makes a map independent of how it was cut.

    Parameters
    ----------
    settings : NetworkSettings
        The network's own settings, an instance of its `Settings`.
    bands, dates, classes : int
        Sizes of the axes C and T of the cube, and K of the scores: classes, or the numbers that are to be estimated.

    Attributes
    ----------
    temporal : bool
        Whether it is made for series of dates; others take several dates as so many bands.
    fixed_dates : bool
        Whether dates are fixed places: the network takes them by position and needs as many as it was made for. Where
        not, it goes by `time`, and dates that are valid nowhere may follow without any effect.
    centred : bool
        Whether it learns from patches of 2 * halo + 1 pixels with the label at the centre, instead of from chips on which
        many pixels have a label.
    semi_supervised : bool
        Whether it also learns from land without labels, in batches that hold some of it.
    least : int
        The smallest K it can be made for.
    slab : int
        Of a network of single pixels: pixels in one forward pass of a prediction. What lies between the layers then fits a
        core's cache.
    """

    name: ClassVar[str]
    temporal: ClassVar[bool] = False
    fixed_dates: ClassVar[bool] = True
    centred: ClassVar[bool] = False
    semi_supervised: ClassVar[bool] = False
    least: ClassVar[int] = 1
    slab: ClassVar[int] = 8192
    Settings: ClassVar[type[NetworkSettings]]

    def __init__(self, settings: NetworkSettings, *, bands: int, dates: int, classes: int) -> None:
        super().__init__()
        for what, value, least in (("bands", bands, 1), ("dates", dates, 1), ("classes", classes, self.least)):
            if value < least:
                raise ModelError(f"the network '{self.name}' needs at least {least} {what}, got {value}")
        if not isinstance(settings, self.Settings):
            raise TypeError(f"expected {self.Settings.__qualname__}, got {type(settings).__qualname__}")
        self.settings: NetworkSettings = settings
        self.bands = bands
        self.dates = dates
        self.classes = classes

    @property
    @abstractmethod
    def radius(self) -> int:
        """Receptive radius in pixels: the largest over all phases of the stride."""

    @property
    @abstractmethod
    def stride(self) -> int:
        """Origins and sizes of tiles must be multiples of this; 1 where there is no pooling."""

    @property
    def halo(self) -> int:
        """Context in pixels to be read around what is kept: the radius, rounded up to a multiple of the stride."""
        return -(-self.radius // self.stride) * self.stride

    @property
    @abstractmethod
    def chip(self) -> int:
        """Default side of a training sample in pixels; 1 for a pixel network."""

    @property
    def outputs(self) -> int:
        """How many numbers a forward pass gives for each pixel: K."""
        return self.classes

    @property
    def pixelwise(self) -> bool:
        """Whether no pixel sees another."""
        return self.radius == 0 and self.stride == 1

    @property
    def gradient_slab(self) -> int:
        """Of a network of single pixels: pixels in one pass forward and backward."""
        return self.slab

    @property
    def components(self) -> int:
        """Principal components of the bands that `project` must give it before it is trained; 0 where it takes none."""
        return 0

    def project(self, covariance: Tensor) -> None:  # noqa: ARG002 - for those that override it
        """Fit the components to the covariance (C, C) of normalised bands over the training fold."""
        raise TypeError(f"the network '{self.name}' takes no components")

    def centre(self, cube: Tensor, valid: Tensor, time: Tensor) -> Tensor:
        """Return the scores (B, K) of the centres of patches (B, T, C, S, S), with S odd; see `forward`.

        A network that can do so without scoring all other pixels of the patch does it better.
        """
        scores: Tensor = self(cube, valid, time)
        return scores[:, :, cube.shape[3] // 2, cube.shape[4] // 2]

    @abstractmethod
    def forward(self, cube: Tensor, valid: Tensor, time: Tensor) -> Tensor:
        """Return the scores of every pixel.

        Parameters
        ----------
        cube : Tensor
            Normalised values; (B, T, C, H, W) float32. Those that are not valid change nothing, NaN included.
        valid : Tensor
            (B, T, H, W) bool.
        time : Tensor
            Days since the first day of the period; (B, T) float32.

        Returns
        -------
        Tensor
            Scores (logits) per class; (B, K, H, W) float32.
        """

    def check(self, cube: Tensor) -> None:
        """Refuse a cube of the wrong shape, with the shape that was expected.

        Raises
        ------
        ValueError
            If axes are missing, dates or bands do not agree, or height or width is no multiple of the stride.
        """
        dates = self.dates if self.fixed_dates else "T"
        expected = f"(B, {dates}, {self.bands}, H, W) with H and W multiples of {self.stride}"
        fits = cube.ndim == 5 and cube.shape[1] > 0 and cube.shape[2] == self.bands
        fits = fits and (cube.shape[1] == self.dates or not self.fixed_dates)
        if not fits or cube.shape[3] % self.stride or cube.shape[4] % self.stride:
            raise ValueError(f"the network '{self.name}' expects a cube {expected}, got {tuple(cube.shape)}")


class PixelNetwork(Network):
    """A network that looks at one pixel at a time: height and width are folded into the batch."""

    @property
    def radius(self) -> int:
        """No neighbour is looked at."""
        return 0

    @property
    def stride(self) -> int:
        """Any size will do."""
        return 1

    @property
    def chip(self) -> int:
        """Single pixels."""
        return 1

    @abstractmethod
    def pixels(self, series: Tensor, valid: Tensor, time: Tensor) -> Tensor:
        """Return scores (N, K) of pixels (N, T, C), zero where not valid, valid (N, T) bool, time (N, T)."""

    def forward(self, cube: Tensor, valid: Tensor, time: Tensor) -> Tensor:
        """Fold height and width into the batch, score the pixels, and unfold."""
        self.check(cube)
        b, t, c, h, w = cube.shape
        series = cube.permute(0, 3, 4, 1, 2).reshape(b * h * w, t, c)
        flags = valid.permute(0, 2, 3, 1).reshape(b * h * w, t)
        if not all_valid(valid):
            series = series.masked_fill(~flags[..., None], 0.0)
        # The pixels of a tile share their dates. Of a single tile this stays one row, which is encoded once (`per_tile`).
        days = time[:, None].expand(b, h * w, t).reshape(b * h * w, t)
        return self.pixels(series, flags, days).reshape(b, h, w, self.classes).permute(0, 3, 1, 2)


class EncodingNetwork(Network):
    """A network that learns without labels to give back what it is shown, through a narrow code.

    Made for no classes (K = 0), a forward pass gives (B, T * C + E, H, W): the reconstruction, dates before bands as in the
    cube, then the embedding. Made for classes, it has a head on the embedding in place of the decoder, and gives scores as
    any network does; its encoder has the same parameters by the same names, which all start with ``encoder.``.

    Attributes
    ----------
    features : int
        E, the size of the embedding.
    """

    least: ClassVar[int] = 0

    @property
    @abstractmethod
    def features(self) -> int:
        """Size of the embedding, E."""

    @property
    def outputs(self) -> int:
        """Numbers per pixel: K, or T * C + E where there are no classes."""
        return self.classes or self.dates * self.bands + self.features

    def split(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return reconstruction (B, T, C, H, W) and embedding (B, E, H, W) of what `forward` gave for no classes."""
        values = self.dates * self.bands
        b, _, h, w = outputs.shape
        return outputs[:, :values].reshape(b, self.dates, self.bands, h, w), outputs[:, values:]


def all_valid(valid: Tensor) -> bool:
    """Return whether no date is masked, so that a copy may be saved; nobody knows on a tile without data, or while compiling."""
    return not valid.is_meta and not torch.compiler.is_compiling() and bool(valid.all())


def masked(cube: Tensor, valid: Tensor) -> Tensor:
    """Return a cube (B, T, C, H, W) with zeros where not valid: neither values nor gradients pass, NaN included."""
    return cube if all_valid(valid) else cube.masked_fill(~valid[:, :, None], 0.0)

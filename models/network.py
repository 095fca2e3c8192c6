"""The contract of a network, and the table of networks by name."""

from __future__ import annotations

import difflib
import importlib
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

# By name: the module and the class. Modules are imported when a network is asked for.
NETWORKS: dict[str, str] = {
    "mlp": "models.networks.mlp:MLP",
    "unet": "models.networks.unet:UNet",
}


class ModelError(ValueError):
    """A network, its settings or a bundle is not what was asked for; the message is a complete sentence."""


class NetworkSettings(BaseModel):
    """Base of a network's own settings: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Network(nn.Module, ABC):
    """A map from a tile of the cube to scores per class on the same pixels.

    Parameters
    ----------
    settings : NetworkSettings
        The network's own settings.
    bands, dates, classes : int
        Sizes of the cube's band and time axes, and of the legend.

    Notes
    -----
    Nothing in a forward pass may depend on the tile as a whole: the score of a pixel is a function of the pixels at most
    `halo` away, on a lattice that repeats every `stride` pixels. Tiled prediction is exact because of that.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[NetworkSettings]]
    chip: ClassVar[int]
    """Side of a training chip in pixels; 1 for a network that looks at one pixel at a time."""

    def __init__(self, settings: NetworkSettings, *, bands: int, dates: int, classes: int) -> None:
        super().__init__()
        self.settings = settings
        self.bands, self.dates, self.classes = bands, dates, classes

    @property
    @abstractmethod
    def halo(self) -> int:
        """Context in pixels around each output pixel; a multiple of the stride."""

    @property
    @abstractmethod
    def stride(self) -> int:
        """Origins and sizes of tiles must be multiples of this."""

    @abstractmethod
    def forward(self, cube: Tensor, valid: Tensor, time: Tensor) -> Tensor:
        """Score a batch of tiles.

        Parameters
        ----------
        cube : (B, T, C, H, W) float32
            Normalised values, zero where invalid.
        valid : (B, T, H, W) bool
            Where a date has a value.
        time : (B, T) float32
            Days since the cube's first date.

        Returns
        -------
        (B, K, H, W) float32
            Scores (logits) per class.
        """

    def check(self, cube: Tensor) -> None:
        """Raise `ModelError` if a tile has other axes than the network was built for."""
        expected = (self.dates, self.bands)
        if cube.ndim != 5 or tuple(cube.shape[1:3]) != expected:
            raise ModelError(
                f"{self.name}: expected a cube (B, T={self.dates}, C={self.bands}, H, W), got {tuple(cube.shape)}"
            )
        if cube.shape[3] % self.stride or cube.shape[4] % self.stride:
            raise ModelError(
                f"{self.name}: height and width must be multiples of the stride {self.stride}, got "
                f"{cube.shape[3]} x {cube.shape[4]}"
            )


def network_class(name: str) -> type[Network]:
    """Return the class of a network by its name.

    Raises
    ------
    ModelError
        If there is none of that name; names the nearest.
    """
    if name not in NETWORKS:
        close = difflib.get_close_matches(name.lower(), NETWORKS, n=1, cutoff=0.5)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise ModelError(f"there is no network '{name}'{hint} There are: {', '.join(NETWORKS)}")
    module, _, attribute = NETWORKS[name].partition(":")
    found: type[Network] = getattr(importlib.import_module(module), attribute)
    return found


def build(
    name: str, settings: dict[str, Any] | NetworkSettings, *, bands: int, dates: int, classes: int
) -> Network:
    """Return a new network with random weights.

    Raises
    ------
    ModelError
        If there is none of that name.
    pydantic.ValidationError
        If its settings are wrong.
    """
    kind = network_class(name)
    own = settings if isinstance(settings, NetworkSettings) else kind.Settings(**settings)
    return kind(own, bands=bands, dates=dates, classes=classes)


def flop_per_pixel(network: Network) -> float:
    """Return the floating-point operations of a forward pass per pixel, as PyTorch counts them."""
    side = max(network.stride * 4, 32)
    side -= side % network.stride
    cube, valid, time = example(network, side)
    training = network.training
    network.eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(cube, valid, time)
    network.train(training)
    return float(counter.get_total_flops()) / side**2


def example(network: Network, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a tile of zeros of the shape that a network takes: cube, valid, time."""
    return (
        torch.zeros(1, network.dates, network.bands, side, side),
        torch.ones(1, network.dates, side, side, dtype=torch.bool),
        torch.zeros(1, network.dates),
    )

"""What networks share: activations and normalisations by name."""

from __future__ import annotations

from typing import Literal

from torch import nn

from models.network import ModelError

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "tanh", "sigmoid"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}

# These take their mean from the whole tile, so that a pixel's score would depend on how the map was cut.
_OVER_SPACE = ("instance", "group", "layer")


def activation(name: str) -> nn.Module:
    """Return a new activation by name."""
    return _ACTIVATIONS[name]()


def normalisation(name: str, channels: int, dimensions: int) -> nn.Module:
    """Return a new normalisation by name, for (N, C) if ``dimensions`` is 1, for (N, C, H, W) if it is 2."""
    if name == "none":
        return nn.Identity()
    return nn.BatchNorm2d(channels) if dimensions == 2 else nn.BatchNorm1d(channels)


def tileable(name: str) -> str:
    """Return a normalisation's name if a map made with it can be tiled.

    Raises
    ------
    ModelError
        For normalisations over space, by name and with the reason.
    """
    if name in _OVER_SPACE:
        raise ModelError(
            f"'{name}' normalisation takes its mean from the whole tile, so a map would depend on how it was cut; "
            "use 'batch' (its mean is fixed after training) or 'none'"
        )
    if name not in ("batch", "none"):
        raise ModelError(f"there is no normalisation '{name}'; there are: batch, none")
    return name

"""What networks share: activations and normalisations by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field
from torch import nn

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh"]

# In place where the library allows it: a layer's input is not needed again, and memory traffic is what costs.
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.01, inplace=True),
    "elu": lambda: nn.ELU(inplace=True),
    "gelu": nn.GELU,
    "silu": lambda: nn.SiLU(inplace=True),
    "tanh": nn.Tanh,
}

_UNTILEABLE = {
    "instance": "instance normalisation takes its mean and variance over the whole tile",
    "group": "group normalisation takes its mean and variance over the whole tile",
    "layer": "layer normalisation over space takes its mean and variance over the whole tile",
    "squeeze_excite": "squeeze-and-excite pools over the whole tile",
}


def _tileable(value: object) -> object:
    if isinstance(value, str) and value in _UNTILEABLE:
        raise ValueError(
            f"{_UNTILEABLE[value]}, so a map would depend on how it was cut into blocks: found '{value}', "
            f"allowed are {', '.join(get_args(_Normalisation))}"
        )
    return value


_Normalisation = Literal["batch", "none"]
Normalisation = Annotated[_Normalisation, BeforeValidator(_tileable)]
Dropout = Annotated[float, Field(ge=0.0, lt=1.0)]


def activation(name: Activation) -> nn.Module:
    """Return a new activation layer by name."""
    return _ACTIVATIONS[name]()

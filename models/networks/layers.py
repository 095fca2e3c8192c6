"""What networks share: activations and normalisations by name, encodings of dates, sums over valid dates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from models.network import all_valid

_YEAR = 365.0  # days
_TAU = 1000.0  # days, over 2 pi: the longest wavelength of the encoding of a day

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "sigmoid", "tanh", "maxout"]

# In place where the library allows it: a layer's input is not needed again, and memory traffic is what costs.
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.01, inplace=True),
    "elu": lambda: nn.ELU(inplace=True),
    "gelu": nn.GELU,
    "silu": lambda: nn.SiLU(inplace=True),
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "maxout": lambda: Maxout(),
}
_PIECES = 2  # linear pieces of a maxout unit

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
Pool = Literal["max", "mean", "last", "attention"]


class Maxout(nn.Module):
    """The larger of two linear maps, per unit (Goodfellow et al. 2013): the first half of the channels against the second."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, F, ...) of (N, 2 F, ...)."""
        first, second = x.chunk(_PIECES, dim=1)
        return torch.maximum(first, second)


def activation(name: Activation) -> nn.Module:
    """Return a new activation layer by name; what goes into it has `expanded` channels."""
    return _ACTIVATIONS[name]()


def expanded(width: int, name: Activation) -> int:
    """Return how many channels a layer must make, so that ``width`` are left behind its activation."""
    return _PIECES * width if name == "maxout" else width


def convolved(
    kind: type[nn.Conv2d] | type[nn.Conv3d],
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, ...],
    *,
    normalisation: Normalisation,
    follows: Activation | None,
    **place: Any,
) -> list[nn.Module]:
    """Return a convolution, its normalisation and its activation, which leaves ``outputs`` channels.

    ``place`` is the convolution's stride, padding and dilation. In a `Sequential` the normalisation is folded for prediction.
    """
    made = expanded(outputs, follows) if follows else outputs
    layers: list[nn.Module] = [kind(inputs, made, kernel, bias=normalisation == "none", **place)]  # type: ignore[arg-type]
    if normalisation == "batch":
        layers.append(nn.BatchNorm3d(made) if kind is nn.Conv3d else nn.BatchNorm2d(made))
    return [*layers, activation(follows)] if follows else layers


def masked_softmax(logits: Tensor, valid: Tensor, dim: int) -> Tensor:
    """Return the softmax over the valid places alone; the others, and all where none is valid, weigh zero."""
    # The least number instead of minus infinity: where nothing is valid, that would be NaN, and so would the gradient.
    weights = logits.masked_fill(~valid, torch.finfo(logits.dtype).min).softmax(dim)
    return weights.masked_fill(~valid, 0.0)


def year_cycle(time: Tensor) -> Tensor:
    """Return where in the year days (...) lie, on a circle: sine and cosine, (..., 2)."""
    angle = time * (2 * math.pi / _YEAR)
    return torch.stack([angle.sin(), angle.cos()], dim=-1)


def day_encoding(time: Tensor, width: int) -> Tensor:
    """Return the sinusoidal encoding of days (...), (..., width).

    After Vaswani et al. (2017), of the day in place of the position, and with the longest wavelength that Garnot and
    Landrieu (2020) use for seasons: sines, then cosines, of day / 1000^(i / half) with i from 0 to half the width.
    """
    half = -(-width // 2)
    rates = _TAU ** (-torch.arange(half, device=time.device, dtype=time.dtype) / half)
    angle = time[..., None] * rates
    return torch.cat([angle.sin(), angle.cos()], dim=-1)[..., :width]


def per_tile(encode: Callable[[Tensor], Tensor], time: Tensor) -> Tensor:
    """Return the encoding (N, T, E) of the dates (N, T) of pixels; it is made once where all share one expanded row."""
    if time.stride(0) == 0:
        return encode(time[:1]).expand(time.shape[0], -1, -1)
    return encode(time)


class Pooling(nn.Module):
    """Make one vector (N, F) of the states (N, T, F) at the valid dates of a pixel; zero where there is none.

    Parameters
    ----------
    kind : str
        ``max``, ``mean``, ``last``, or ``attention``: a weighted mean whose weights are learnt (Yang et al. 2016).
    features : int
        F.
    """

    def __init__(self, kind: Pool, features: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "attention":
            self.weigh = nn.Sequential(nn.Linear(features, features), nn.Tanh(), nn.Linear(features, 1, bias=False))

    def forward(self, states: Tensor, valid: Tensor) -> Tensor:
        """Return (N, F); ``valid`` is (N, T) bool."""
        flags = valid[..., None]  # (N, T, 1)
        if self.kind == "max":
            if all_valid(valid):
                return states.amax(1)
            # Where nothing is valid, the least number would go on as a state.
            best = states.masked_fill(~flags, torch.finfo(states.dtype).min).amax(1)
            return best.masked_fill(~valid.any(1, keepdim=True), 0.0)
        if self.kind == "attention":
            return (masked_softmax(self.weigh(states), flags, 1) * states).sum(1)
        if self.kind == "mean":
            return states.masked_fill(~flags, 0.0).sum(1) / flags.sum(1).clamp(min=1)
        last = (flags * torch.arange(valid.shape[1], device=valid.device)[:, None]).amax(1, keepdim=True)  # (N, 1, 1)
        found = states.gather(1, last.expand(-1, -1, states.shape[2]))[:, 0]
        return found.masked_fill(~valid.any(1, keepdim=True), 0.0)

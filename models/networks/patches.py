"""Layers that classify a patch, and score every pixel of a tile exactly as they would its patch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PoolKind = Literal["max", "average", "l2"]

# Under the root of the L2 norm, whose slope at zero is without end; far below what float32 holds beside any other value.
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Window:
    """A layer that looks at ``kernel`` x ``kernel`` values at each step of ``stride``, and never beyond the border."""

    name: str
    kernel: int
    stride: int

    def leaves(self, side: int) -> int:
        """Return the side of what it makes of ``side`` values, at least its kernel."""
        return (side - self.kernel) // self.stride + 1

    def reads(self, side: int) -> int:
        """Return the side of what it reads to make ``side`` values."""
        return (side - 1) * self.stride + self.kernel


def reads(windows: Sequence[Window], side: int) -> int:
    """Return the side of the input that layers read, one after another, to make ``side`` values."""
    return reduce(lambda behind, window: window.reads(behind), reversed(windows), side)


def left(windows: Sequence[Window], side: int) -> int:
    """Return the side of what layers leave of ``side`` values."""
    return reduce(lambda kept, window: window.leaves(kept), windows, side)


def odd(side: int) -> int:
    """Return the smallest odd side that holds ``side`` pixels: a patch has a pixel at its centre."""
    return side | 1


class PatchPool(nn.Module):
    """The largest, the mean, or the L2 norm (LeCun et al. 1998; Sermanet et al. 2012) of each square of values.

    Parameters
    ----------
    kind : str
        ``max``, ``average`` or ``l2``.
    size : int
        Side of the squares, and the step from one to the next.
    """

    def __init__(self, kind: PoolKind, size: int) -> None:
        super().__init__()
        self.kind = kind
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, F, H // size, W // size) of (N, F, H, W); what is left over at the far border is left out."""
        if self.kind == "max":
            return F.max_pool2d(x, self.size)
        if self.kind == "average":
            return F.avg_pool2d(x, self.size)
        # A power, not a square: in half precision on a GPU it is taken in float32, where the tiny number is not zero.
        return (F.avg_pool2d(x.pow(2), self.size) * self.size**2 + _TINY).sqrt()

    def dense(self, x: Tensor, step: int) -> Tensor:
        """Return the same at every pixel, of values that lie ``step`` pixels apart: (N, F, H - d, W - d), d = step (size - 1)."""
        if self.kind == "max":
            return _slide(x, self.size, step, torch.maximum)
        if self.kind == "average":
            return _slide(x, self.size, step, torch.add) / self.size**2
        return (_slide(x.pow(2), self.size, step, torch.add) + _TINY).sqrt()


def _slide(x: Tensor, size: int, step: int, join: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Join ``size`` values, ``step`` apart, along either axis: one axis after the other, it is the square in 2 size steps."""
    for axis in (2, 3):
        kept = x.shape[axis] - step * (size - 1)
        x = reduce(join, [x.narrow(axis, i * step, kept) for i in range(size)])
    return x


class PatchLayers(nn.Sequential):
    """Convolutions, pooling and what acts on single values, in two ways with the same weights.

    Called, it is the plain strided pass over a patch. `dense` gives what that pass would give for the patch around every
    pixel: a stride is never taken; the layers behind it look at values so much further apart instead (Long et al. 2015;
    Sermanet et al. 2014). All are computed once where patches overlap, and the result is the same but for rounding.

    Convolutions have no padding, and a fully connected layer is a convolution over all that is left. Any
    other layer must act on single values or whole channels (batch normalisation, activations, dropout).
    """

    def dense(self, x: Tensor) -> Tensor:
        """Return (N, F, H - r, W - r) of (N, C, H, W), where r + 1 is the side of what the layers read."""
        step = 1
        for layer in self:
            if isinstance(layer, nn.Conv2d):
                x = F.conv2d(x.to(layer.weight.dtype), layer.weight, layer.bias, dilation=step)
                step *= layer.stride[0]
            elif isinstance(layer, PatchPool):
                x = layer.dense(x, step)
                step *= layer.size
            else:
                x = layer(x)
        return x

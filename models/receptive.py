"""Receptive fields by interval arithmetic: which inputs an output pixel can see, layer by layer, from the end back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """The pixels from ``low`` to ``high`` along one axis, both included, at the resolution of one layer."""

    low: int
    high: int

    def conv(self, kernel: int, times: int = 1, *, dilation: int = 1) -> Span:
        """Return what ``times`` convolutions of an odd ``kernel``, one after another, read to make these pixels."""
        reach = times * dilation * (kernel // 2)
        return Span(self.low - reach, self.high + reach)

    def pool(self, factor: int = 2) -> Span:
        """Return the fine pixels that pooling by ``factor`` reads to make these coarse ones."""
        return Span(self.low * factor, self.high * factor + factor - 1)

    def upsample(self, factor: int = 2) -> Span:
        """Return the coarse pixels that nearest-neighbour upsampling reads to make these fine ones."""
        return Span(self.low // factor, self.high // factor)

    def join(self, other: Span) -> Span:
        """Return the smallest span that holds both."""
        return Span(min(self.low, other.low), max(self.high, other.high))


def receptive_radius(reads: Callable[[Span], Span], stride: int) -> int:
    """Return how far the furthest input lies that an output pixel reads, over all phases of the stride.

    Pooling makes the receptive field lopsided, and differently so for each position on the pooling grid; so one
    figure from adding up kernels is not enough.

    Parameters
    ----------
    reads : callable
        Maps a span of outputs to the span of inputs that is read to make it.
    stride : int
        Number of phases.
    """
    radius = 0
    for phase in range(stride):
        span = reads(Span(phase, phase))
        radius = max(radius, phase - span.low, span.high - phase)
    return radius

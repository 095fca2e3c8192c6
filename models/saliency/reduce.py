"""From the attribution of every input value to a layer."""

from __future__ import annotations

from torch import Tensor


def reduce(attribution: Tensor, per: str, *, signed: bool = False) -> Tensor:
    """Reduce an attribution (B, T, C, H, W) to a layer.

    Parameters
    ----------
    attribution : Tensor
        As the methods return it; an axis that a method knows nothing of has length 1.
    per : str
        ``pixel``: the largest absolute value over bands and dates, (B, H, W). ``band``: the sum over dates, (B, C, H, W).
        ``date``: the sum over bands, (B, T, H, W).
    signed : bool
        Keep signs: the value of largest size as it is, and sums of values. Else sizes, and sums of sizes.
    """
    values = attribution if signed else attribution.abs()
    if per == "pixel":
        flat = values.flatten(1, 2)
        return flat.gather(1, flat.abs().argmax(1, keepdim=True))[:, 0] if signed else flat.amax(1)
    if per == "band":
        return values.sum(1)
    if per == "date":
        return values.sum(2)
    raise ValueError(f"per must be pixel, band or date, got {per!r}")


def dominant(layer: Tensor) -> Tensor:
    """Return which of n bands or dates counts most at each pixel, (B, H, W) int64 from 1; 0 where none counts at all.

    Parameters
    ----------
    layer : Tensor
        (B, n, H, W), as `reduce` returns it; sizes count.
    """
    most, which = layer.abs().max(1)
    return (which + 1).masked_fill(most == 0, 0)

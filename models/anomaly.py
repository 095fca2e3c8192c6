"""How far a reconstruction is off."""

from __future__ import annotations

import torch
from torch import Tensor

from models.network import EncodingNetwork


def reconstruction_error(network: EncodingNetwork, outputs: Tensor, cube: Tensor, valid: Tensor) -> Tensor:
    """Return how far the reconstruction of each pixel is off: the anomaly of a place.

    Parameters
    ----------
    network : EncodingNetwork
        Made for no classes.
    outputs : Tensor
        What its forward pass gave; (B, T * C + E, H, W).
    cube, valid : Tensor
        What went in; (B, T, C, H, W) float32, (B, T, H, W) bool.

    Returns
    -------
    Tensor
        Root of the mean of squared errors over the valid dates and all bands, in standard deviations of the bands; NaN where
        no date is valid. (B, H, W) float32.
    """
    reconstruction, _ = network.split(outputs)
    squares = (reconstruction - cube).square().masked_fill(~valid[:, :, None], 0.0).sum((1, 2))
    # No valid date: zero over zero.
    return torch.sqrt(squares / (valid.sum(1) * cube.shape[2]))

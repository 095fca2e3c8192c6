"""What a network costs: parameters, and operations for each pixel."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.network import Network


def parameters(network: nn.Module) -> int:
    """Return the number of trainable values."""
    return sum(p.numel() for p in network.parameters())


def blank_tile(network: Network, side: int, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Return a zero cube, valid and time of one square tile, as `Network.forward` takes them."""
    cube = torch.zeros(1, network.dates, network.bands, side, side, device=device)
    valid = torch.ones(1, network.dates, side, side, dtype=torch.bool, device=device)
    return cube, valid, torch.zeros(1, network.dates, device=device)


def counting_side(network: Network) -> int:
    """Return the side of a tile on which costs are counted: so large that what a network adds around it is little."""
    return -(-128 // network.stride) * network.stride


def flop_per_pixel(network: Network) -> float:
    """Return floating point operations of a forward pass per pixel, counted on a tile without any data."""
    shadow = copy.deepcopy(network).to("meta").eval()
    side = counting_side(network)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shadow(*blank_tile(shadow, side, "meta"))
    return float(counter.get_total_flops()) / side**2

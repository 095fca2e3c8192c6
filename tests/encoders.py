"""Networks that learn without labels, small, and a scene for them."""

from __future__ import annotations

import torch

PIXEL = [("autoencoder", {"code": 2}), ("vae", {"code": 2, "activation": "maxout"})]
LAND = [
    ("autoencoder", {"looks_at": "land", "width": 2}),
    ("autoencoder", {"looks_at": "land", "width": 1, "depth": 2, "normalisation": "none", "activation": "silu"}),
    ("vae", {"looks_at": "land", "width": 1, "depth": 3}),
]


def scene(network, side=None, seed=0, share=0.7):
    g = torch.Generator().manual_seed(seed)
    side = side or 4 * network.stride
    cube = torch.randn(2, network.dates, network.bands, side, side, generator=g)
    valid = torch.rand(2, network.dates, side, side, generator=g) < share
    return cube, valid, (torch.arange(network.dates) * 16.0).expand(2, -1)

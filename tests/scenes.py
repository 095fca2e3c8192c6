"""Small scenes for networks, and small networks that learn without labels."""

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


def irregular(network, side=4, dates=None, seed=0, share=0.6):
    """Two tiles of irregular dates; the first pixel has no valid date, the second one, the third the last one alone."""
    g = torch.Generator().manual_seed(seed)
    t = dates or network.dates
    side *= network.stride
    cube = torch.randn(2, t, network.bands, side, side, generator=g)
    valid = torch.rand(2, t, side, side, generator=g) < share
    valid[:, :, 0, :3] = False
    valid[:, 0, 0, 1] = valid[:, -1, 0, 2] = True
    time = (torch.rand(2, t, generator=g) * 30 + 1).cumsum(1)
    return cube, valid, time

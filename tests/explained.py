"""Made-up scenes and their attributions, whole and tile by tile, for tests of explanations."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import get_args

import torch
from torch.nn import functional as F

from models.network import Network, NetworkSettings, PixelNetwork, masked
from models.saliency.methods import Explainer
from models.saliency.target import WINNER
from models.settings import Method, SaliencySettings
from pipeline.samples.legend import Legend, LegendClass

LEGEND = Legend(
    tuple(
        LegendClass(name=name, code=code, color=f"#00{code:02x}00", values=(name,))
        for name, code in (("water", 3), ("forest", 1), ("field", 7))
    )
)

METHODS = get_args(Method)


def explainer(method, *, bands=2, target=WINNER, baseline=None, **settings):
    """Return a method that knows ``bands``."""
    return Explainer(
        method=method, settings=SaliencySettings(**settings), target=target, baseline=tuple(baseline or [0.0] * bands)
    )


def scene(network, h, w, seed=0, share=0.9):
    """Return cube, valid and time of a scene at the origin of the grid."""
    g = torch.Generator().manual_seed(seed)
    valid = torch.rand(1, network.dates, h, w, generator=g) < share
    cube = torch.randn(1, network.dates, network.bands, h, w, generator=g) * valid[:, :, None]
    return cube, valid, torch.arange(network.dates, dtype=torch.float32)[None] * 16


def everywhere(cube):
    """Return that all pixels count."""
    return torch.ones(cube.shape[0], *cube.shape[3:], dtype=torch.bool)


def on_tile(method, network, cube, valid, time, y, x, size, reach=None):
    """Return the attribution of the core (y, x, size), read with ``reach`` pixels around; outside the scene all is invalid.

    What counts are the scores of all pixels that see something, but for the outermost halo.
    """
    reach = method.reach(network) if reach is None else reach
    h, w = cube.shape[-2:]
    sides = [reach - x, x + size + reach - w, reach - y, y + size + reach - h]  # a negative side is cut off
    values, flags = F.pad(cube, sides), F.pad(valid, sides)
    where = torch.zeros(1, *values.shape[-2:], dtype=torch.bool)
    inner = slice(network.halo, values.shape[-1] - network.halo)
    where[:, inner, inner] = flags.any(1)[:, inner, inner]
    found, _ = method(network, values, flags, time, where, [(y - reach, x - reach)])
    return found[..., reach : reach + size, reach : reach + size]


def tiled(method, network, tile, size, reach=None):
    """Return the attribution of a scene, put together from tiles of ``size``."""
    h, w = tile[0].shape[-2:]
    rows = [
        torch.cat([on_tile(method, network, *tile, y, x, size, reach) for x in range(0, w, size)], -1)
        for y in range(0, h, size)
    ]
    return torch.cat(rows, -2)[..., :h, :w]


def whole(method, network, tile):
    """Return the attribution of a scene as one tile."""
    h, w = tile[0].shape[-2:]
    side = -(-max(h, w) // network.stride) * network.stride
    return on_tile(method, network, *tile, 0, 0, side)[..., :h, :w]


class Sums(PixelNetwork):
    """Scores that are sums of a function of each value by itself: what each contributes is known."""

    name = "sums"
    Settings = NetworkSettings

    def __init__(self, *, bands, dates, classes):
        super().__init__(NetworkSettings(), bands=bands, dates=dates, classes=classes)
        g = torch.Generator().manual_seed(7)
        self.weight = torch.randn(classes, dates, bands, generator=g)

    def parts(self, values):
        """Return what values (..., T, C) contribute to each class, (..., K, T, C)."""
        return self.weight * (values.tanh() + 0.3 * values.square())[..., None, :, :]

    def pixels(self, series, valid, time):
        return self.parts(series).sum((-2, -1))


class Kernel(Network):
    """Scores that are a known convolution of a function of each value by itself."""

    name = "kernel"
    Settings = NetworkSettings
    radius = 1
    stride = 1
    chip = 8

    def __init__(self, *, bands, dates, classes):
        super().__init__(NetworkSettings(), bands=bands, dates=dates, classes=classes)
        g = torch.Generator().manual_seed(8)
        self.weight = torch.randn(classes, dates, bands, 3, 3, generator=g)

    @staticmethod
    def seen(values):
        """Return the function of each value."""
        return values.tanh() + 0.3 * values.square()

    def forward(self, cube, valid, time):
        self.check(cube)
        return F.conv2d(self.seen(masked(cube, valid)).flatten(1, 2), self.weight.flatten(1, 2), padding=1)


def texts(picture: str) -> list[str]:
    """Return what is written in a picture; refuses SVG that is not well-formed."""
    return [e.text or "" for e in ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]

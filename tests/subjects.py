"""Networks of known answers, places to explain, and methods of explanation that are wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from models.inference import prepare
from models.saliency.methods import Explainer
from models.saliency.target import Target
from models.settings import SaliencySettings
from models.table import build
from workflows.subject import Subject
from workflows.windows import Windows, window_side

VALUE = Target("output", 0, None)


class Edges(Explainer):
    """A method that knows no network: what it says is the input."""

    def __call__(self, network, cube, valid, time, where, origins):  # type: ignore[no-untyped-def]
        return cube * where[:, None, None], super().__call__(network, cube, valid, time, where, origins)[1]


class Backwards(Explainer):
    """A method that names what counts least."""

    def __call__(self, network, cube, valid, time, where, origins):  # type: ignore[no-untyped-def]
        found, scores = super().__call__(network, cube, valid, time, where, origins)
        return -found, scores


def windows(network: Any, n: int = 8, *, seen: float = 0.8, seed: int = 0) -> Windows:
    g = torch.Generator().manual_seed(seed)
    side = window_side(network)
    valid = torch.rand(n, network.dates, side, side, generator=g) < seen
    cube = torch.randn(n, network.dates, network.bands, side, side, generator=g) * valid[:, :, None]
    own = torch.zeros(n, side, side, dtype=torch.bool)
    own[torch.arange(n), network.halo + torch.arange(n) % network.stride, network.halo] = True
    time = torch.arange(network.dates, dtype=torch.float32).expand(n, -1) * 16
    return Windows(cube, valid, time, own, tuple((64 * i, 0) for i in range(n)), np.zeros(n))


def subject(
    network: Any,
    places: Windows,
    method: Any = "gradient",
    *,
    kind: Any = Explainer,
    target: Any = None,
    **settings: Any,
) -> Subject:
    own = SaliencySettings(**settings)
    baseline = (0.0,) * network.bands
    explainer = kind(method=method, settings=own, target=target or Target(), baseline=baseline)
    return Subject.of(prepare(network), places, explainer)


def linear(weights: list[float], *, classes: int = 1, **sizes: int) -> Any:
    """Return a network whose first output is a weighted sum of the input; any other is nothing."""
    network = build("mlp", {"hidden": []}, bands=len(weights), dates=1, classes=classes, **sizes)
    with torch.no_grad():
        network.layers[0].weight.zero_()[0] = torch.tensor(weights)
        network.layers[0].bias.zero_()
    return network.eval()

"""A trained network at places, and the numbers there that are explained, held fixed: what checks of explanations work on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from models.inference import centre_scores, scores
from models.saliency.target import Held, Target

if TYPE_CHECKING:
    from models.network import Network
    from models.saliency.methods import Explainer
    from models.settings import Method
    from workflows.windows import Windows

Array = np.ndarray[Any, Any]

# Pixels of windows in one pass: what lies between the layers of a wide network then fits a laptop.
_PIXELS = 1 << 15


@dataclass(frozen=True, eq=False)
class Subject:
    """A network, places, and what of its outputs is explained there, own pixel by own pixel.

    Attributes
    ----------
    network : Network
        As `models.inference.prepare` returns it.
    windows : Windows
        The places.
    explainer : Explainer
        Its method is the one that is checked.
    counts : Tensor
        What each output counts at each place, (N, K), as the trained network had it.
    """

    network: Network
    windows: Windows
    explainer: Explainer
    counts: Tensor

    @classmethod
    def of(cls, network: Network, windows: Windows, explainer: Explainer) -> Subject:
        """Return the subject of the trained network."""
        found = _own_scores(network, windows, windows.cube)
        return cls(network, windows, explainer, explainer.target.weights(found[..., None, None])[..., 0, 0])

    def by(self, method: Method) -> Subject:
        """Return the same with another method."""
        return dataclasses.replace(self, explainer=dataclasses.replace(self.explainer, method=method))

    def at(self, some: slice) -> Subject:
        """Return the same at some of the places."""
        return dataclasses.replace(self, windows=self.windows.at(some), counts=self.counts[some])

    def on(self, network: Network) -> Subject:
        """Return the same question to another network."""
        return dataclasses.replace(self, network=network)

    @property
    def target(self) -> Target:
        """What is explained."""
        return self.explainer.target

    @property
    def baseline(self) -> Tensor:
        """What bands hold that are taken away, (C, 1, 1)."""
        return torch.tensor(self.explainer.baseline, device=self.windows.cube.device)[:, None, None]

    def attribution(self) -> Tensor:
        """Return the attribution (N, T, C, S, S) of each own pixel; T or C is 1 where the method does not tell them apart."""
        return torch.cat([part for _, part in self.attributions()])

    def attributions(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield the attribution of some places after others."""
        for some in _batches(self.windows):
            w = self.windows.at(some)
            target = Held(kind="output", temperature=self.target.temperature, counts=self.counts[some])
            ask = dataclasses.replace(self.explainer, target=target)
            yield some, ask(self.network, w.cube, w.valid, w.time, w.own, w.origins)[0]

    def scores(self, cube: Tensor) -> Array:
        """Return the score that is explained of each place, (N,) float64, with other values in its window."""
        return self._counted(cube, lambda found: found)

    def amounts(self, cube: Tensor) -> Array:
        """Return the same as a calibrated probability where the outputs are classes."""
        return self._counted(cube, self.target.amounts)

    def _counted(self, cube: Tensor, measure: Callable[[Tensor], Tensor]) -> Array:
        found = measure(_own_scores(self.network, self.windows, cube).double())
        return np.asarray((self.counts * found).sum(1).cpu().numpy())


def _batches(windows: Windows) -> Iterator[slice]:
    step = max(1, _PIXELS // windows.own[0].numel())
    return (slice(i, i + step) for i in range(0, len(windows), step))


def _own_scores(network: Network, windows: Windows, cube: Tensor) -> Tensor:
    """Return the scores (N, K) of the places themselves."""
    middle = windows.own.shape[-1] // 2
    centred = bool(windows.own[:, middle, middle].all())
    found = []
    for some in _batches(windows):
        w = windows.at(some)
        if centred:
            found.append(centre_scores(network, cube[some], w.valid, w.time))
        else:
            found.append(scores(network, cube[some], w.valid, w.time).permute(0, 2, 3, 1)[w.own])
    return torch.cat(found)

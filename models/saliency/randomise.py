"""Layers drawn anew, from the scores to the inputs, to see what of an explanation hangs on what was learnt."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter

from models.cost import blank_tile
from models.network import Network

_N = TypeVar("_N", bound=Network)


class _Uses(TorchFunctionMode):
    """Notes the names of parameters in the order in which a forward pass first takes them."""

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__()
        self._names = names
        self.order: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # To look at a parameter's type or device is not to use it.
        if getattr(func, "__name__", "") != "__get__":
            for value in tree_iter((args, kwargs or {})):
                name = self._names.get(id(value))
                if name is not None and name not in self.order:
                    self.order.append(name)
        return func(*args, **(kwargs or {}))


def layers(network: Network, most: int) -> list[tuple[str, ...]]:
    """Return the names of the modules that hold weights, in the order in which a forward pass takes them, reversed.

    The order is that of the weights themselves, not that in which modules were registered, nor called: a recurrent layer hands
    its weights to the library, and attention those of its parts.

    Parameters
    ----------
    network : Network
        Not prepared: `models.inference.prepare` folds layers into each other.
    most : int
        Neighbours are put together where there are more layers than this.

    Returns
    -------
    list of tuple of str
        Layers, that of the scores first; a normalisation belongs to the layer before it. The last name of each is that of the
        layer nearest to the inputs.
    """
    own = copy.deepcopy(network).cpu().eval()
    uses = _Uses({id(p): name for name, p in own.named_parameters()})
    with torch.no_grad(), uses:
        own(*blank_tile(own, own.stride + 2 * own.halo))
    found: list[list[str]] = []
    for name in dict.fromkeys(name.rpartition(".")[0] for name in uses.order):
        if found and isinstance(own.get_submodule(name), _BatchNorm | nn.LayerNorm):
            found[-1].insert(0, name)
        else:
            found.append([name])
    found.reverse()
    parts = np.array_split(np.arange(len(found)), min(most, len(found)))
    return [tuple(name for i in part.tolist() for name in found[i]) for part in parts]


def anew(network: _N, seed: int) -> _N:
    """Return a network of the same form with other weights, drawn as at the start of a training; the global generator is left."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return type(network)(network.settings, bands=network.bands, dates=network.dates, classes=network.classes).eval()


def replace(network: Network, by: Network, names: Sequence[str]) -> None:
    """Put the weights of some modules of one network, and what their normalisation counted, in place of those of another."""
    with torch.no_grad():
        for name in names:
            mine, other = network.get_submodule(name), by.get_submodule(name)
            for kind in ("named_parameters", "named_buffers"):
                values = dict(getattr(other, kind)(recurse=False))
                for key, value in getattr(mine, kind)(recurse=False):
                    value.copy_(values[key])

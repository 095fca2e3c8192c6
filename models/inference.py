"""A trained network at work: made ready for speed, without changing what it says."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from models.network import Network, PixelNetwork, blank_tile

# A pixel network takes the pixels of a tile in pieces: its hidden layers would otherwise hold the whole tile.
_ROWS_OF = 64 * 1024


def prepare(network: Network) -> Network:
    """Return a copy for prediction: evaluation mode, batch norm folded into the layer before it, channels last.

    The folded network computes the same function; scores differ by float rounding only.
    """
    ready = copy.deepcopy(network).eval()
    for parameter in ready.parameters():
        parameter.requires_grad_(False)
    for module in list(ready.modules()):
        if isinstance(module, nn.Sequential):
            _fold(module)
    return cast(Network, ready.to(memory_format=torch.channels_last))


def _fold(layers: nn.Sequential) -> None:
    for i in range(len(layers) - 1):
        first, second = layers[i], layers[i + 1]
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            layers[i], layers[i + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
        elif isinstance(first, nn.Linear) and isinstance(second, nn.BatchNorm1d):
            layers[i], layers[i + 1] = fuse_linear_bn_eval(first, second), nn.Identity()


def scores(network: Network, cube: Tensor, valid: Tensor, time: Tensor) -> Tensor:
    """Return the scores (B, K, H, W) of tiles without recording a gradient.

    Parameters
    ----------
    network : Network
        Made ready by `prepare`.
    cube, valid, time
        As for `Network.forward`.
    """
    with torch.inference_mode():
        pieces = [network(cube[..., rows, :], valid[..., rows, :], time) for rows in slabs(network, cube)]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 2)


def slabs(network: Network, cube: Tensor) -> list[slice]:
    """Return the rows to be computed at once: all for a spatial network, some for one that looks at single pixels."""
    height, width = cube.shape[-2:]
    if not isinstance(network, PixelNetwork):
        return [slice(0, height)]
    step = max(1, _ROWS_OF // width)
    return [slice(i, min(i + step, height)) for i in range(0, height, step)]


def activation_bytes(network: Network, *, gradient: bool) -> float:
    """Return about how many bytes a forward pass holds per pixel of a tile; with its gradient, if asked for.

    Counted from the outputs of the network's layers on a small tile. A forward pass alone frees most of them on its way;
    the largest neighbours and what skip connections keep stay. With a gradient all of them stay.
    """
    side = max(32, 4 * network.stride)
    side -= side % network.stride
    sizes: list[int] = []

    def note(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        sizes.append(output.numel() * output.element_size())

    leaves = [m for m in network.modules() if not list(m.children()) and not isinstance(m, nn.Identity | nn.Dropout)]
    hooks = [leaf.register_forward_hook(note) for leaf in leaves]
    training = network.training
    network.eval()
    cube, valid, time = blank_tile(network, side)
    try:
        scores(network, cube, valid, time)
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    own = 3.0 * (cube.numel() * cube.element_size() + valid.numel()) + 2 * 4 * network.classes * side**2
    # Of a pixel network only a slab's layers are alive at once, whatever the tile.
    held = (2.0 if gradient else 0.5) * sum(sizes) if not isinstance(network, PixelNetwork) else 0.0
    return (held + own) / side**2

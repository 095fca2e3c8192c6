"""Scores as fast as the machine gives them, and what a pixel costs in memory."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from models.cost import counting_side
from models.network import Network

_N = TypeVar("_N", bound=Network)


class Scoring(Protocol):
    """What maps a tile to scores: a network, or another engine that stands for it (see `models.fast`)."""

    @property
    def pixelwise(self) -> bool:
        """Whether no pixel sees another."""

    @property
    def slab(self) -> int:
        """Pixels in one forward pass, where no pixel sees another."""

    @property
    def outputs(self) -> int:
        """K, numbers per pixel."""

    def __call__(self, cube: Tensor, valid: Tensor, time: Tensor) -> Tensor:
        """Return scores (B, K, H, W); see `Network.forward`."""


def prepare(network: _N) -> _N:
    """Return a copy for prediction: evaluation mode, batch normalisation folded, channels last, weights fixed.

    Folding rewrites the weights of a convolution so that it does the normalisation behind it as well; scores stay the
    same but for rounding.
    """
    ready = copy.deepcopy(network).eval()
    for module in ready.modules():
        if isinstance(module, nn.Sequential):
            _fold(module)
    for weight in ready.parameters():
        # Channels-last convolutions make channels-last activations, so inputs need no conversion; there are none in 3-D.
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return ready.requires_grad_(False)


def _fold(layers: nn.Sequential) -> None:
    for i in range(len(layers) - 1):
        layer, following = layers[i], layers[i + 1]
        if (
            (isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d))
            or (isinstance(layer, nn.Conv1d) and isinstance(following, nn.BatchNorm1d))
            or (isinstance(layer, nn.Conv3d) and isinstance(following, nn.BatchNorm3d))
        ):
            layers[i], layers[i + 1] = fuse_conv_bn_eval(layer, following), nn.Identity()
        elif isinstance(layer, nn.Linear) and isinstance(following, nn.BatchNorm1d):
            layers[i], layers[i + 1] = fuse_linear_bn_eval(layer, following), nn.Identity()


def scores(network: Scoring, cube: Tensor, valid: Tensor, time: Tensor) -> Tensor:
    """Return the scores of a tile without keeping anything for a gradient.

    Parameters
    ----------
    network : Scoring
        A network as `prepare` returns it, or another engine.
    cube, valid, time : Tensor
        (B, T, C, H, W) float32, (B, T, H, W) bool, (B, T) float32.

    Returns
    -------
    Tensor
        (B, K, H, W) float32. Networks of single pixels are run in slabs, so memory between the layers stays flat.
    """
    with torch.inference_mode():
        if not network.pixelwise:
            return network(cube, valid, time)
        b, _, _, h, w = cube.shape
        result = torch.empty(b, network.outputs, 1, h * w, dtype=cube.dtype, device=cube.device)
        flat, flags = in_line(cube), in_line(valid)
        for part in slabs(cube, network.slab):
            result[..., part] = network(flat[..., part], flags[..., part], time)
        return result.reshape(b, network.outputs, h, w)


def centre_scores(network: Network, cube: Tensor, valid: Tensor, time: Tensor) -> Tensor:
    """Return the scores (B, K) of the centres of patches (B, T, C, S, S), with S odd; see `scores`."""
    if network.pixelwise:
        middle = cube.shape[-1] // 2
        centre = slice(middle, middle + 1)
        return scores(network, cube[..., centre, centre], valid[..., centre, centre], time)[:, :, 0, 0]
    with torch.inference_mode():
        return network.centre(cube, valid, time)


def in_line(x: Tensor) -> Tensor:
    """Return pixels (..., H, W) as one row, (..., 1, H * W): to a network of single pixels it is all the same."""
    return x.flatten(-2)[..., None, :]


def slabs(cube: Tensor, pixels: int) -> Iterator[slice]:
    """Yield slices of the pixels of a cube (B, T, C, H, W) `in_line` that hold no more than so many, over all B."""
    b, _, _, h, w = cube.shape
    step = max(1, pixels // b)
    return (slice(i, min(i + step, h * w)) for i in range(0, h * w, step))


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows how many bytes of tensors are alive, and the most there were at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._seen: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Else torch's compiler, which nobody asks for here, is loaded to be told so: two seconds.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self._follow(tensor.untyped_storage())
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._seen:
            return
        size = storage.nbytes()
        self._seen.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


def activation_bytes(network: Network, *, gradient: bool) -> float:
    """Return the most bytes alive at once per pixel that is read: the cube, what lies between the layers, the scores.

    Counted on a small tile with a gap, for tiles without one are spared copies. Weights are not in it.

    Parameters
    ----------
    network : Network
        Any network, prepared or not.
    gradient : bool
        Whether the gradient towards the cube is taken too: then every layer's output is kept for it.
    """
    if network.pixelwise:
        # What lies between the layers is bounded by the slab; cube, flags, scores and gradient are not.
        values = network.dates * network.bands
        return float(4 * (2 * values + network.outputs + (values if gradient else 0)) + 2 * network.dates)
    side = counting_side(network)
    return _live_bytes(network, side, side, gradient=gradient) / side**2


def slab_bytes(network: Network, *, gradient: bool) -> float:
    """Return the most bytes alive at once in the one slab that a network of single pixels is given at a time; see `slabs`."""
    if not network.pixelwise:
        return 0.0
    return _live_bytes(network, 1, network.gradient_slab if gradient else network.slab, gradient=gradient)


def _live_bytes(network: Network, height: int, width: int, *, gradient: bool) -> float:
    ready = prepare(network).cpu()
    cube = torch.zeros(1, ready.dates, ready.bands, height, width, requires_grad=gradient)
    valid = torch.ones(1, ready.dates, height, width, dtype=torch.bool)
    valid[..., 0, 0] = False
    time = torch.zeros(1, ready.dates)
    with _LiveBytes() as counter, torch.set_grad_enabled(gradient):
        found = ready(cube, valid, time)
        if gradient:
            torch.autograd.grad(found.sum(), cube)
    return float(counter.peak + cube.nbytes + valid.nbytes)

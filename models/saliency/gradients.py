"""Attribution by gradients: how much each input value moves the map around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from models.inference import in_line, scores, slabs
from models.network import Network
from models.saliency.noise import noise
from models.saliency.target import WINNER, Target

# From the scores of some pixels, and what is known of the same pixels beforehand, to what each score counts.
_Weigh = Callable[[Tensor, Tensor], Tensor]


def gradient(
    network: Network, cube: Tensor, valid: Tensor, time: Tensor, where: Tensor, target: Target = WINNER
) -> tuple[Tensor, Tensor]:
    """Return the gradient of the target towards the cube, and the scores.

    After Simonyan et al. (2014). With z_k(p) the score of class k at pixel p, and c(p) the winning class there, held
    fixed: d/dx of the sum over the pixels p of ``where`` of z_c(p)(p). Not absolute, not normalised: every reduction
    comes after the gradient is complete.

    Exact across tiles: read the core and two halos around it, let ``where`` be the core and one halo, keep the core. A
    value of the core moves scores up to one halo away, and these are right only where their own halo was read.

    Parameters
    ----------
    network : Network
        In evaluation mode, best as `models.inference.prepare` returns it.
    cube, valid, time : Tensor
        (B, T, C, H, W) float32, (B, T, H, W) bool, (B, T) float32.
    where : Tensor
        Pixels of the map whose scores count; (B, H, W) bool.
    target : Target
        What is explained.

    Returns
    -------
    tuple of Tensor
        Attribution (B, T, C, H, W) and scores (B, K, H, W), both without a graph.
    """
    return _gradient(network, cube, valid, time, where[:, None], lambda found, here: target.weights(found) * here)


def gradient_input(
    network: Network, cube: Tensor, valid: Tensor, time: Tensor, where: Tensor, target: Target = WINNER
) -> tuple[Tensor, Tensor]:
    """Return the gradient times the normalised input, and the scores; see `gradient`. After Shrikumar et al. (2016)."""
    attribution, found = gradient(network, cube, valid, time, where, target)
    return attribution.mul_(cube.masked_fill(~valid[:, :, None], 0.0)), found


def smoothgrad(
    network: Network,
    cube: Tensor,
    valid: Tensor,
    time: Tensor,
    where: Tensor,
    target: Target = WINNER,
    *,
    origins: Sequence[tuple[int, int]],
    samples: int,
    deviation: float,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Return the mean gradient of noisy copies, and the scores without noise; see `gradient`.

    After Smilkov et al. (2017). The classes that win are those without noise. Noise hangs on seed, copy and place, so that
    it is the same on every tile that holds the place.

    Parameters
    ----------
    origins : sequence of (int, int)
        Row and column on the map's grid of the upper left pixel of each tile; B of them.
    samples : int
        Number of copies.
    deviation : float
        Standard deviation of the noise; the cube is normalised, so in standard deviations of a band.
    seed : int
        Seed of the noise.
    """
    found = scores(network, cube, valid, time)
    weights = target.weights(found) * where[:, None]
    total = torch.zeros_like(cube)
    for copy in range(samples):
        moved = noise(cube.shape, origins, copy=copy, seed=seed).to(cube.device).mul_(deviation).add_(cube)
        total += _gradient(network, moved, valid, time, weights, _fixed)[0]
    return total.div_(samples), found


def integrated_gradients(
    network: Network,
    cube: Tensor,
    valid: Tensor,
    time: Tensor,
    where: Tensor,
    target: Target = WINNER,
    *,
    baseline: Tensor,
    steps: int,
) -> tuple[Tensor, Tensor]:
    """Return the gradient integrated from a baseline to the input, times their difference, and the scores; see `gradient`.

    After Sundararajan et al. (2017): summed over all inputs, it is what the target has more than at the baseline, but for
    the error of the integral, which is taken by Gauss and Legendre.

    Parameters
    ----------
    baseline : Tensor
        Normalised values of the bands; (C,) float32.
    steps : int
        Places at which the gradient is taken.
    """
    found = scores(network, cube, valid, time)
    weights = target.weights(found) * where[:, None]
    start = baseline.to(cube)[:, None, None]
    total = torch.zeros_like(cube)
    places, shares = np.polynomial.legendre.leggauss(steps)
    for place, share in zip((places + 1) / 2, shares / 2, strict=True):
        between = torch.lerp(start, cube, float(place))
        total.add_(_gradient(network, between, valid, time, weights, _fixed)[0], alpha=float(share))
    # Where nothing was seen the gradient is zero, whatever the cube holds there.
    return total.mul_((cube - start).masked_fill_(~valid[:, :, None], 0.0)), found


def _fixed(found: Tensor, weights: Tensor) -> Tensor:  # noqa: ARG001
    """Return weights that do not hang on the scores."""
    return weights


def _gradient(
    network: Network, cube: Tensor, valid: Tensor, time: Tensor, here: Tensor, weigh: _Weigh
) -> tuple[Tensor, Tensor]:
    """Return the gradient of the weighed sum of scores, and the scores; ``here`` (B, ..., H, W) is cut as they are."""
    if network.training:
        raise ValueError("saliency needs a network in evaluation mode: dropout would make it random")
    if not network.pixelwise:
        return _backward(network, cube, valid, time, here, weigh)
    b, _, _, h, w = cube.shape
    line, flags, known = in_line(cube), in_line(valid), in_line(here)
    attribution = torch.empty_like(line)
    found = torch.empty(b, network.outputs, 1, h * w, dtype=cube.dtype, device=cube.device)
    for part in slabs(cube, network.gradient_slab):
        attribution[..., part], found[..., part] = _backward(
            network, line[..., part], flags[..., part], time, known[..., part], weigh
        )
    return attribution.reshape(cube.shape), found.reshape(b, -1, h, w)


def _backward(
    network: Network, cube: Tensor, valid: Tensor, time: Tensor, here: Tensor, weigh: _Weigh
) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = cube.detach().requires_grad_()
        found = network(x, valid, time)
        # A sum, for torch loads sympy, a second of each process, to look at weights that are handed to `grad`.
        (attribution,) = torch.autograd.grad((found * weigh(found.detach(), here)).sum(), x)
    return attribution, found.detach()

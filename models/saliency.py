"""Attribution: how much each input value moves the map around it."""

from __future__ import annotations

import torch
from torch import Tensor

from models.inference import slabs
from models.network import Network


def gradient(network: Network, cube: Tensor, valid: Tensor, time: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of the winning scores towards the cube, and the scores.

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

    Returns
    -------
    tuple of Tensor
        Attribution (B, T, C, H, W) and scores (B, K, H, W), both without a graph.
    """
    if network.training:
        raise ValueError("saliency needs a network in evaluation mode: dropout would make it random")
    if not network.pixelwise:
        return _gradient(network, cube, valid, time, where)
    attribution = torch.empty_like(cube)
    b, _, _, h, w = cube.shape
    scores = torch.empty(b, network.outputs, h, w, dtype=cube.dtype, device=cube.device)
    for rows in slabs(network, cube):
        part = _gradient(network, cube[..., rows, :], valid[..., rows, :], time, where[:, rows])
        attribution[..., rows, :], scores[..., rows, :] = part
    return attribution, scores


def _gradient(network: Network, cube: Tensor, valid: Tensor, time: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = cube.detach().clone().requires_grad_()
        scores = network(x, valid, time)
        winner = scores.detach().argmax(1, keepdim=True)
        target = scores.gather(1, winner)[:, 0][where].sum()
        (attribution,) = torch.autograd.grad(target, x)
    return attribution, scores.detach()


def reduce(attribution: Tensor, per: str) -> Tensor:
    """Reduce an attribution (B, T, C, H, W) to a layer.

    Parameters
    ----------
    attribution : Tensor
        As `gradient` returns it.
    per : str
        ``pixel``: largest absolute value over bands and dates, (B, H, W). ``band``: sum of absolute values over dates,
        (B, C, H, W). ``date``: sum of absolute values over bands, (B, T, H, W).
    """
    size = attribution.abs()
    if per == "pixel":
        return size.amax((1, 2))
    if per == "band":
        return size.sum(1)
    if per == "date":
        return size.sum(2)
    raise ValueError(f"per must be pixel, band or date, got {per!r}")

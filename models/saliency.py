"""Attribution: how much each input value moves the map around it."""

from __future__ import annotations

import torch
from torch import Tensor

from models.inference import slabs
from models.network import Network


def gradient(
    network: Network, cube: Tensor, valid: Tensor, time: Tensor, where: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradient of the winning scores, summed over the map, at every input value.

    G = d/dx of the sum over p of z_c(p)(p), with c(p) the winning class at p, held fixed (Simonyan et al. 2014).

    Parameters
    ----------
    network : Network
        Made ready by `models.inference.prepare`.
    cube, valid, time
        As for `Network.forward`; the cube is normalised.
    where : (B, H, W) bool
        The pixels p of the map that count. For a result that is exact on a core, read core + 2 halo and let core + halo
        count: scores there are right, and no score further away moves with an input of the core.

    Returns
    -------
    attribution : (B, T, C, H, W) float32
        G with its sign; zero where invalid, for such values never reach the network.
    scores : (B, K, H, W) float32
        The scores of the same forward pass, without gradient.
    """
    parts, found = [], []
    for rows in slabs(network, cube):
        x = cube[..., rows, :].detach().requires_grad_(True)
        z = network(x, valid[..., rows, :], time)
        winner = z.detach().argmax(1, keepdim=True)
        target = (z.gather(1, winner)[:, 0] * where[..., rows, :]).sum()
        (g,) = torch.autograd.grad(target, x)
        parts.append(g * valid[..., rows, :].unsqueeze(2))
        found.append(z.detach())
    if len(parts) == 1:
        return parts[0], found[0]
    return torch.cat(parts, -2), torch.cat(found, -2)


def reduce(attribution: Tensor, per: str) -> Tensor:
    """Return a layer from a complete attribution (B, T, C, H, W): absolute values first, then the reduction.

    ``pixel``: the largest over bands and dates, (B, H, W), as in Simonyan et al. 2014. ``band``: summed over dates,
    (B, C, H, W). ``date``: summed over bands, (B, T, H, W).
    """
    size = attribution.abs()
    if per == "pixel":
        return size.amax((1, 2))
    return size.sum(1) if per == "band" else size.sum(2)

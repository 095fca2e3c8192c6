"""Networks asked tile by tile, patch by patch and pixel by pixel: what they reach, and what they give."""

from __future__ import annotations


def tiled_scores(network, cube, valid, time, size):  # type: ignore[no-untyped-def]
    """Score a scene tile by tile: read each core with the halo around it, keep the core, and glue."""
    import torch

    b, _, _, h, w = cube.shape
    halo = network.halo
    result = torch.full((b, network.outputs, h, w), torch.nan)
    for y in range(0, h, size):
        for x in range(0, w, size):
            tile = padded_window(cube, valid, y - halo, x - halo, size + 2 * halo)
            with torch.no_grad():
                found = network(*tile, time)[..., halo : halo + size, halo : halo + size]
            part = result[..., y : y + size, x : x + size]
            part[:] = found[..., : part.shape[-2], : part.shape[-1]]
    return result


def padded_window(cube, valid, y, x, size):  # type: ignore[no-untyped-def]
    """Read a square window pixel by pixel; outside the scene everything is zero and invalid."""
    import torch

    _, _, _, h, w = cube.shape
    values = torch.zeros(*cube.shape[:3], size, size)
    flags = torch.zeros(*valid.shape[:2], size, size, dtype=torch.bool)
    for i in range(max(0, -y), min(size, h - y)):
        for j in range(max(0, -x), min(size, w - x)):
            values[..., i, j] = cube[..., y + i, x + j]
            flags[..., i, j] = valid[..., y + i, x + j]
    return values, flags


def seen_from(network, phase_y, phase_x, side):  # type: ignore[no-untyped-def]
    """Return the outputs (side, side) that one input pixel reaches: NaN put there comes out wherever it is read."""
    import torch

    cube = torch.rand(1, network.dates, network.bands, side, side)
    y, x = side // 2 + phase_y, side // 2 + phase_x
    cube[..., y, x] = torch.nan
    valid = torch.ones(1, network.dates, side, side, dtype=torch.bool)
    with torch.no_grad():
        scores = network(cube, valid, torch.zeros(1, network.dates))
    return scores[0].isnan().any(0), y, x


def gradient_support(network, y, x, side, draws=8):  # type: ignore[no-untyped-def]
    """Return the inputs (side, side) that move the scores of output pixel (y, x), found by autograd.

    Weights are made positive, so nothing cancels; maxima pass the gradient to one input only, so several draws are united.
    """
    import copy

    import torch

    positive = copy.deepcopy(network).eval()
    with torch.no_grad():
        for p in positive.parameters():
            p.copy_(p.abs() + 0.01)
    support = torch.zeros(side, side, dtype=torch.bool)
    for _ in range(draws):
        cube = torch.rand(1, network.dates, network.bands, side, side, requires_grad=True)
        valid = torch.ones(1, network.dates, side, side, dtype=torch.bool)
        scores = positive(cube, valid, torch.zeros(1, network.dates))
        (found,) = torch.autograd.grad(scores[0, :, y, x].sum(), cube)
        support |= (found != 0).any(2).any(1)[0]
    return support


def every_patch(network, cube, valid, time):  # type: ignore[no-untyped-def]
    """Score every pixel of a scene by the patch around it, each by itself; beyond the scene is zero and invalid."""
    import torch

    h, w = cube.shape[-2:]
    reach = network.halo
    found = torch.empty(len(cube), network.classes, h, w)
    with torch.no_grad():
        for y in range(h):
            for x in range(w):
                patch = padded_window(cube, valid, y - reach, x - reach, 2 * reach + 1)
                found[:, :, y, x] = network.centre(*patch, time)
    return found

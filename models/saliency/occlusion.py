"""Attribution by occlusion: how far the target falls when a band, a date or a patch is taken away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.inference import scores
from models.network import Network
from models.saliency.target import WINNER, Target


def occlusion_band(
    network: Network,
    cube: Tensor,
    valid: Tensor,
    time: Tensor,
    where: Tensor,
    target: Target = WINNER,
    *,
    baseline: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return how far the target of each pixel falls when a band is replaced on all dates, and the scores.

    After Zeiler and Fergus (2014). The target is measured as probability (`Target.amounts`), of the classes that win when
    nothing is replaced. A band is replaced everywhere at once, so what is said of a pixel is about this very pixel, context
    and all; one halo is enough for it.

    Parameters
    ----------
    network, cube, valid, time, where, target
        As `models.saliency.gradients.gradient` takes them.
    baseline : Tensor
        Normalised values that bands hold when they are taken away; (C,) float32.

    Returns
    -------
    tuple of Tensor
        Attribution (B, 1, C, H, W), zero outside ``where``, and scores (B, K, H, W).
    """
    found, falls = _falls(network, cube, valid, time, where, target, 2, baseline)
    return falls[:, None], found


def occlusion_date(
    network: Network,
    cube: Tensor,
    valid: Tensor,
    time: Tensor,
    where: Tensor,
    target: Target = WINNER,
    *,
    baseline: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return how far the target of each pixel falls when all bands of a date are replaced, and the scores.

    As `occlusion_band`; the attribution is (B, T, 1, H, W).
    """
    found, falls = _falls(network, cube, valid, time, where, target, 1, baseline)
    return falls[:, :, None], found


def _falls(
    network: Network,
    cube: Tensor,
    valid: Tensor,
    time: Tensor,
    where: Tensor,
    target: Target,
    axis: int,
    baseline: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return scores, and the fall (B, n, H, W) with each of the n places on an axis of the cube replaced."""
    found = scores(network, cube, valid, time)
    weights = target.weights(found) * where[:, None]
    before = (weights * target.amounts(found)).sum(1)
    blank = baseline.to(cube)[:, None, None].expand_as(cube)
    changed = cube.clone()
    falls = torch.empty(before.shape[0], cube.shape[axis], *before.shape[1:], dtype=before.dtype, device=cube.device)
    for i in range(cube.shape[axis]):
        changed.select(axis, i).copy_(blank.select(axis, i))
        falls[:, i] = before - (weights * target.amounts(scores(network, changed, valid, time))).sum(1)
        changed.select(axis, i).copy_(cube.select(axis, i))
    return found, falls


def spacing(network: Network, patch: int, step: int) -> int:
    """Return how far apart patches must be so that no pixel of the map sees two of them: a multiple of ``step``."""
    return -(-(patch + 2 * network.radius) // step) * step


def occlusion_patch(
    network: Network,
    cube: Tensor,
    valid: Tensor,
    time: Tensor,
    where: Tensor,
    target: Target = WINNER,
    *,
    baseline: Tensor,
    origins: Sequence[tuple[int, int]],
    patch: int,
    step: int,
) -> tuple[Tensor, Tensor]:
    """Return how far the target falls around it when a patch is replaced, as the mean of the patches over a pixel.

    After Zeiler and Fergus (2014); see `occlusion_band` for what falls. The fall is summed over all pixels of ``where`` that
    see the patch. Patches begin at multiples of ``step`` on the map's grid, whatever the tile. Those of one pass are so far
    apart that no pixel sees two of them, so a pass tests as many patches as fit the tile.

    Exact across tiles: read the core, two halos and a patch less one pixel around it; let ``where`` be all but the outermost
    halo; keep the core.

    Parameters
    ----------
    origins : sequence of (int, int)
        Row and column on the map's grid of the upper left pixel of each tile; B of them.
    patch, step : int
        Side of a patch and distance to the next, in pixels; ``step <= patch``.

    Returns
    -------
    tuple of Tensor
        Attribution (B, 1, 1, H, W) and scores (B, K, H, W).
    """
    found = scores(network, cube, valid, time)
    weights = target.weights(found) * where[:, None]
    before = (weights * target.amounts(found)).sum(1)
    blank = baseline.to(cube)[:, None, None]

    def falls_without(taken: Tensor) -> Tensor:
        changed = torch.where(taken[:, None, None], blank, cube)
        return before - (weights * target.amounts(scores(network, changed, valid, time))).sum(1)

    # Where no pixel sees another, all patches can be taken away at once.
    alone = falls_without(torch.ones_like(where)) if network.pixelwise else None
    apart, radius = spacing(network, patch, step), network.radius
    down, along = (
        [
            _Line.of([o[i] for o in origins], where.shape[1 + i], first, apart, patch, radius, cube.device)
            for first in range(0, apart, step)
        ]
        for i in (0, 1)
    )
    total = torch.zeros(where.shape, dtype=torch.float64, device=cube.device)
    for rows in down:
        for across in along:
            taken = rows.covered[:, :, None] & across.covered[:, None]
            if not taken.any():
                continue
            sums = _sums(falls_without(taken) if alone is None else alone, rows, across)
            total.add_(sums.masked_fill_(~taken, 0.0))
    patches = _times(down)[:, :, None] * _times(along)[:, None]
    return total.div_(patches).to(before.dtype)[:, None, None], found


@dataclass(frozen=True, slots=True)
class _Line:
    """The patches of one pass along one axis of B tiles.

    Attributes
    ----------
    covered : Tensor
        Whether a patch lies on a pixel; (B, n) bool.
    low, high : Tensor
        First pixel that sees the patch that lies on a pixel or before it, and the one after the last, cut to the tile;
        (B, n) int64.
    """

    covered: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(
        cls, origins: Sequence[int], n: int, first: int, apart: int, side: int, radius: int, device: torch.device
    ) -> _Line:
        """Return the line of patches that begin at ``first`` and every ``apart`` pixels of the grid."""
        pixels = torch.arange(n, device=device)
        into = (torch.tensor(origins, device=device)[:, None] + pixels - first) % apart
        start = pixels - into
        return cls(into < side, (start - radius).clamp(0, n), (start + side + radius).clamp(0, n))


def _times(lines: Sequence[_Line]) -> Tensor:
    """Return how many patches lie on each pixel of an axis, (B, n) float64."""
    return torch.stack([line.covered for line in lines]).sum(0).double()


def _sums(falls: Tensor, rows: _Line, columns: _Line) -> Tensor:
    """Return at each pixel the sum of falls (B, H, W) over all pixels that see its patch; (B, H, W) float64."""
    table = torch.nn.functional.pad(falls.double().cumsum(1).cumsum(2), (1, 0, 1, 0))  # (B, H + 1, W + 1)
    down = [ends[:, :, None].expand(-1, -1, table.shape[2]) for ends in (rows.low, rows.high)]
    lines = table.gather(1, down[1]) - table.gather(1, down[0])  # (B, H, W + 1)
    across = [ends[:, None].expand(-1, lines.shape[1], -1) for ends in (columns.low, columns.high)]
    return lines.gather(2, across[1]) - lines.gather(2, across[0])

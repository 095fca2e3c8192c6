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
    falls = []
    for i in range(cube.shape[axis]):
        changed.select(axis, i).copy_(blank.select(axis, i))
        falls.append(before - (weights * target.amounts(scores(network, changed, valid, time))).sum(1))
        changed.select(axis, i).copy_(cube.select(axis, i))
    return found, torch.stack(falls, 1)


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
    apart, radius = spacing(network, patch, step), network.radius
    result = torch.empty_like(before)
    for i, (top, left) in enumerate(origins):
        one = slice(i, i + 1)
        height, width = before.shape[1:]
        total, count = torch.zeros(2, height, width, dtype=torch.float64, device=cube.device)
        columns = [_Line.of(left, width, first, apart, patch, radius) for first in range(0, apart, step)]
        for first in range(0, apart, step):
            rows = _Line.of(top, height, first, apart, patch, radius)
            for across in columns:
                taken = rows.covered[:, None] & across.covered
                if not taken.any():
                    continue
                taken = taken.to(cube.device)
                changed = torch.where(taken, blank, cube[one])
                after = (weights[one] * target.amounts(scores(network, changed, valid[one], time[one]))).sum(1)
                falls = _sums((before[one] - after)[0], rows, across)
                total += torch.where(taken, falls[rows.patch][:, across.patch], 0.0)
                count += taken
        result[i] = total / count
    return result[:, None, None], found


@dataclass(frozen=True, slots=True)
class _Line:
    """The patches of one pass along one axis of a tile.

    Attributes
    ----------
    covered : Tensor
        Whether a patch lies on a pixel; (n,) bool.
    patch : Tensor
        Which one, from 0; 0 as well where there is none; (n,) int64.
    low, high : Tensor
        First pixel that sees each patch, and the one after the last, cut to the tile; (patches,) int64.
    """

    covered: Tensor
    patch: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, origin: int, length: int, first: int, apart: int, side: int, radius: int) -> _Line:
        """Return the line of patches that begin at ``first`` and every ``apart`` pixels of the grid."""
        pixels = torch.arange(origin, origin + length)
        of = (pixels - first).div(apart, rounding_mode="floor")
        covered = pixels - first - of * apart < side
        start = first + torch.arange(int(of[0]), int(of[-1]) + 1) * apart - origin
        return cls(covered, of - of[0], (start - radius).clamp(0, length), (start + side + radius).clamp(0, length))


def _sums(falls: Tensor, rows: _Line, columns: _Line) -> Tensor:
    """Return the sums of (H, W) over the pixels that see each patch, (rows, columns) float64."""
    table = torch.zeros(falls.shape[0] + 1, falls.shape[1] + 1, dtype=torch.float64, device=falls.device)
    table[1:, 1:] = falls.double().cumsum(0).cumsum(1)
    lines = table[rows.high] - table[rows.low]
    return lines[:, columns.high] - lines[:, columns.low]

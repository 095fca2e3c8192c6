"""What a network says of the own pixel of windows, some of them at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from models.inference import centre_scores, scores

if TYPE_CHECKING:
    from torch import Tensor

    from models.network import Network
    from workflows.scoring import Scorer
    from workflows.windows import Windows

Array = np.ndarray[Any, Any]

# Values of the cube in one forward pass.
_VALUES = 4_000_000


def batches(windows: Windows) -> Iterator[slice]:
    """Yield slices of windows that are scored at once."""
    step = max(1, _VALUES // max(1, windows.cube[0].numel()))
    return (slice(i, i + step) for i in range(0, len(windows), step))


def own_scores(network: Network, cube: Tensor, valid: Tensor, time: Tensor, own: Tensor) -> Tensor:
    """Return the scores (B, K) of the own pixel of windows, as the map has them.

    Parameters
    ----------
    network : Network
        As `models.inference.prepare` returns it.
    cube, valid, time, own : Tensor
        As `workflows.windows.Windows` holds them.
    """
    middle = own.shape[-1] // 2
    if own.shape[-1] % 2 and bool(own[:, middle, middle].all()):
        # A network that learns from patches does so without scoring all pixels of them.
        return centre_scores(network, cube, valid, time)
    return scores(network, cube, valid, time).permute(0, 2, 3, 1)[own]


def answers(scorer: Scorer, outputs: Tensor) -> Array:
    """Return the class indices (N,) int64 that scores (N, K) stand for, or of a regression the numbers (N,) float64."""
    if scorer.product.bundle.classifies:
        return np.asarray(outputs.argmax(1).cpu().numpy())
    task = scorer.product.bundle.task
    return np.asarray(outputs[:, 0].double().cpu().numpy() * task["std"] + task["mean"])


def replaced(windows: Windows, some: slice, partner: Array, axis: str, i: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return cube, valid and time of some windows, one band or date of each taken from another window.

    A date is an observation: its values come with their validity and their day. A band alone comes without, for what is valid is
    a matter of the date: where the other window saw nothing it holds its mean over the training fold, zero, so that nothing of
    the own value is left; what was not valid in the window itself stays so.

    Parameters
    ----------
    windows : Windows
        All of them.
    some : slice
        Those that are asked for.
    partner : (N,) int
        Whose value each window gets.
    axis, i : str, int
        ``band`` or ``date``, and which.
    """
    cube, valid, time = windows.cube[some].clone(), windows.valid[some], windows.time[some]
    other = torch.as_tensor(partner[some], device=cube.device)
    if axis == "band":
        cube[:, :, i] = windows.cube[other, :, i].masked_fill(~windows.valid[other], 0.0)
        return cube, valid, time
    valid, time = valid.clone(), time.clone()
    cube[:, i], valid[:, i], time[:, i] = windows.cube[other, i], windows.valid[other, i], windows.time[other, i]
    return cube, valid, time

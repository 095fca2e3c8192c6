"""The number at each pixel that is explained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Target:
    """What is explained: a number at each pixel of the map, made from the scores there.

    Attributes
    ----------
    kind : {"winner", "margin", "output"}
        The winning class; the winning class minus the second; or one output, whatever wins.
    index : int
        Which output, of kind ``output``.
    temperature : float or None
        Scores divided by this become calibrated probabilities by softmax; None where outputs are no classes.
    """

    kind: Literal["winner", "margin", "output"] = "winner"
    index: int = 0
    temperature: float | None = 1.0

    def weights(self, scores: Tensor) -> Tensor:
        """Return what each output counts at each pixel, (B, K, H, W): the classes that win are then held fixed."""
        weights = torch.zeros_like(scores)
        if self.kind == "output":
            weights[:, self.index] = 1.0
            return weights
        first = scores.argmax(1, keepdim=True)
        weights.scatter_(1, first, 1.0)
        if self.kind == "margin":
            second = scores.scatter(1, first, -torch.inf).argmax(1, keepdim=True)
            weights.scatter_(1, second, -1.0)
        return weights

    def amounts(self, scores: Tensor) -> Tensor:
        """Return what a fall is measured in, (B, K, H, W): calibrated probabilities, or the outputs themselves."""
        return scores if self.temperature is None else torch.softmax(scores / self.temperature, 1)


WINNER = Target()
"""The winning class."""


@dataclass(frozen=True, slots=True)
class Held(Target):
    """What was explained once, whatever the scores are now: a changed network is asked about the classes that won before.

    Attributes
    ----------
    counts : Tensor
        What each output counts at the one pixel of each tile that is explained, (B, K).
    """

    counts: Tensor = field(kw_only=True)

    def weights(self, scores: Tensor) -> Tensor:
        """Return what each output counts, (B, K, H, W): the same at all pixels of a tile."""
        return self.counts[:, :, None, None].to(scores).expand_as(scores)

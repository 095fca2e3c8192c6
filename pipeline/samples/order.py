"""The order of batches: which samples each holds, and all its chance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Draw:
    """A batch to be made: what it holds and all its chance, so that it is the same whoever makes it, and when.

    Attributes
    ----------
    places : list of int
        Its samples, by their places in the fold.
    seed : int
        What its random changes are drawn from.
    counts : bool
        False of samples of another rank, which keep busy one that has none: every rank takes every step. Their labels do
        not count.
    """

    places: list[int]
    seed: int = 0
    counts: bool = True

    def generator(self) -> torch.Generator:
        """Return where its chance comes from."""
        return torch.Generator().manual_seed(self.seed)


def own_part(batch: Array, part: tuple[int, int], chance: np.random.SeedSequence | None = None) -> Draw:
    """Return the samples of a batch that are a rank's: each sample is one rank's, none is shown twice."""
    rank, size = part
    seed = 0 if chance is None else int(chance.generate_state(size, np.uint64)[rank])
    own = np.array_split(batch, size)[rank].tolist()
    return Draw(own or batch[:1].tolist(), seed, counts=bool(own))


class Order(Sampler[Draw]):
    """Batches to be made, a new order each epoch; they depend on seed and epoch only, so an epoch can be resumed.

    Parameters
    ----------
    n, size : int
        Samples, and how many make a batch.
    seed : int
        Of the order.
    weights : (n,) float or None
        The chance of each sample; None shows each once.
    split : int
        In how many batches, one after the other, each is divided: for devices that cannot hold it.
    part : tuple of int
        The rank whose part of each batch is wanted, and how many there are.
    skipped : int
        Batches that are left out of the first epoch that is asked for.
    """

    def __init__(
        self,
        n: int,
        size: int,
        seed: int,
        weights: Array | None,
        *,
        split: int = 1,
        part: tuple[int, int] = (0, 1),
        skipped: int = 0,
    ) -> None:
        self.n, self.size, self.seed, self.weights = n, size, seed, weights
        self.split, self.part, self.skipped = split, part, skipped
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Be told the epoch, by Lightning."""
        self.epoch = epoch

    @property
    def batches(self) -> int:
        """How many batches an epoch has, before they are divided."""
        return -(-self.n // self.size)

    def __len__(self) -> int:
        return self.batches * self.split

    def __iter__(self) -> Iterator[Draw]:
        # Nothing is drawn before the first batch is asked for: a resumed training says only then which epoch it is in.
        chance = np.random.SeedSequence((self.seed, self.epoch))
        rng = np.random.default_rng(chance)
        order = rng.permutation(self.n) if self.weights is None else rng.choice(self.n, self.n, p=self.weights)
        pieces = []
        # Batches of even size: a last one of a single chip would upset batch normalisation.
        for batch in np.array_split(order, self.batches):
            pieces += np.array_split(batch, self.split)
        skipped, self.skipped = self.skipped, 0
        seeds = chance.spawn(len(pieces))
        for piece, own in zip(pieces[skipped:], seeds[skipped:], strict=True):
            yield own_part(piece, self.part, own)


def balanced(counts: Array) -> Array:
    """Return the chance of each chip, (n,), by the rarity of the classes it holds, from counts (n, K)."""
    rarity = 1 / np.maximum(counts.sum(0), 1)
    weight = (counts * rarity).sum(1) / np.maximum(counts.sum(1), 1)
    return np.asarray(weight / weight.sum(), dtype=np.float64)

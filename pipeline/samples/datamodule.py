"""The chip store as a Lightning DataModule: batches, balanced sampling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.imagery.statistics import Statistics
from pipeline.samples.ahead import AheadLoader
from pipeline.samples.batches import Beside, Chips
from pipeline.samples.chips import ALL, ChipStore
from pipeline.samples.folds import TRAIN, VAL
from pipeline.samples.order import Order, balanced, own_part

Array = np.ndarray[Any, Any]

# No gradient is kept while validating: batches may be larger, and do not change the figures.
_VALIDATION = 4


class ChipDataModule(L.LightningDataModule):
    """Batches of one round of the folds.

    Each batch is a dict: ``cube`` (B, T, C, S, S) float32 normalised, ``valid`` (B, T, S, S) bool, ``time`` (B, T) float32,
    ``labels`` (B, S, S) int64 with -1 where not labelled.

    Parameters
    ----------
    path : Path
        The chip store.
    round_ : int or str
        The round; ``"all"`` trains on every label and has no validation fold.
    statistics : Statistics
        Of the round's training fold.
    batch_size : int
        Chips per batch.
    augment : sequence of str
        Random changes to what is trained on, see `pipeline.samples.augment`.
    sampling : str
        ``natural``, or ``balanced``: chips with rare classes are drawn more often.
    seed : int
        Seed of the order and of augmentation: a batch depends on seed, epoch and its number, and on nothing else.
    numeric : bool
        Whether batches also hold ``numbers`` (B, S, S) float32, which labels state; NaN where there is none.
    unlabelled : Path, optional
        A store of chips of the same size whose labels mean nothing: batches that train also hold ``unlabelled``, a batch of
        them, drawn at random. Where it is the store itself, its chips that train serve as both.
    """

    def __init__(
        self,
        path: Path,
        round_: int | str,
        statistics: Statistics,
        *,
        batch_size: int,
        augment: Sequence[str] = (),
        sampling: str = "natural",
        seed: int = 0,
        numeric: bool = False,
        unlabelled: Path | None = None,
    ) -> None:
        super().__init__()
        self.unlabelled = unlabelled
        self.numeric = numeric
        self.store = ChipStore.open(path)
        self.round_ = round_
        self.statistics = statistics
        self.batch_size = batch_size
        self.augment = tuple(augment)
        self.sampling = sampling
        self.seed = seed
        self.split = 1
        self._skipped = 0
        self._train: Chips | None = None
        self._land: Chips | None = None

    def begin_at(self, batch: int) -> None:
        """Leave out so many batches of the epoch with which training begins: it was interrupted there."""
        self._skipped = batch

    def divide(self, parts: int) -> bool:
        """Divide each batch in so many, one after the other; return whether each has so many samples."""
        samples = len(self.store.indices(self.round_, TRAIN))
        possible = parts <= samples // -(-samples // self.batch_size)
        if possible:
            self.split = parts
        return possible

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs: the samples it reads itself."""
        return self.__dict__ | {"_train": None, "_land": None, "trainer": None}

    @property
    def _part(self) -> tuple[int, int]:
        """Which part of each batch is this process's, of how many."""
        trainer: Any = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Return batches of the training fold, in a new order each epoch."""
        chips = self.store.indices(self.round_, TRAIN)
        weights = None
        if self.sampling == "balanced":
            weights = balanced(self.store.chip_counts(self.round_, TRAIN)[chips])
        order = Order(
            len(chips), self.batch_size, self.seed, weights, split=self.split, part=self._part, skipped=self._skipped
        )
        # Made once: it may hold its samples in memory, and training asks more than once.
        if self._train is None:
            self._train = Chips(self.store, self.round_, TRAIN, chips, self.statistics, self.augment, self.numeric)
        if self.unlabelled is None:
            return _loader(self._train, order)
        if self._land is None and self.unlabelled == self.store.path:
            self._land = self._train
        elif self._land is None:
            other = ChipStore.open(self.unlabelled)
            # Their folds are those of no label.
            land = other.indices(ALL, TRAIN)
            self._land = Chips(other, ALL, TRAIN, land, self.statistics, self.augment, False)
        return _loader(Beside(self._train, self._land), order)

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Return batches of the validation fold."""
        chips = self.store.indices(self.round_, VAL)
        size = self.batch_size * _VALIDATION
        order = [own_part(np.arange(i, min(i + size, len(chips))), self._part) for i in range(0, len(chips), size)]
        data = Chips(self.store, self.round_, VAL, chips, self.statistics, (), self.numeric)
        return _loader(data, order)


def _loader(data: Dataset[dict[str, Tensor]], order: Any) -> DataLoader[dict[str, Tensor]]:
    # A generator of its own: to begin an epoch draws from it, and must not change what the network draws.
    return AheadLoader(data, sampler=order, batch_size=None, generator=torch.Generator())

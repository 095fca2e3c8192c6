"""Batches made of a chip store: read, normalised and augmented."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.imagery.statistics import Statistics
from pipeline.samples.augment import augmented
from pipeline.samples.chips import ChipStore
from pipeline.samples.labels import IGNORE
from pipeline.samples.order import Draw

Array = np.ndarray[Any, Any]

# Bytes of a fold's chips that are kept in memory.
_HELD = 1 << 28
# Chips without labels beside a batch of labelled ones, at least: where labels are few, batches are small.
_LAND = 32


class Chips(Dataset[dict[str, Tensor]]):
    """Batches of chips by their places in a fold; a whole batch is normalised and augmented at once."""

    def __init__(
        self,
        store: ChipStore,
        round_: int | str,
        role: int,
        chips: Array,
        statistics: Statistics,
        augment: tuple[str, ...],
        numeric: bool,
    ) -> None:
        self.store, self.round_, self.role, self.chips = store, round_, role, chips
        self.statistics = statistics
        self.augment = augment
        self.time = torch.from_numpy(store.time[chips])
        # Samples of one pixel share chunks: read once, for reading each by itself would read every chunk thousands of times.
        # Of others a small fold is held too: training would wait a third of its time for thousands of small files.
        held = store.size == 1 or 4 * len(chips) * int(np.prod(store.values.shape[1:])) <= _HELD
        self.held: tuple[Array, Array] | None = store.read(chips) if held else None
        self.numbers = store.read_numbers(chips) if numeric and held else None
        self.numeric = numeric

    def __len__(self) -> int:
        return len(self.chips)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        return self.batch(draw.places, draw.generator(), counts=draw.counts)

    def batch(self, places: Any, generator: torch.Generator, *, counts: bool = True) -> dict[str, Tensor]:
        """Return some samples, by their places in the fold, changed at random; without labels if these do not count."""
        if self.held is not None:
            values, truth = self.held[0][places], self.held[1][places]
        else:
            values, truth = self.store.read(self.chips[places])
        valid = np.isfinite(values).all(2)
        cube = torch.from_numpy(self.statistics.normalise(values, valid))
        labels = torch.from_numpy(self.store.targets_of(truth, self.round_, self.role).astype(np.int64))
        if not counts:
            labels.fill_(IGNORE)
        batch = {
            "cube": cube,
            "valid": torch.from_numpy(valid),
            "time": self.time[places],
            "labels": labels,
        }
        if self.numeric:
            stated = self.store.read_numbers(self.chips[places]) if self.numbers is None else self.numbers[places]
            batch["numbers"] = torch.from_numpy(stated)
        return augmented(batch, self.augment, generator)


class Beside(Dataset[dict[str, Any]]):
    """Batches of labelled chips, each with a batch of chips without labels beside it."""

    def __init__(self, labelled: Chips, unlabelled: Chips) -> None:
        self.labelled, self.unlabelled = labelled, unlabelled

    def __len__(self) -> int:
        return len(self.labelled)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        chance = draw.generator()
        beside = torch.randint(len(self.unlabelled), (max(len(draw.places), _LAND),), generator=chance).numpy()
        return self.labelled.batch(draw.places, chance, counts=draw.counts) | {
            "unlabelled": self.unlabelled.batch(beside, chance)
        }

"""The chip store as a Lightning DataModule: batches, balanced sampling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pipeline.imagery.statistics import Statistics
from pipeline.samples.ahead import AheadLoader
from pipeline.samples.augment import augmented
from pipeline.samples.chips import ALL, ChipStore
from pipeline.samples.folds import TRAIN, VAL
from pipeline.samples.labels import IGNORE

Array = np.ndarray[Any, Any]

# No gradient is kept while validating: batches may be larger, and do not change the figures.
_VALIDATION = 4
# Bytes of a fold's chips that are kept in memory.
_HELD = 1 << 28
# Chips without labels beside a batch of labelled ones, at least: where labels are few, batches are small.
_LAND = 32


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
        self._train: _Chips | None = None
        self._land: _Chips | None = None

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
            weights = _balanced(self.store.chip_counts(self.round_, TRAIN)[chips])
        order = _Order(
            len(chips), self.batch_size, self.seed, weights, split=self.split, part=self._part, skipped=self._skipped
        )
        # Made once: it may hold its samples in memory, and training asks more than once.
        if self._train is None:
            self._train = _Chips(self.store, self.round_, TRAIN, chips, self.statistics, self.augment, self.numeric)
        if self.unlabelled is None:
            return _loader(self._train, order)
        if self._land is None and self.unlabelled == self.store.path:
            self._land = self._train
        elif self._land is None:
            other = ChipStore.open(self.unlabelled)
            # Their folds are those of no label.
            land = other.indices(ALL, TRAIN)
            self._land = _Chips(other, ALL, TRAIN, land, self.statistics, self.augment, False)
        return _loader(_Beside(self._train, self._land), order)

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Return batches of the validation fold."""
        chips = self.store.indices(self.round_, VAL)
        size = self.batch_size * _VALIDATION
        order = [_own(np.arange(i, min(i + size, len(chips))), self._part) for i in range(0, len(chips), size)]
        data = _Chips(self.store, self.round_, VAL, chips, self.statistics, (), self.numeric)
        return _loader(data, order)


def _loader(data: Dataset[dict[str, Tensor]], order: Any) -> DataLoader[dict[str, Tensor]]:
    # A generator of its own: to begin an epoch draws from it, and must not change what the network draws.
    return AheadLoader(data, sampler=order, batch_size=None, generator=torch.Generator())


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


def _own(batch: Array, part: tuple[int, int], chance: np.random.SeedSequence | None = None) -> Draw:
    """Return the samples of a batch that are a rank's: each sample is one rank's, none is shown twice."""
    rank, size = part
    seed = 0 if chance is None else int(chance.generate_state(size, np.uint64)[rank])
    own = np.array_split(batch, size)[rank].tolist()
    return Draw(own or batch[:1].tolist(), seed, counts=bool(own))


class _Order(Sampler[Draw]):
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
            yield _own(piece, self.part, own)


class _Chips(Dataset[dict[str, Tensor]]):
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


class _Beside(Dataset[dict[str, Any]]):
    """Batches of labelled chips, each with a batch of chips without labels beside it."""

    def __init__(self, labelled: _Chips, unlabelled: _Chips) -> None:
        self.labelled, self.unlabelled = labelled, unlabelled

    def __len__(self) -> int:
        return len(self.labelled)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        chance = draw.generator()
        beside = torch.randint(len(self.unlabelled), (max(len(draw.places), _LAND),), generator=chance).numpy()
        return self.labelled.batch(draw.places, chance, counts=draw.counts) | {
            "unlabelled": self.unlabelled.batch(beside, chance)
        }


def _balanced(counts: Array) -> Array:
    """Return the chance of each chip, (n,), by the rarity of the classes it holds, from counts (n, K)."""
    rarity = 1 / np.maximum(counts.sum(0), 1)
    weight = (counts * rarity).sum(1) / np.maximum(counts.sum(1), 1)
    return np.asarray(weight / weight.sum(), dtype=np.float64)

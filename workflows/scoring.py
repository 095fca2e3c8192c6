"""The bundle at work on a window: read, normalise, score. The one path from imagery to scores."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.bundle import Bundle
from models.fast import EXACT, Engine, ready
from models.inference import Scoring, prepare
from models.network import Network
from pipeline.imagery.statistics import Statistics
from workflows.products.product import Product, product_of

Array = np.ndarray[Any, Any]

# Only the forward pass holds an accelerator; reading and writing of other blocks go on beside it.
_DEVICE = threading.Lock()


@dataclass(frozen=True, slots=True)
class Scorer:
    """A trained network made ready for prediction, with what it needs beside its weights.

    Attributes
    ----------
    network : Network
        The exact path: what explains, and whatever is measured.
    engine : Scoring
        What maps: the network itself, or a fast path.
    """

    network: Network
    engine: Scoring
    statistics: Statistics
    product: Product
    device: torch.device

    def tensors(self, values: Array, valid: Array, time: Array) -> tuple[torch.Tensor, ...]:
        """Return normalised cube (B, T, C, H, W), valid (B, T, H, W) and time (B, T) on the device."""
        cube = torch.from_numpy(self.statistics.normalise(values, valid))
        return cube.to(self.device), torch.from_numpy(valid).to(self.device), torch.from_numpy(time).to(self.device)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the device.

        On a CPU every block computes on one thread of its own: blocks in parallel need no turns, and the result
        does not depend on how many threads a machine has.
        """
        if self.device.type == "cpu":
            torch.set_num_threads(1)
            yield
        else:
            with _DEVICE:
                yield


def device() -> torch.device:
    """Return the device to predict on: the accelerator if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def scorer_of(bundle: Bundle, engine: Engine = EXACT) -> Scorer:
    """Return the scorer of a bundle on this machine's device."""
    place = device()
    network = prepare(bundle.network).to(place)
    return Scorer(
        network=network,
        engine=ready(network, engine),
        statistics=Statistics(
            mean=np.asarray(bundle.mean, dtype=np.float32), std=np.asarray(bundle.std, dtype=np.float32)
        ),
        product=product_of(bundle),
        device=place,
    )


@functools.lru_cache(maxsize=4)
def _load(folder: str, checksum: str, engine: Engine) -> Scorer:
    bundle = Bundle.load(Path(folder))
    if bundle.checksum != checksum:
        raise RuntimeError(f"the bundle {folder} was changed while it was in use")
    return scorer_of(bundle, engine)


_LOADING = threading.Lock()


def load_scorer(folder: Path, checksum: str, engine: Engine = EXACT) -> Scorer:
    """Return the scorer of a bundle on disk; each process loads it once."""
    with _LOADING:
        return _load(str(folder), checksum, engine)

"""Chips cut from labels on a made-up cube, and what they should hold."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from oracles_samples import buffered_by_hand
from places import MadeUpCube, scattered

from pipeline.cluster import dask_client
from pipeline.grid import whole
from pipeline.samples.chips import ChipStore
from pipeline.samples.cutting import cut_chips
from pipeline.samples.folds import TEST, TRAIN, VAL, Folds, make_folds
from pipeline.samples.labels import IGNORE
from pipeline.samples.shapes import VectorLabels
from pipeline.settings import ComputeSettings, FoldSettings

if TYPE_CHECKING:
    from distributed import Client

DATES = (datetime.date(2020, 1, 1), datetime.date(2020, 1, 17))


@pytest.fixture(scope="module", name="client")
def running() -> Iterator[Client]:
    with dask_client(ComputeSettings(threads=2)) as found:
        yield found


@pytest.fixture(name="labels")
def squares(tmp_path: Path) -> VectorLabels:
    return scattered(tmp_path / "labels.gpkg", [12, 8, 6])


def cut(
    labels: VectorLabels,
    client: Client,
    path: Path,
    *,
    size: int,
    margin: int = 0,
    buffer: int = 0,
    cube: Any = None,
    most: int = 10**6,
    seed: int = 0,
    **folds: Any,
) -> tuple[ChipStore, Folds]:
    divided = make_folds(labels, FoldSettings.model_validate(folds), buffer)
    cube = cube or MadeUpCube(labels.geobox, dates=DATES)
    store = cut_chips(
        [cube],
        labels,
        divided,
        size=size,
        margin=margin,
        path=path / "chips.zarr",
        key="k",
        max_per_class=most,
        seed=seed,
        client=client,
    )
    return store, divided


def roles_by_hand(labels: VectorLabels, folds: Folds, round_: int) -> tuple[Any, Any]:
    """Return classes and buffered roles of the whole grid."""
    tile = labels.read(whole(labels.geobox))
    fold = folds.read(whole(labels.geobox), tile)
    role = np.where(tile.codes == IGNORE, 0, folds.rounds[round_].roles[fold, tile.codes])
    return tile.codes, buffered_by_hand(role, folds.buffer, TRAIN, VAL, TEST)


def mosaic(store: ChipStore, shape: tuple[int, int], round_: int | str, role: int) -> Any:
    """Put the targets of all chips on the grid."""
    size = store.size
    found = np.full((shape[0] + size, shape[1] + size), IGNORE)
    for i, (y, x) in enumerate(store.origins):
        found[y : y + size, x : x + size] = store.targets(i, round_, role)
    return found[: shape[0], : shape[1]]


def everything(store: ChipStore) -> dict[tuple[int, int], tuple[Any, ...]]:
    held = zip(store.origins.tolist(), store.values[:], store.truth[:], strict=True)
    return {(y, x): (values.tobytes(), truth.tobytes()) for (y, x), values, truth in held}

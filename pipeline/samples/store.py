"""Make a chip store: filled, checked, and whole or absent."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import zarr

from pipeline.errors import LabelError
from pipeline.imagery.dates import Period
from pipeline.samples.chips import ALL, ChipStore
from pipeline.samples.folds import Folds
from pipeline.samples.legend import Legend
from pipeline.samples.rounds import TEST, TRAIN, VAL
from pipeline.samples.truth import planes

# Samples of one pixel in a Zarr chunk.
_PIXELS = 4096


@contextlib.contextmanager
def new_store(
    path: Path,
    shape: tuple[int, int, int, int],
    *,
    margin: int = 0,
    standalone: bool = False,
    numeric: bool = False,
    together: int = 1,
    key: str,
    bands: Sequence[str],
    periods: Sequence[Period | None],
    legend: Legend,
    folds: Folds,
    table: list[dict[str, Any]],
    notes: list[str],
) -> Iterator[dict[str, Any]]:
    """Make a store, which is whole or absent; one that is there is replaced.

    Parameters
    ----------
    path : Path
        Where it will be.
    shape : (N, T, C, S)
        Chips, dates, bands, and the side of a chip in pixels.
    margin : int
        Pixels on each side of a chip that hold values and no labels.
    standalone : bool
        Whether the chips are cut from no imagery.
    numeric : bool
        Whether labels are numbers; ranges of them stand for the classes.
    together : int
        Chips in a Zarr chunk, those of single pixels excepted: tasks that write beside each other need a chunk each.
    key : str
        What the chips are made from.
    bands, periods, legend, folds
        Names of the C bands, when labels hold, the K classes, and the division of labels.
    table, notes
        A row per class, and sentences for the user.

    Yields
    ------
    dict
        The arrays by name, to be filled: values (N, T, C, S, S), truth (N, P, S, S), counts (N, R + 1, 4, K), origin (N, 2),
        period (N,) and time (N, T); and numbers (N, S, S) where labels are such.

    Raises
    ------
    LabelError
        If nothing can be learned from what was filled in, or nothing measured.
    """
    n, times, channels, size = shape
    rounds, classes = len(folds.rounds), len(legend.classes)
    chunk = _PIXELS if size == 1 else together
    shapes: dict[str, tuple[tuple[int, ...], str, int]] = {
        "values": ((n, times, channels, size, size), "float32", chunk),
        "truth": ((n, planes(rounds), size, size), "uint16", chunk),
        "counts": ((n, rounds + 1, 4, classes), "int32", _PIXELS),
        "origin": ((n, 2), "int32", _PIXELS),
        "period": ((n,), "int32", _PIXELS),
        "time": ((n, times), "float32", _PIXELS),
    }
    if numeric:
        shapes["numbers"] = ((n, size, size), "float32", chunk)
    temporary = path.with_name(f".{path.name}.tmp")
    if temporary.exists():
        shutil.rmtree(temporary)
    try:
        group = zarr.open_group(temporary, mode="w")
        yield {
            name: group.create_array(
                name,
                shape=full,
                dtype=dtype,
                chunks=(min(first, max(n, 1)), *full[1:]),
                # A training reads each chip once an epoch, and decoding would be what it waits for.
                compressors=None,
                # Chips are read by their files: one of zeros has one too.
                config={"write_empty_chunks": True},
            )
            for name, (full, dtype, first) in shapes.items()
        }
        group.attrs.update(
            {
                "key": key,
                "margin": margin,
                "standalone": standalone,
                "bands": list(bands),
                "periods": [None if p is None else [p.start.isoformat(), p.end.isoformat()] for p in periods],
                "legend": legend.to_json(),
                "folds": list(folds.names),
                "rounds": rounds,
                "buffer": folds.buffer,
                "table": table,
                "notes": notes,
            }
        )
        _check(ChipStore.open(temporary))
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    if path.exists():
        shutil.rmtree(path)
    temporary.rename(path)


def _check(store: ChipStore) -> None:
    """Refuse a store from which nothing can be learned, or nothing measured.

    Raises
    ------
    LabelError
        If a round has no label of a role, or a class none to learn from, on valid imagery.
    """
    for r in range(store.rounds):
        where = f" of round {r + 1}" if store.rounds > 1 else ""
        for role, name in ((TRAIN, "training"), (VAL, "validation"), (TEST, "test")):
            if not store.counts(r, role).any():
                raise LabelError(
                    f"the {name} fold{where} is empty: no label of it lies on valid imagery outside the buffer of "
                    f"{store.buffer} px; use other folds.fractions or folds.seed, a smaller folds.buffer, or a network with "
                    "a smaller halo"
                )
        seen, tested = store.counts(r, TRAIN), store.counts(r, TEST)
        # A class that lies in one fold alone is tested without having been learned: that was said, and is measured so.
        alone = store.rounds > 1 and bool((tested == store.counts(ALL, TRAIN))[seen == 0].all())
        missing = [c.name for c, n in zip(store.legend.classes, seen, strict=True) if not n]
        # Ranges of numbers are no classes: what is learnt from the others says something of each.
        if missing and not alone and not store.numeric:
            raise LabelError(
                f"no training labels on valid imagery for {', '.join(map(repr, missing))}{where}; add labels where the "
                "imagery has data, or leave the class out of `classes`"
            )

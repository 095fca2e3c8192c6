"""Cut chips: Dask tasks read each block of land once, rasterise its labels once, and write its chips."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from scipy.ndimage import maximum_filter

from pipeline.engine import run_tasks
from pipeline.errors import LabelError, ReadError, RunError
from pipeline.grid import Window
from pipeline.imagery.cube import Cube
from pipeline.samples.chips import ROUNDS_PER_PLANE, ChipStore, planes
from pipeline.samples.folds import NONE, TEST, TRAIN, VAL, Folds
from pipeline.samples.labels import IGNORE, Labels

if TYPE_CHECKING:
    from distributed import Client

Array = np.ndarray[Any, Any]

# Land that one task reads and rasterises at once, in pixels.
_LAND = 512
# Samples of one pixel in a Zarr chunk.
_PIXELS = 4096


@dataclass(frozen=True, slots=True)
class _Survey:
    """What a block of land holds, known from its labels alone."""

    origins: Array
    kept: Array
    plain: Array
    fold_counts: Array


@dataclass(frozen=True, slots=True)
class Cutter:
    """What all tasks of a cutting share.

    Attributes
    ----------
    exempt : (R, K) bool
        Classes that keep their training labels in a round though the buffer would take them all.
    quota : (F, K) float
        Share of labelled pixels kept, per fold and class; for samples of one pixel.
    """

    cube: Cube
    labels: Labels
    folds: Folds
    size: int
    seed: int
    exempt: Array
    quota: Array

    def survey(self, land: Window) -> _Survey:
        """Find the chips of a block of land, and count labels per round, role and class, before and after the buffer."""
        codes, fold, before, after = self.truth(land)
        classes = len(self.labels.legend.classes)
        labelled = codes != IGNORE
        plain = np.stack([_count(codes, r, classes) for r in before])
        kept = np.stack([_count(codes, r, classes) for r in after])
        counts = np.zeros((len(self.folds.names), classes), np.int64)
        np.add.at(counts, (fold[labelled], codes[labelled]), 1)
        y, x = np.nonzero(labelled)
        origins = np.unique(np.stack([y // self.size, x // self.size], 1), axis=0) * self.size
        return _Survey(origins + np.array((land.y, land.x)), kept, plain, counts)

    def truth(self, land: Window) -> tuple[Array, Array, list[Array], list[Array]]:
        """Return class indices and folds of a block of land, and its roles per round, before and after the buffer."""
        pad = self.folds.buffer
        padded = land.pad(pad)
        tile = self.labels.read(padded)
        fold = self.folds.read(padded, tile)
        codes = tile.codes
        codes[fold < 0] = IGNORE
        inner = (slice(pad, pad + land.height), slice(pad, pad + land.width))
        before, after = [], []
        for number, round_ in enumerate(self.folds.rounds):
            role = np.where(codes == IGNORE, np.int8(NONE), round_.roles[fold, codes])
            before.append(role[inner])
            after.append(_buffered(role, codes, pad, self.exempt[number])[inner])
        codes, fold = codes[inner].copy(), fold[inner].copy()
        if self.size == 1 and (self.quota < 1).any():
            labelled = codes != IGNORE
            y, x = np.nonzero(labelled)
            out = _uniform(y + land.y, x + land.x, self.seed) >= self.quota[fold[labelled], codes[labelled]]
            codes[y[out], x[out]] = IGNORE
            for roles in (*before, *after):
                roles[y[out], x[out]] = NONE
        return codes, fold, before, after

    def cut(self, land: Window, origins: Array) -> dict[str, Array]:
        """Return the chips of a block of land: values (N, T, C, S, S), truth (N, P, S, S), counts (N, R + 1, 4, K)."""
        codes, _, _, after = self.truth(land)
        tile = self.cube.read(land)
        good = tile.valid.any(0)
        codes[~good] = IGNORE
        stack = self._stack(codes, [np.where(good, r, NONE) for r in after])
        values = np.where(tile.valid[:, None], tile.values, np.float32(np.nan))
        classes, rounds, n, s = len(self.labels.legend.classes), len(self.folds.rounds), len(origins), self.size
        made = {
            "values": np.empty((n, *values.shape[:2], s, s), np.float32),
            "truth": np.empty((n, len(stack), s, s), np.uint16),
            "counts": np.zeros((n, rounds + 1, 4, classes), np.int32),
            "origin": origins.astype(np.int32),
        }
        for i, (y, x) in enumerate(origins - np.array((land.y, land.x))):
            at = (slice(y, y + s), slice(x, x + s))
            made["values"][i] = values[:, :, *at]
            made["truth"][i] = stack[:, *at]
            for r, roles in enumerate([*after, np.where(codes != IGNORE, TRAIN, NONE)]):
                made["counts"][i, r] = _count(codes[at], roles[at], classes)
        return made

    def _stack(self, codes: Array, roles: list[Array]) -> Array:
        """Pack class (plus one, zero for none) and roles (two bits a round) into planes, (P, h, w) uint16."""
        stack = np.zeros((planes(len(roles)), *codes.shape), np.uint16)
        stack[0] = codes + 1
        for r, role in enumerate(roles):
            plane, place = divmod(r, ROUNDS_PER_PLANE)
            stack[1 + plane] |= role.astype(np.uint16) << np.uint16(2 * place)
        return stack


def cut_chips(
    cube: Cube,
    labels: Labels,
    folds: Folds,
    *,
    size: int,
    path: Path,
    key: str,
    max_per_class: int,
    seed: int,
    client: Client,
    progress: Callable[[int, int], None] | None = None,
) -> ChipStore:
    """Cut all chips of a job into a Zarr store, which is whole or absent.

    Parameters
    ----------
    cube, labels, folds
        Imagery, reference data, and its division.
    size : int
        Side of a chip in pixels; 1 gives a sample per labelled pixel.
    path : Path
        The store; one that is there is replaced.
    key : str
        Identifies the inputs; kept in the store.
    max_per_class : int
        Most labelled pixels kept per fold and class, for samples of one pixel.
    seed : int
        Seed of that choice, which depends on a pixel's place only.
    client : Client
        Runs the tasks.
    progress : callable, optional
        Called with blocks of land done, and in all.

    Raises
    ------
    LabelError
        If no label lies on valid imagery, or a fold that is needed is empty.
    """
    rounds, classes = len(folds.rounds), len(labels.legend.classes)
    land = size * max(1, _LAND // size)
    windows = list(labels.windows(land))
    cutter = Cutter(
        cube, labels, folds, size, seed, np.zeros((rounds, classes), bool), np.ones((len(folds.names), classes))
    )
    steps = len(windows) * 2
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(min(done, steps), steps)

    surveys = _survey(cutter, windows, client, advance)
    plain, kept, per_fold = _totals(surveys, rounds, len(folds.names), classes)
    exempt = (plain[:, TRAIN] > 0) & (kept[:, TRAIN] == 0)
    quota = np.minimum(1.0, max_per_class / np.maximum(per_fold, 1)) if size == 1 else np.ones(per_fold.shape)
    notes = _notes(labels, folds, plain, kept, exempt, quota, per_fold)
    if exempt.any() or (quota < 1).any():
        cutter = Cutter(cube, labels, folds, size, seed, exempt, quota)
        steps += len(windows)
        surveys = _survey(cutter, windows, client, advance)
    n = sum(len(s.origins) for s in surveys)
    temporary = path.with_name(f".{path.name}.tmp")
    if temporary.exists():
        shutil.rmtree(temporary)
    group = _create(temporary, cube, n, size, rounds, classes)
    _cut(cutter, windows, surveys, group, client, advance)
    _, kept, _ = _totals(surveys, rounds, len(folds.names), classes)
    rows = _table(labels, folds, per_fold, plain, kept)
    group.attrs.update(
        {
            "key": key,
            "bands": list(cube.bands),
            "dates": [d.isoformat() if d else None for d in cube.dates],
            "time": [float(t) for t in cube.time],
            "legend": labels.legend.to_json(),
            "folds": list(folds.names),
            "rounds": rounds,
            "buffer": folds.buffer,
            "table": rows,
            "notes": notes,
        }
    )
    if path.exists():
        shutil.rmtree(path)
    temporary.rename(path)
    store = ChipStore.open(path)
    _check(store, labels)
    return store


def _totals(surveys: list[_Survey], rounds: int, folds: int, classes: int) -> tuple[Array, Array, Array]:
    """Return labels per round, role and class, before and after the buffer, and labels per fold and class."""
    plain, kept = np.zeros((rounds, 4, classes), np.int64), np.zeros((rounds, 4, classes), np.int64)
    per_fold = np.zeros((folds, classes), np.int64)
    for survey in surveys:
        plain += survey.plain
        kept += survey.kept
        per_fold += survey.fold_counts
    return plain, kept, per_fold


def _survey(cutter: Cutter, windows: list[Window], client: Client, advance: Callable[[], None]) -> list[_Survey]:
    found: dict[Window, _Survey] = {}

    def keep(window: Window, survey: _Survey) -> None:
        found[window] = survey
        advance()

    _run(cutter.survey, windows, keep, client)
    return [found[w] for w in windows]


def _cut(
    cutter: Cutter,
    windows: list[Window],
    surveys: list[_Survey],
    group: Any,
    client: Client,
    advance: Callable[[], None],
) -> None:
    """Cut and write all chips.

    Chips of many pixels are written by the tasks, a chunk each; single pixels share chunks, and are written here, in order.
    """
    starts = np.cumsum([0, *(len(s.origins) for s in surveys)])
    place = {w: (int(starts[i]), surveys[i].origins) for i, w in enumerate(windows)}
    pieces: dict[int, dict[str, Array]] = {}

    def work(window: Window) -> dict[str, Array]:
        start, origins = place[window]
        if not len(origins):
            return {}
        made = cutter.cut(window, origins)
        if cutter.size > 1:
            for name in ("values", "truth"):
                group[name][start : start + len(origins)] = made.pop(name)
        return made

    def keep(window: Window, made: dict[str, Array]) -> None:
        if made:
            pieces[place[window][0]] = made
        advance()

    _run(work, windows, keep, client)
    for name in ("values", "truth", "counts", "origin") if cutter.size == 1 else ("counts", "origin"):
        if pieces:
            group[name][:] = np.concatenate([pieces[start][name] for start in sorted(pieces)])


def _run(work: Callable[[Any], Any], windows: list[Window], keep: Callable[[Any, Any], None], client: Client) -> None:
    failures = run_tasks(work, windows, client=client, on_result=keep, fatal=(ReadError,))
    if failures:
        raise RunError(f"cutting chips failed at {failures[0].item}: {failures[0].error}")


def _create(path: Path, cube: Cube, n: int, size: int, rounds: int, classes: int) -> Any:
    times, bands, _, _ = cube.shape
    group = zarr.open_group(path, mode="w")
    chunk = _PIXELS if size == 1 else 1
    shapes: dict[str, tuple[tuple[int, ...], str, int]] = {
        "values": ((n, times, bands, size, size), "float32", chunk),
        "truth": ((n, planes(rounds), size, size), "uint16", chunk),
        "counts": ((n, rounds + 1, 4, classes), "int32", _PIXELS),
        "origin": ((n, 2), "int32", _PIXELS),
    }
    for name, (shape, dtype, first) in shapes.items():
        # Uncompressed: a training reads each chip once an epoch, and decoding would be what it waits for.
        group.create_array(name, shape=shape, dtype=dtype, chunks=(min(first, max(n, 1)), *shape[1:]), compressors=None)
    return group


def _count(codes: Array, role: Array, classes: int) -> Array:
    """Return labelled pixels per role and class, (4, K)."""
    known = codes != IGNORE
    index = role[known].astype(np.int64) * classes + codes[known]
    return np.bincount(index, minlength=4 * classes).reshape(4, classes)


def _buffered(role: Array, codes: Array, buffer: int, exempt: Array) -> Array:
    """Take the role from training labels near validation or test labels, and from validation labels near test labels."""
    if not buffer:
        return role
    side = 2 * buffer + 1
    near_test = maximum_filter(role == TEST, side)
    near_val = maximum_filter(role == VAL, side)
    lost = ((role == TRAIN) & (near_test | near_val)) | ((role == VAL) & near_test)
    lost &= ~((role == TRAIN) & np.append(exempt, False)[codes])
    return np.where(lost, np.int8(NONE), role)


def _uniform(y: Array, x: Array, seed: int) -> Array:
    """Return a number in [0, 1) for each place: the same however the land is cut (after Steele et al. 2014, SplitMix64)."""
    with np.errstate(over="ignore"):
        z = (
            (y.astype(np.uint64) << np.uint64(32))
            ^ x.astype(np.uint64)
            ^ (np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15))
        )
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) / 2**53


def _notes(
    labels: Labels, folds: Folds, plain: Array, kept: Array, exempt: Array, quota: Array, per_fold: Array
) -> list[str]:
    notes = []
    total, left = int(plain[:, TRAIN].sum()), int(kept[:, TRAIN].sum())
    if left < total:
        rounds = "over all rounds, " if len(plain) > 1 else ""
        notes.append(
            f"buffer of {folds.buffer} px between folds: {rounds}{total - left} of {total} training labels are left out"
        )
    for i in np.flatnonzero(exempt.any(0)):
        where = ", ".join(str(r + 1) for r in np.flatnonzero(exempt[:, i]))
        notes.append(
            f"class {labels.legend.classes[i].name!r} keeps its training labels inside the buffer (round {where}): "
            "none would be left; its figures are somewhat optimistic"
        )
    for i in np.flatnonzero((quota < 1).any(0)):
        drawn = int((quota * per_fold)[:, i].sum())
        notes.append(
            f"class {labels.legend.classes[i].name!r}: about {drawn} of {int(per_fold[:, i].sum())} labelled pixels are drawn"
        )
    return notes


def _table(labels: Labels, folds: Folds, per_fold: Array, plain: Array, kept: Array) -> list[dict[str, Any]]:
    rows = []
    features: Any = getattr(labels, "feature_class", None)
    for i, c in enumerate(labels.legend.classes):
        row: dict[str, Any] = {"class": c.name, "labels": ", ".join(c.values)}
        if features is not None:
            row["features"] = int((features == i).sum())
        row["pixels"] = int(per_fold[:, i].sum())
        row |= {name: int(per_fold[f, i]) for f, name in enumerate(folds.names)}
        row["in buffer"] = int((plain - kept)[:, TRAIN, i].sum())
        rows.append(row)
    return rows


def _check(store: ChipStore, labels: Labels) -> None:
    """Refuse a store from which nothing can be learned, or nothing measured."""
    for r in range(store.rounds):
        for role, name in ((TRAIN, "training"), (VAL, "validation"), (TEST, "test")):
            counts = store.counts(r, role)
            if not counts.any():
                raise LabelError(
                    f"the {name} fold{f' of round {r + 1}' if store.rounds > 1 else ''} is empty: no label of it lies on valid "
                    f"imagery outside the buffer of {store.buffer} px; use a smaller folds.buffer, other folds.fractions, or "
                    "a network with a smaller halo"
                )
        missing = [c.name for i, c in enumerate(labels.legend.classes) if not store.counts(r, TRAIN)[i]]
        if missing:
            raise LabelError(f"no training labels on valid imagery for {', '.join(map(repr, missing))} (round {r + 1})")

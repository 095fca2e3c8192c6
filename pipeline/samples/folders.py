"""Labelled chips in folders: a folder per class, a file per chip, without any imagery."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from pipeline.errors import LabelError, nearest
from pipeline.imagery.indices import Index, appended, find_indices
from pipeline.imagery.paths import some
from pipeline.samples.chipfiles import SUFFIXES, Facts, around_centre, facts_of, reach, read_chip
from pipeline.samples.labels import check_classes
from pipeline.samples.legend import Legend, natural
from pipeline.samples.rounds import ALIASES, SPLIT
from pipeline.samples.standalone import Samples
from pipeline.settings import ClassSettings, LabelSettings

Array = np.ndarray[Any, Any]

_FOLD = "fold"


@dataclass(frozen=True, eq=False, kw_only=True)
class ChipFolder(Samples):
    """N labelled chips, each a file; the label is that of the centre.

    Attributes
    ----------
    files : tuple of Path
        One a chip.
    facts : Facts
        What they have in common: bands, size, scale.
    indices : tuple of Index
        Spectral indices that are added to the bands.
    """

    what: ClassVar[str] = "chips"

    files: tuple[Path, ...]
    facts: Facts
    indices: tuple[Index, ...] = ()

    @property
    def dates(self) -> int:
        """A chip has one date."""
        return 1

    @property
    def reach(self) -> int:
        """Pixels that a chip has on every side of its centre."""
        return reach(self.facts.shape)

    @property
    def scaling(self) -> dict[str, Any]:
        """What new imagery must share with the chips: scale, offset and nodata per band."""
        pairs = zip(self.facts.bands, self.facts.scaling, strict=True)
        return {band: {"scaling": [list(scaling)], "nodata": self.facts.nodata} for band, scaling in pairs}

    def read(self, some: slice, radius: int) -> tuple[Array, Array]:
        """Return values (n, 1, C, S, S) and days (n, 1) of some chips; see `Samples.read`."""
        found = [chip_values(path, self.facts.bands, self.indices, radius) for path in self.files[some]]
        return np.stack(found)[:, None], np.zeros((len(found), 1), np.float32)

    def spoken(self) -> list[tuple[str, str]]:
        """Return what there is, for people."""
        height, width = self.facts.shape
        return [("chips", f"{len(self):,} of {width} x {height} px"), ("bands", ", ".join(self.bands))]


def chip_values(path: Path, bands: Sequence[str], indices: Sequence[Index], radius: int) -> Array:
    """Return the values around the centre of a chip, (C, S, S) float32, its spectral indices among them."""
    return appended(around_centre(read_chip(path), radius), bands, indices)


def open_chips(
    settings: LabelSettings,
    classes: Sequence[ClassSettings] | None,
    indices: Sequence[str] = (),
    roles: Mapping[str, str] | None = None,
) -> ChipFolder:
    """Open a folder of labelled chips: ``<class>/<file>``, or ``train/<class>/<file>``, ``test/<class>/<file>``.

    Parameters
    ----------
    settings : LabelSettings
        As in the job file; ``chips`` is given.
    classes : sequence of ClassSettings or None
        The classes of the job; None takes every folder.
    indices, roles
        Spectral indices; see `open_cube`.

    Raises
    ------
    ImageryError
        If a file is no raster, or a band of an index is not there.
    LabelError
        If folders are missing or empty, or chips differ in bands, size or scale.
    """
    folder = Path(str(settings.chips))
    notes: list[str] = []
    frame = pd.DataFrame(_listed(folder, notes), columns=["file", "label", _FOLD])
    legend = Legend.from_values(frame["label"], classes)
    index = np.array([-1 if i is None else i for i in map(legend.index, frame["label"])], dtype=np.int64)
    total = Counter(frame["label"])
    there = sorted(total, key=natural)
    if strangers := [v for v in there if legend.index(v) is None]:
        notes.append(f"folders of no class are left out: {some([f'{v} ({total[v]})' for v in strangers])}")
    frame, target = frame[index >= 0].reset_index(drop=True), index[index >= 0]
    check_classes(legend, target.tolist(), str(folder), there)
    files = tuple(frame.pop("file"))
    found = [facts_of(path) for path in files]
    for path, facts in zip(files, found, strict=True):
        _check_alike(files[0], found[0], path, facts)
    divided = bool(frame[_FOLD].any())
    made = find_indices(indices, found[0].bands, roles)
    return ChipFolder(
        legend=legend,
        bands=(*found[0].bands, *(i.name for i in made)),
        target=target,
        frame=frame if divided else frame.drop(columns=_FOLD),
        places=_places(found),
        periods=(None,),
        period=np.zeros(len(files), np.int64),
        notes=notes,
        rows=[{"label": v, "class": _class_of(legend, v), "chips": total[v]} for v in there],
        fold=_FOLD if divided else None,
        files=files,
        facts=found[0],
        indices=made,
    )


def _class_of(legend: Legend, value: str) -> str:
    i = legend.index(value)
    return "none" if i is None else legend.classes[i].name


def _listed(folder: Path, notes: list[str]) -> Iterator[tuple[Path, str, str]]:
    """Yield each chip, its class and its fold, which is empty where folders are of classes alone."""
    if not folder.is_dir():
        beside = [p.name for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.is_dir() else []
        raise LabelError(f"labels.chips: there is no folder {folder}{nearest(folder.name, beside)}")
    folds = {ALIASES.get(p.name.lower(), p.name.lower()): p for p in _folders(folder)}
    if "train" not in folds:
        yield from ((path, label, "") for path, label in _classes(folder, notes))
        return
    strangers = [p.name for name, p in folds.items() if name not in SPLIT]
    if strangers:
        raise LabelError(
            f"labels.chips: {folder} holds a folder train and others ({some(strangers)}); allowed are train, val and test, "
            "each with a folder per class, or folders of classes alone"
        )
    if "test" not in folds:
        raise LabelError(
            f"labels.chips: {folder} holds a folder train and none called test, so nothing could be measured; add one, or put "
            f"the folders of classes into {folder} itself, and they are divided"
        )
    for name in (n for n in SPLIT if n in folds):
        yield from ((path, label, name) for path, label in _classes(folds[name], notes))


def _classes(folder: Path, notes: list[str]) -> Iterator[tuple[Path, str]]:
    others = []
    classes = _folders(folder)
    for of_class in classes:
        inside = sorted((p for p in of_class.iterdir() if not p.name.startswith(".")), key=lambda p: natural(p.name))
        chips = [p for p in inside if p.is_file() and p.suffix.lower() in SUFFIXES]
        others += [p for p in inside if p.is_file() and p not in set(chips)]
        if not chips:
            raise LabelError(
                f"labels.chips: {of_class} holds no chip; expected <class>/<file>, or train/<class>/<file> and "
                f"test/<class>/<file>, with files {', '.join(SUFFIXES)}"
            )
        yield from ((p, of_class.name) for p in chips)
    if not classes:
        raise LabelError(f"labels.chips: {folder} holds no folders; expected one per class, with its chips in it")
    if others:
        notes.append(
            f"{len(others)} files in {folder} are no chips and are left alone: {some([p.name for p in others])}"
        )


def _folders(folder: Path) -> list[Path]:
    found = (p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    return sorted(found, key=lambda p: natural(p.name))


def _check_alike(first: Path, wanted: Facts, path: Path, facts: Facts) -> None:
    """Refuse chips of which no one array could be made, or whose values mean different things."""
    for what, a, b in (
        ("bands", ", ".join(wanted.bands), ", ".join(facts.bands)),
        ("size", "{1} x {0} px".format(*wanted.shape), "{1} x {0} px".format(*facts.shape)),
        ("scale and offset", str(wanted.scaling), str(facts.scaling)),
    ):
        if a != b:
            raise LabelError(
                f"labels.chips: all chips must have the same {what}, and these differ:\n  {first}: {a}\n  {path}: {b}"
            )


def _places(found: Sequence[Facts]) -> Array | None:
    """Return longitude and latitude of each chip, (N, 2); None where any is without."""
    from pyproj import Transformer

    if any(f.place is None for f in found):
        return None
    crs = np.array([f.place[0] for f in found if f.place])
    x, y = np.array([f.place[1:] for f in found if f.place]).T
    places = np.empty((len(found), 2))
    for one in np.unique(crs):
        of = crs == one
        places[of] = np.stack(Transformer.from_crs(str(one), "EPSG:4326", always_xy=True).transform(x[of], y[of]), 1)
    return places

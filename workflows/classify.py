"""Say the class of whole chips with a trained bundle: a row per file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.inference import centre_scores
from pipeline.errors import BundleError, RequestError
from pipeline.imagery.indices import appended, find_indices
from pipeline.imagery.paths import expand
from pipeline.samples.chipfiles import SUFFIXES, Facts, around_centre, facts_of, reach, read_chip
from pipeline.samples.legend import Legend
from workflows.apply import load_bundle
from workflows.assess import probabilities
from workflows.fitting import check_scaling, matched
from workflows.scoring import scorer_of
from workflows.tables import check_table, write_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.bundle import Bundle
    from workflows.console import Console

Array = np.ndarray[Any, Any]

# Pixels that are scored at once.
_PIXELS = 65_536


def classify(folder: Path, files: Sequence[str], table: Path, console: Console) -> list[tuple[str, Path]]:
    """Write the class at the centre of each chip: file, class, confidence, and a probability ``p_<class>`` per class.

    Probabilities are calibrated as those of a map are. A chip without any valid pixel around its centre gets no class.

    Parameters
    ----------
    folder : Path
        The bundle.
    files : sequence of str
        Chips: files, globs, or folders, of which all chips are taken.
    table : Path
        The table, .csv or .parquet.
    console : Console
        Where the user is spoken to.

    Raises
    ------
    BundleError
        If the bundle cannot be read or tells no classes of chips, or a chip has other bands or scales, or is too small.
    RequestError
        If there is nothing to classify, or the table is of no known kind.
    """
    import pandas as pd

    check_table(table)
    bundle = load_bundle(folder)
    _check_bundle(bundle)
    paths = _chips(files)
    console.stage(f"classify: {len(paths):,} chips with {folder}")
    chips = [(path, _fitting(path, facts_of(path), bundle)) for path in paths]
    scorer, side = scorer_of(bundle), 2 * bundle.network.halo + 1
    step = max(1, _PIXELS // side**2)
    found, there = [], []
    with console.progress("classifying", len(chips), "chips") as tell, scorer.turn():
        for i in range(0, len(chips), step):
            some = chips[i : i + step]
            values = np.stack([_values(path, order, bundle) for path, order in some])[:, None]
            valid = np.isfinite(values).all(2)
            scores = centre_scores(scorer.network, *scorer.tensors(values, valid, np.zeros((len(some), 1), np.float32)))
            found.append(probabilities(scores.cpu().numpy(), bundle.temperature))
            there.append(valid.any((1, 2, 3)))
            tell(i + len(some), len(chips))
    likely, known = np.concatenate(found), np.concatenate(there)
    likely[~known] = np.nan
    names = np.array([c.name for c in Legend.from_json(bundle.legend).classes])
    winner = np.where(known, names[np.nan_to_num(likely).argmax(1)], "")
    frame = pd.DataFrame({"file": [str(p) for p in paths], "class": winner, "confidence": likely.max(1)})
    frame[[f"p_{name}" for name in names]] = likely
    write_table(frame, table)
    _show(frame, names, console)
    return [("table", table)]


def _chips(files: Sequence[str]) -> list[Path]:
    paths: dict[Path, None] = {}
    for text in files:
        folder = Path(text)
        if folder.is_dir():
            inside = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix.lower() in SUFFIXES)
            if not inside:
                raise RequestError(f"{folder} holds no chip: no file {', '.join(SUFFIXES)}")
            paths |= dict.fromkeys(inside)
        else:
            paths |= dict.fromkeys(Path(p) for p in expand(text, "FILE"))
    return list(paths)


def _check_bundle(bundle: Bundle) -> None:
    """Refuse a model that says no class of a chip by itself."""
    network = bundle.network
    if not bundle.classifies:
        raise BundleError(f"the model has learned {bundle.task['name']}, not classes: it can classify no chips")
    if network.dates > 1:
        raise BundleError(
            f"the model was trained on {network.dates} dates, and a chip has one; map imagery with it: landweave apply"
        )
    if network.stride > 1 and not network.centred:
        raise BundleError(
            f"the network '{network.name}' takes squares of {network.stride} pixels and their multiples, which have no pixel at "
            "their centre; map imagery with it: landweave apply"
        )


def _fitting(path: Path, facts: Facts, bundle: Bundle) -> list[int]:
    """Return where in a chip the model's bands are; refuse one that does not fit."""
    wanted = [b for b in bundle.bands if b not in bundle.imagery["indices"]]
    names = matched(facts.bands, wanted, str(path), "a GeoTIFF names its bands by their descriptions")
    scaling = list(zip(facts.bands, facts.scaling, strict=True))
    check_scaling(scaling, names, bundle, str(path), "Write them into the file: gdal_edit -scale ... -offset ...")
    halo = bundle.network.halo
    if reach(facts.shape) < halo:
        height, width = facts.shape
        raise BundleError(
            f"{path} is {width} x {height} px, and the network '{bundle.network.name}' looks at {2 * halo + 1} x {2 * halo + 1} "
            "px around the centre; give larger chips"
        )
    return [facts.bands.index(name) for name in names]


def _values(path: Path, order: list[int], bundle: Bundle) -> Array:
    """Return the values around the centre, (C, S, S) float32, of the model's bands in its order."""
    wanted = [b for b in bundle.bands if b not in bundle.imagery["indices"]]
    made = find_indices(bundle.imagery["indices"], wanted, bundle.imagery["roles"])
    return appended(around_centre(read_chip(path), bundle.network.halo)[order], wanted, made)


def _show(frame: Any, names: Array, console: Console) -> None:
    rows = []
    for name in names:
        of = frame.loc[frame["class"] == name, "confidence"]
        rows.append((name, len(of), f"{of.mean():.3f}" if len(of) else "–"))
    console.table("  chips", ("class", "chips", "mean confidence"), rows)
    if without := int((frame["class"] == "").sum()):
        console.note(f"{without} chips hold no valid pixel around their centre, and get no class")

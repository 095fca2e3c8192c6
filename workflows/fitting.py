"""Imagery made to fit a trained model, or refused: bands, dates, scale, and values unlike those trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.bundle import Bundle
from models.pretrained import load_pretrained
from pipeline.errors import BundleError
from pipeline.grid import Window
from pipeline.imagery.handles import open_raster
from pipeline.imagery.paths import virtual
from pipeline.samples.chipfiles import unnamed
from pipeline.settings import ImagerySettings
from workflows.products.product import product_of

if TYPE_CHECKING:
    from models.network import Network
    from pipeline.imagery.cube import Cube

# Pixels further than this from the training mean, in standard deviations, are said to be unlike it.
_FAR = 6.0
_SAMPLE = 256


def with_nodata(entries: list[ImagerySettings], bundle: Bundle) -> list[ImagerySettings]:
    """Let imagery that declares no nodata take the training imagery's; `open_cube` says where it is used."""
    values = {fact["nodata"] for fact in bundle.imagery["bands"].values()}
    if len(values) != 1 or None in values:
        return entries
    filled = []
    for entry in entries:
        path = entry.path if isinstance(entry.path, str) else entry.path[0]
        declared: Any = None
        if entry.nodata is None and (virtual(path) or Path(path).is_file()):
            with open_raster(path) as raster:
                declared = raster.nodata
        missing = entry.nodata is None and declared is None
        filled.append(entry.model_copy(update={"nodata": values.copy().pop()}) if missing else entry)
    return filled


def fitted(cube: Cube, bundle: Bundle, entries: Sequence[ImagerySettings]) -> Cube:
    """Return the cube with the bundle's bands in the bundle's order.

    Parameters
    ----------
    cube, bundle
        The imagery and the model.
    entries : sequence of ImagerySettings
        What was said of the imagery: a scale or an offset that is stated is trusted.

    Raises
    ------
    BundleError
        If bands are missing, or the scale or the offset differ; prints both side by side.
    """
    names = matched(
        cube.bands,
        bundle.bands,
        "the imagery",
        "name them with --set imagery.0.bands='{red: 3, ...}', or have indices among them computed with --set "
        "indices='[ndvi, ...]'",
    )
    stated = any(entry.scale is not None or entry.offset is not None for entry in entries)
    if not stated:
        found = [
            (band, (scale, offset))
            for source in cube.sources
            for band, scale, offset in zip(source.bands, source.scales, source.offsets, strict=True)
        ]
        check_scaling(
            found,
            names,
            bundle,
            "the imagery",
            "State them with --set imagery.0.scale=... and --set imagery.0.offset=...",
        )
    return cube.select(names)


def matched(have: Sequence[str], want: Sequence[str], what: str, advice: str) -> tuple[str, ...]:
    """Return the names under which there are the bands that a model wants, in its order.

    Bands go by their names. Those of a model that was trained on files without any, pictures or arrays, are known by their
    numbers alone: they are taken in the order in which they come, if there are as many.

    Raises
    ------
    BundleError
        If bands are missing; prints both sides.
    """
    missing = [b for b in want if b not in have]
    if not missing:
        return tuple(want)
    if unnamed(want):
        if len(have) == len(want):
            return tuple(have)
        advice = f"those of this model have no names, and are taken in their order where there are as many; {advice}"
    raise BundleError(
        f"{what} lacks bands that the model was trained on:\n"
        f"  {'the model wants':<17} {', '.join(want)}\n"
        f"  {what + ' has':<17} {', '.join(have)}\n"
        f"  {'missing':<17} {', '.join(missing)}\n"
        f"Bands are matched by name, in any order; {advice}."
    )


def check_scaling(
    found: Sequence[tuple[str, tuple[float, float]]], names: Sequence[str], bundle: Bundle, what: str, advice: str
) -> None:
    """Refuse values that are not scaled like those a model was trained on.

    Parameters
    ----------
    found : sequence of (str, (float, float))
        Bands with their scale and offset.
    names : sequence of str
        The names under which there are the model's bands, in its order.
    bundle : Bundle
        The model.
    what, advice : str
        What was found, and what can be done about it.

    Raises
    ------
    BundleError
        If they differ; prints both sides.
    """
    trained = dict(zip(names, bundle.bands, strict=True))
    differing = []
    for band, (scale, offset) in found:
        want = bundle.imagery["bands"].get(trained.get(band, band))
        if want and [scale, offset] not in want["scaling"]:
            differing.append(
                f"  {band}: the model wants scale {want['scaling'][-1][0]:g}, offset {want['scaling'][-1][1]:g}; "
                f"{what} has scale {scale:g}, offset {offset:g}"
            )
    if differing:
        raise BundleError(
            f"{what}'s values are not scaled like those the model was trained on:\n"
            + "\n".join(dict.fromkeys(differing))
            + f"\n{advice}"
        )


def dated(cube: Cube, bundle: Bundle) -> Cube:
    """Return the cube with as many dates as the model takes.

    A model that goes by days takes fewer, for dates without an image change nothing; one that takes dates by their place
    needs as many as it was trained on.

    Raises
    ------
    BundleError
        If there are too many, or too few.
    """
    if bundle.task["name"] == "forecast":
        return product_of(bundle).cube(cube)
    have, want = len(cube.dates), len(bundle.time)
    if have == want:
        return cube
    if have < want and not bundle.network.fixed_dates:
        return dataclasses.replace(cube, dates=(*cube.dates, *[None] * (want - have)))
    raise BundleError(
        f"the model was trained on {want} dates, the imagery has {have}; give as many"
        + (" or fewer" if not bundle.network.fixed_dates else "")
        + ": choose a period of that length (--set predict.period='[first day, last day]'), or regular steps "
        "(temporal.every) for training and mapping alike"
    )


def unlike(cube: Cube, bundle: Bundle) -> list[str]:
    """Return a sentence for each band with values far from those trained on, seen in a window in the middle."""
    height, width = int(cube.geobox.shape.y), int(cube.geobox.shape.x)
    rows, columns = min(height, _SAMPLE), min(width, _SAMPLE)
    tile = cube.read(Window(y=(height - rows) // 2, x=(width - columns) // 2, height=rows, width=columns))
    said = []
    for i, band in enumerate(bundle.bands):
        values = tile.values[:, i][tile.valid]
        if not values.size:
            continue
        share = float(np.mean(np.abs((values - bundle.mean[i]) / bundle.std[i]) > _FAR))
        if share > 0.001:
            said.append(
                f"{band}: {100 * share:.1f} % of the pixels in the middle lie more than {_FAR:g} standard deviations from "
                "what the model was trained on; the map is not to be trusted there"
            )
    return said


def imagery_facts(cube: Cube) -> dict[str, Any]:
    """Return what new imagery must share with the imagery that was trained on: scales, offsets and nodata per band."""
    facts: dict[str, Any] = {}
    for source in cube.sources:
        for band, scale, offset in zip(source.bands, source.scales, source.offsets, strict=True):
            # What is not a number is never data; and JSON has no sign for it.
            nodata = None if source.nodata is None or np.isnan(source.nodata) else source.nodata
            fact = facts.setdefault(band, {"scaling": [], "nodata": nodata})
            # They may change from date to date, as Sentinel-2's did.
            if [scale, offset] not in fact["scaling"]:
                fact["scaling"].append([scale, offset])
    return facts


def begin_with(network: Network, before: Bundle, bands: Sequence[str], facts: Mapping[str, Any]) -> None:
    """Let a network begin with what a trained model has learnt (`model.pretrained`).

    Parameters
    ----------
    network : Network
        Changed in place.
    before : Bundle
        The trained model.
    bands, facts
        The bands that the network will be shown, and their scales and offsets, as `imagery_facts` returns them.

    Raises
    ------
    ModelError
        If networks or bands are not the same.
    BundleError
        If values are not scaled like those it was trained on.
    """
    load_pretrained(network, before, bands)
    found = [(band, (scale, offset)) for band, fact in facts.items() for scale, offset in fact["scaling"]]
    check_scaling(
        found, bands, before, "the imagery", "State them with `scale` and `offset` at the entry of `imagery`."
    )

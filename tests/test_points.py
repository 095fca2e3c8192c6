"""What decided a pixel: exact for this very pixel, and told in pictures."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pytest
import torch

from models.saliency.methods import BY_GRADIENT, SIGNED
from models.saliency.reduce import dominant, reduce
from models.settings import SaliencySettings
from pipeline.grid import Window
from pipeline.samples.points import Point as Asked
from tests.explained import texts
from tests.places import MadeUpCube, grid
from tests.test_bundle import bundle as bundle_of
from tests.test_networks import made
from workflows.explainers import explainers_of
from workflows.ownpixel import story_of
from workflows.pointpicture import point_picture, shown_bands
from workflows.scoring import scorer_of
from workflows.windows import window_side

torch.set_num_threads(1)

METHODS = [*BY_GRADIENT, "occlusion_band", "occlusion_date", "occlusion_patch"]
NETWORKS = [("mlp", {}), ("unet", {"width": 2, "depth": 1}), ("unet", {"width": 2, "depth": 2})]
HEIGHT, WIDTH = 21, 19
DATES = (datetime.date(2021, 1, 5), datetime.date(2021, 1, 21))


def model(name: str, settings: dict[str, Any], **changes: Any) -> Any:
    """Return a bundle with two bands and two dates whose statistics fit the made-up cube."""
    values: dict[str, Any] = {
        "network": made(name, settings, dates=2),
        "dates": [d.isoformat() for d in DATES],
        "time": [0.0, 16.0],
        "mean": [500.0, 600.0],
        "std": [200.0, 300.0],
        "legend": [
            {"name": n, "code": i, "color": "#000000", "values": [n]}
            for i, n in enumerate(("Wald", "Straße", "Wasser"), 1)
        ],
    }
    return bundle_of(**values | changes)


def cube() -> MadeUpCube:
    """Return imagery with a corner and a stripe where nothing is seen."""
    unseen = (Window(y=0, x=5, height=3, width=4), Window(y=12, x=0, height=1, width=WIDTH))
    return MadeUpCube(grid(HEIGHT, WIDTH), dates=DATES, invalid=unseen)


def asked(row: int, column: int) -> Asked:
    return Asked(1, "", 0.0, 0.0, row, column)


def whole_scene(bundle: Any, explainer: Any, row: int, column: int) -> tuple[Any, Any, Any, int]:
    """Return attribution, scores and validity of the whole scene for the target of one pixel, and the margin around it."""
    network = bundle.network
    margin = network.halo + network.stride
    side = -(-(max(HEIGHT, WIDTH) + 2 * margin) // network.stride) * network.stride
    scorer = scorer_of(bundle)
    tile = cube().read(Window(y=-margin, x=-margin, height=side, width=side))
    x = scorer.tensors(tile.values[None], tile.valid[None], cube().time[None])
    where = torch.zeros(1, side, side, dtype=torch.bool)
    where[0, row + margin, column + margin] = True
    return (*explainer(scorer.network, *x, where, [(-margin, -margin)]), x[1], margin)


@pytest.mark.parametrize(("name", "settings"), NETWORKS)
def test_what_decided_a_pixel_is_the_same_as_in_the_whole_scene(name: str, settings: dict[str, Any]) -> None:
    bundle = model(name, settings)
    network = bundle.network
    # Patches so large that there are few passes where the network sees far.
    patch, step = (3, 2) if network.halo < 10 else (20, 18)
    own = SaliencySettings(method=METHODS, samples=2, steps=3, patch=patch, step=step)
    explainers = explainers_of(own, bundle)
    assert [e.method for e in explainers] == METHODS
    # The corners, and every phase of the stride.
    places = [(0, 0), (HEIGHT - 1, WIDTH - 1)] + [(8 + p, 8 + 3 * p % network.stride) for p in range(1, network.stride)]
    scorer = scorer_of(bundle)
    for row, column in places:
        story = story_of(scorer, bundle, explainers, cube(), asked(row, column), "")
        assert story is not None
        assert story.values.shape[-1] == window_side(network)
        top, left = row - story.own[0], column - story.own[1]
        for explainer, reason in zip(explainers, story.reasons, strict=True):
            attribution, scores, valid, margin = whole_scene(bundle, explainer, row, column)
            n = len(reason.pixel)
            here = slice(top + margin, top + margin + n), slice(left + margin, left + margin + n)
            signed = explainer.method in SIGNED
            expected = reduce(attribution, "pixel", signed=signed)[0].masked_fill(~valid[0].any(0), torch.nan)[here]
            assert np.allclose(reason.pixel, expected.numpy(), atol=1e-5, rtol=0, equal_nan=True)
            assert reason.signed == signed
            for axis, parts in reason.parts.items():
                value = reduce(attribution, axis, signed=signed)[0].sum((1, 2)).numpy()
                assert np.allclose(parts.value, value, atol=1e-4, rtol=1e-5)
                assert parts.share.sum() == pytest.approx(1)
                assert parts.share.tolist() == pytest.approx((abs(value) / abs(value).sum()).tolist(), abs=1e-4)
            if explainer.method != "occlusion_patch":
                size = attribution.abs().sum((1, 2))[0]
                share = float(size[row + margin, column + margin] / size.sum())
                assert reason.here == pytest.approx(share, abs=1e-4)
            shares = torch.softmax(scores[0, :, row + margin, column + margin] / bundle.temperature, 0)
            names = [c["name"] for c in bundle.legend]
            assert story.ranking[0][0] == names[int(shares.argmax())] == reason.target
            assert dict(story.ranking) == pytest.approx(dict(zip(names, shares.tolist(), strict=True)), abs=1e-5)


def test_where_nothing_was_seen_there_is_no_story() -> None:
    bundle = model("unet", {"width": 2, "depth": 1})
    explainers = explainers_of(SaliencySettings(), bundle)
    assert story_of(scorer_of(bundle), bundle, explainers, cube(), asked(1, 6), "") is None


def test_targets_are_named() -> None:
    bundle = model("mlp", {})
    story = {}
    for target in ("margin", "Wasser"):
        explainers = explainers_of(SaliencySettings(method="occlusion_band", target=target), bundle)
        story[target] = story_of(scorer_of(bundle), bundle, explainers, cube(), asked(9, 9), "")
    ranking = story["margin"].ranking
    assert story["margin"].reasons[0].target == f"{ranking[0][0]} against {ranking[1][0]}"
    assert story["Wasser"].reasons[0].target == "Wasser"
    assert story["Wasser"].reasons[0].unit == "probability"


def test_values_are_in_the_units_of_the_imagery() -> None:
    bundle = model("mlp", {})
    story = story_of(scorer_of(bundle), bundle, explainers_of(SaliencySettings(), bundle), cube(), asked(4, 3), "")
    read = cube().read(Window(y=4, x=3, height=1, width=1))
    assert np.allclose(story.values, read.values, atol=1e-3)


def test_the_strongest_band_and_date_are_those_of_the_dominant_layers() -> None:
    bundle = model("mlp", {})
    own = SaliencySettings(method=["integrated_gradients", "gradient"])
    explainers, scorer = explainers_of(own, bundle), scorer_of(bundle)
    for explainer, i in zip(explainers, range(2), strict=True):
        tile = cube().read(Window(y=0, x=0, height=HEIGHT, width=WIDTH))
        x = scorer.tensors(tile.values[None], tile.valid[None], cube().time[None])
        everywhere = torch.ones(1, HEIGHT, WIDTH, dtype=torch.bool)
        attribution, _ = explainer(scorer.network, *x, everywhere, [(0, 0)])
        for axis in ("band", "date"):
            layer = dominant(reduce(attribution, axis, signed=explainer.signed))[0]
            for row, column in ((4, 3), (15, 11), (20, 18)):
                story = story_of(scorer, bundle, explainers, cube(), asked(row, column), "")
                assert story.reasons[i].parts[axis].order[0] == int(layer[row, column]) - 1


def test_the_bands_of_a_picture() -> None:
    assert shown_bands(["Blue", "green", "red", "nir"]) == (2, 1, 0)
    assert shown_bands(["b1", "b2", "b3"]) == (0, 1, 2)
    assert shown_bands(["ndvi", "evi"]) == (0, 0, 0)


def test_a_picture_shows_what_a_method_tells_apart() -> None:
    bundle = model("unet", {"width": 2, "depth": 1})
    drawn = {}
    for method in ("gradient", "occlusion_date", "occlusion_patch"):
        explainers = explainers_of(SaliencySettings(method=method, patch=3, step=2), bundle)
        story = story_of(scorer_of(bundle), bundle, explainers, cube(), asked(9, 9), "")
        drawn[method] = str(point_picture(story, ["植被_1", "$nir"], bundle.network.radius, 10.0, "m"))
    found = {method: texts(picture) for method, picture in drawn.items()}
    n = window_side(bundle.network)
    for method, words in found.items():
        assert {f"{n} px = {10 * n:,} m", "what the pixel looked like"} <= set(words)
        assert ("bands" in words) == (method == "gradient")
        assert bool({"dates", "occlusion of dates"} & set(words)) == (method != "occlusion_patch")
        # An image of the window, and beside it the map of what counts where there is one, with the bar of its colours.
        assert drawn[method].count("<image") == (1 if method == "occlusion_date" else 3)
    assert {"$nir", "植被_1"} <= set(found["gradient"])

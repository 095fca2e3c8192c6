"""Checks of explanations: removal, agreement and completeness praise what is sound, and find fault with what is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from oracles_explanations import own_shares_by_hand, removal_by_hand
from scipy.stats import spearmanr
from subjects import VALUE, Backwards, linear, subject, windows
from test_networks import made

from models.saliency.target import Target
from workflows.agreement import METHODS, agreement, completeness
from workflows.removal import removed
from workflows.soundness import of_agreement, of_completeness, of_removal

torch.set_num_threads(1)


def test_areas_of_a_known_order() -> None:
    network = linear([4.0, -3.0, 2.0, 1.0])
    places = windows(network, 6, seen=1.0)
    places.cube[:] = torch.tensor([1.0, -1.0, 1.0, 1.0])[:, None, None]
    found = of_removal(removed(subject(network, places, "gradient_input", target=VALUE)), "nearness to the value")
    assert found["deletion"] == pytest.approx([1.0, 0.6, 0.3, 0.1, 0.0])
    assert found["insertion"] == pytest.approx([0.0, 0.4, 0.7, 0.9, 1.0])
    assert (found["areas"]["deletion"], found["areas"]["insertion"]) == (pytest.approx(0.375), pytest.approx(0.625))
    assert found["areas"]["random"] == pytest.approx(0.5, abs=0.05)
    assert found["verdict"] == "good"


@pytest.mark.parametrize("method", ["gradient_input", "occlusion_band", "gradient"])
def test_curves_are_those_of_a_loop(method: Any) -> None:
    weights = [2.0, -1.5, 1.0, 0.5, -0.2]
    network = linear(weights, classes=2)
    places = windows(network, 9, seen=1.0)
    asked = subject(network, places, method, target=Target(temperature=2.0))
    found = of_removal(removed(asked), "probability")
    deletion, insertion = [], []
    for values in places.cube[:, 0, :, 0, 0].double().numpy():
        first = float(values @ weights) > 0

        def probability(x: Any, first: bool = first) -> float:
            return float(1 / (1 + np.exp((-1 if first else 1) * (x @ weights) / 2.0)))

        strength = {
            "gradient": np.abs(weights) * first,
            "gradient_input": np.multiply(values, weights) * first,
            "occlusion_band": [
                probability(values) - removal_by_hand(probability, values, [i], 0.0)[1] for i in range(5)
            ],
        }[method]
        order = np.argsort(-np.asarray(strength), kind="stable").tolist()
        deletion.append(removal_by_hand(probability, values, order, 0.0))
        backwards = np.argsort(np.asarray(strength), kind="stable").tolist()
        insertion.append(removal_by_hand(probability, values, backwards, 0.0)[::-1])
    assert found["deletion"] == pytest.approx(np.mean(deletion, 0).tolist(), abs=1e-6)
    assert found["insertion"] == pytest.approx(np.mean(insertion, 0).tolist(), abs=1e-6)


def test_an_order_that_is_wrong_is_found_out() -> None:
    network = made("mlp", {"hidden": [16]}, bands=8, dates=2)
    places = windows(network, 40)
    good = of_removal(removed(subject(network, places, "integrated_gradients")), "probability")
    bad = of_removal(removed(subject(network, places, "integrated_gradients", kind=Backwards)), "probability")
    assert (good["verdict"], bad["verdict"]) == ("good", "poor")
    assert bad["areas"]["random"] == pytest.approx(good["areas"]["random"])


def test_parts_are_what_the_method_tells_apart() -> None:
    network = made("unet", {"width": 2}, bands=3, dates=2)
    places = windows(network, 4)
    parts = {
        m: removed(subject(network, places, m, patch=8, step=4))
        for m in ("gradient", "occlusion_band", "occlusion_date")
    }
    assert {m: v["parts"] if v else None for m, v in parts.items()} == {
        "gradient": 6, "occlusion_band": 3, "occlusion_date": 2
    }  # fmt: skip
    squares = removed(subject(network, places, "occlusion_patch", patch=8, step=4))
    assert squares is not None
    assert squares["parts"] == 9
    one = made("mlp", {}, bands=3)
    assert of_removal(removed(subject(one, windows(one), "occlusion_patch")), "")["verdict"] == "not applicable"


def test_a_part_that_was_not_seen_is_none() -> None:
    network = linear([4.0, 3.0, 2.0])
    series = made("ltae", {}, bands=1, dates=4)
    places = windows(series, 6)
    places.valid[:, 2:] = False
    found = removed(subject(series, places, "occlusion_date"))
    assert found is not None
    # Of the two dates that were seen one is gone at half of the way, and both only at its end.
    assert len(set(np.round(found["deletion"], 9))) <= 3
    assert removed(subject(network, windows(network, seen=0.0), target=VALUE)) is None


def test_completeness_is_exact_where_the_network_is_linear() -> None:
    network = linear([4.0, -3.0, 2.0], classes=2)
    found = of_completeness(completeness(subject(network, windows(network), steps=1)))
    assert found["relative"] < 1e-6
    assert found["verdict"] == "good"
    network = made("mlp", {"hidden": [16], "activation": "tanh"}, bands=4)
    with torch.no_grad():
        network.layers[0].weight.mul_(5)
    rough, fine = (of_completeness(completeness(subject(network, windows(network, 32), steps=s))) for s in (1, 64))
    assert (rough["verdict"], fine["verdict"]) == ("poor", "good")
    assert "raise saliency.steps" in rough["says"]


def test_agreement_is_that_of_shares_counted_by_hand() -> None:
    network = made("unet", {"width": 4}, bands=3, dates=2)
    asked = subject(network, windows(network, 6), samples=2, steps=3)
    found = agreement(asked)
    assert found["band"] is not None
    assert found["date"] is not None
    assert found["band"]["methods"] == [m for m in METHODS if m != "occlusion_date"]
    assert found["date"]["methods"] == [m for m in METHODS if m != "occlusion_band"]
    for axis in ("band", "date"):
        one, other = (
            np.ravel(own_shares_by_hand(asked.by(m).attribution().numpy(), axis))
            for m in ("gradient", "integrated_gradients")
        )
        figures: Any = found[axis]
        matrix = np.array(figures["matrix"], float)
        i, j = figures["methods"].index("gradient"), figures["methods"].index("integrated_gradients")
        assert matrix[i, j] == pytest.approx(spearmanr(one, other).statistic)
        np.testing.assert_array_equal(matrix, matrix.T)
        assert figures["least"]["correlation"] == matrix.min()
    # Where a network is linear, and values all alike, every method must say the same.
    network = linear([4.0, 3.0, 2.0, 1.0], classes=2)
    places = windows(network, seen=1.0)
    places.cube[:] = 1.0
    same = agreement(subject(network, places, samples=2, steps=3))
    assert same["band"] is not None
    assert same["band"]["mean"] == pytest.approx(1.0)
    assert of_agreement(same["band"], "bands")["verdict"] == "good"
    assert of_agreement(same["date"], "dates")["verdict"] == "not applicable"

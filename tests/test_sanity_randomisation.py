"""Checks of explanations: nothing may be left of what was learnt once weights are drawn anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from subjects import Edges, linear, subject, windows
from test_networks import TEMPORAL, VARIANTS, made

from models.saliency.randomise import anew, layers, replace
from models.saliency.ranks import spearman
from models.table import build
from workflows import randomisation
from workflows.randomisation import effort, randomised
from workflows.soundness import of_randomisation

torch.set_num_threads(1)


def test_ranks_of_rows_are_scipys() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, (2, 6, 9)).astype(float)  # many ties
    counts = rng.random((6, 9)) < 0.7
    a[4] = 1.0
    counts[5] = False
    found = spearman(a, b, counts)
    for i in range(4):
        assert found[i] == pytest.approx(spearmanr(a[i][counts[i]], b[i][counts[i]]).statistic)
    assert np.isnan(found[4:]).all()


def test_layers_are_found_from_the_scores_to_the_inputs() -> None:
    assert layers(build("unet", {"width": 2}, bands=2, dates=1, classes=2), 99) == [
        ("head",),
        ("decoders.0.4", "decoders.0.3"),
        ("decoders.0.1", "decoders.0.0"),
        ("lifts.0",),
        ("encoders.1.4", "encoders.1.3"),
        ("encoders.1.1", "encoders.1.0"),
        ("encoders.0.4", "encoders.0.3"),
        ("encoders.0.1", "encoders.0.0"),
    ]
    # Registered before its parts, used after the first of them.
    ltae = [names[-1] for names in layers(build("ltae", {}, bands=2, dates=3, classes=2), 99)]
    assert ltae.index("attention.mix.0") < ltae.index("attention") < ltae.index("attention.embed.0")
    lstm = layers(build("lstm", {}, bands=2, dates=3, classes=2), 99)
    assert lstm == [("head",), ("normal", "backwards.0"), ("forwards.0",)]


@pytest.mark.parametrize(
    ("name", "settings", "dates"),
    [*{v[0]: (*v, 1) for v in VARIANTS}.values(), *{v[0]: (*v, 3) for v in TEMPORAL}.values()],
)
def test_in_the_end_every_weight_is_drawn_anew(name: str, settings: dict[str, Any], dates: int) -> None:
    network = made(name, settings, dates=dates)
    state, other = torch.get_rng_state(), anew(network, 7)
    assert torch.equal(state, torch.get_rng_state())
    stages = layers(network, 4)
    assert len(stages) <= 4
    before = {k: v.clone() for k, v in network.named_parameters()}
    for names in stages:
        replace(network, other, names)
    for key, value in network.named_parameters():
        assert torch.equal(value, other.get_parameter(key)), key
    assert any(not torch.equal(value, before[key]) for key, value in network.named_parameters())
    for key, value in network.named_buffers():
        # Components of the imagery are no weights.
        assert torch.equal(value, other.get_buffer(key)) or key == "projection"


@pytest.mark.parametrize(
    ("name", "method"), [("mlp", "gradient"), ("unet", "integrated_gradients"), ("lstm", "occlusion_band")]
)
def test_nothing_is_left_of_what_was_learnt_and_all_of_what_was_not(
    name: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(randomisation, "_BUDGET", 2_000)
    settings = {"mlp": {"hidden": [32]}, "unet": {"width": 4}, "lstm": {"hidden": 8}}[name]
    network = made(name, settings, bands=24 if name != "unet" else 3, dates=3 if name == "lstm" else 1)
    places = windows(network, seen=1.0)
    honest = of_randomisation(randomised(subject(network, places, method, steps=4), network))
    assert abs(honest["layers"][-1]["correlation"]) < 0.1
    if name != "lstm":  # with few draws of few bands one cannot tell
        assert honest["verdict"] == "good"
    blind = of_randomisation(randomised(subject(network, places, kind=Edges), network))
    assert blind["layers"][-1]["correlation"] == pytest.approx(1.0)
    assert (blind["verdict"], blind["constant"]) == ("poor", 0.0)


def test_the_same_weights_give_the_same_explanation_and_no_weights_none(monkeypatch: pytest.MonkeyPatch) -> None:
    network = made("mlp", {"hidden": [8]}, bands=6)
    monkeypatch.setattr(randomisation, "anew", lambda network, seed: network)
    monkeypatch.setattr(randomisation, "_BUDGET", 1)
    found = randomised(subject(network, windows(network)), network)
    assert [v["correlation"] for v in found["layers"]] == [pytest.approx(1.0)] * 2
    assert found["draws"] == 10
    nothing = linear([0.0] * 6, classes=2)
    found = of_randomisation(randomised(subject(nothing, windows(nothing)), nothing))
    assert (found["verdict"], found["constant"]) == ("undecided", 1.0)


def test_the_class_that_is_explained_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    network = linear([1.0, 2.0, 3.0, 4.0], classes=2)
    other = linear([-1.0, -2.0, -3.0, -4.0], classes=2)
    places = windows(network, seen=1.0)
    places.cube.abs_()
    # The other prefers the second class, of which it knows nothing; asked about the first, it is the opposite.
    monkeypatch.setattr(randomisation, "anew", lambda network, seed: other)
    monkeypatch.setattr(randomisation, "_BUDGET", 1)
    assert randomised(subject(network, places), network)["layers"][0]["correlation"] == pytest.approx(-1.0)


def test_what_is_costly_is_done_at_fewer_places(monkeypatch: pytest.MonkeyPatch) -> None:
    network = made("unet", {"width": 2})
    places = windows(network, 32)
    monkeypatch.setattr(randomisation, "_BUDGET", 10**12)
    assert effort(subject(network, places), network) == randomisation.Effort(8, 100, 32)
    monkeypatch.setattr(randomisation, "_BUDGET", 1)
    assert effort(subject(network, places), network) == randomisation.Effort(3, 10, 4)

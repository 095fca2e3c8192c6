"""Checks of explanations: each must praise what is sound, and find fault with what is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CRS, write_chips, write_job, write_plots, write_scene
from oracles import own_shares_by_hand, removal_by_hand
from scipy.stats import spearmanr
from test_networks import TEMPORAL, VARIANTS, made

from models.inference import prepare
from models.saliency.methods import Explainer
from models.saliency.randomise import anew, layers, replace
from models.saliency.ranks import spearman
from models.saliency.target import Target
from models.settings import SaliencySettings
from models.table import build
from pipeline.errors import RequestError
from workflows import randomisation
from workflows.agreement import METHODS, agreement, completeness
from workflows.console import Console
from workflows.context import Context
from workflows.explain import explain
from workflows.load import load_job, make_job
from workflows.randomisation import effort, randomised
from workflows.removal import removed
from workflows.sanity import sanity, shown
from workflows.soundness import of_agreement, of_completeness, of_randomisation, of_removal
from workflows.subject import Subject
from workflows.train import train
from workflows.windows import Windows, window_side

torch.set_num_threads(1)

VALUE = Target("output", 0, None)


class Edges(Explainer):
    """A method that knows no network: what it says is the input."""

    def __call__(self, network, cube, valid, time, where, origins):  # type: ignore[no-untyped-def]
        return cube * where[:, None, None], super().__call__(network, cube, valid, time, where, origins)[1]


class Backwards(Explainer):
    """A method that names what counts least."""

    def __call__(self, network, cube, valid, time, where, origins):  # type: ignore[no-untyped-def]
        found, scores = super().__call__(network, cube, valid, time, where, origins)
        return -found, scores


def windows(network: Any, n: int = 8, *, seen: float = 0.8, seed: int = 0) -> Windows:
    g = torch.Generator().manual_seed(seed)
    side = window_side(network)
    valid = torch.rand(n, network.dates, side, side, generator=g) < seen
    cube = torch.randn(n, network.dates, network.bands, side, side, generator=g) * valid[:, :, None]
    own = torch.zeros(n, side, side, dtype=torch.bool)
    own[torch.arange(n), network.halo + torch.arange(n) % network.stride, network.halo] = True
    time = torch.arange(network.dates, dtype=torch.float32).expand(n, -1) * 16
    return Windows(cube, valid, time, own, tuple((64 * i, 0) for i in range(n)), np.zeros(n))


def subject(
    network: Any,
    places: Windows,
    method: Any = "gradient",
    *,
    kind: Any = Explainer,
    target: Any = None,
    **settings: Any,
) -> Subject:
    own = SaliencySettings(**settings)
    baseline = (0.0,) * network.bands
    explainer = kind(method=method, settings=own, target=target or Target(), baseline=baseline)
    return Subject.of(prepare(network), places, explainer)


def linear(weights: list[float], *, classes: int = 1, **sizes: int) -> Any:
    """Return a network whose first output is a weighted sum of the input; any other is nothing."""
    network = build("mlp", {"hidden": []}, bands=len(weights), dates=1, classes=classes, **sizes)
    with torch.no_grad():
        network.layers[0].weight.zero_()[0] = torch.tensor(weights)
        network.layers[0].bias.zero_()
    return network.eval()


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


def checked(path: Path, *overrides: str) -> tuple[dict[str, Any], Path]:
    context = Context(load_job(path, overrides), Console(quiet=True))
    return sanity(context, train(context)), context.output.report / "sanity.json"


def test_a_trained_job_is_checked_to_the_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(randomisation, "_BUDGET", 200_000)
    path = write_job(
        folder / "job.yaml",
        training={"epochs": 25, "optimizer": {"name": "adamw", "lr": 0.02}, "track": ["csv"]},
        model={"name": "mlp", "hidden": [16], "activation": "tanh"},
        saliency={"method": ["integrated_gradients", "occlusion_patch"], "samples": 4},
    )
    found, file = checked(path)
    assert json.loads(file.read_text()) == found
    own = found["methods"]["integrated_gradients"]
    assert own["removal"]["verdict"] == found["completeness"]["verdict"] == "good"
    assert {v["verdict"] for v in found["methods"]["occlusion_patch"].values()} == {"not applicable"}
    assert found["agreement"]["band"]["verdict"] in ("good", "fair", "poor")
    assert found["agreement"]["date"]["verdict"] == "not applicable"
    assert (found["quantity"], found["window"]) == ("probability of the class", 1)
    rough, _ = checked(path, "saliency.steps=1", "saliency.method=gradient_input", "saliency.target=margin")
    assert rough["completeness"]["verdict"] == "poor"
    assert rough["model"] == found["model"]
    sections = shown(found)
    assert len(sections[0].rows) == 7
    assert sum(len(s.charts) for s in sections) == 2
    assert [s.title for s in sections][-1] == "How alike methods are over bands"


def test_numbers_and_patches_are_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(randomisation, "_BUDGET", 1)
    write_plots(tmp_path / "plots.csv", write_scene(tmp_path / "scene.tif"), number=60)
    quick: dict[str, Any] = {"training": {"epochs": 2, "track": ["csv"]}, "saliency": {"steps": 2, "samples": 1}}
    job = write_job(
        tmp_path / "job.yaml",
        task="regression",
        labels={"path": "plots.csv", "field": "height", "crs": CRS},
        model={"name": "unet", "width": 2},
        **quick,
    )
    found, _ = checked(job)
    assert (found["quantity"], found["window"]) == ("nearness to the value", 22)
    curve = found["methods"]["gradient"]["removal"]
    assert (curve["deletion"][0], curve["deletion"][-1]) == (pytest.approx(1.0), pytest.approx(0.0))
    write_chips(tmp_path / "chips", per_class=10)
    job = write_job(
        tmp_path / "chips.yaml",
        imagery=[],
        labels={"chips": "chips"},
        output="chips-out",
        model={"name": "cnn", "filters": [4], "pool": 1, "patch": 5, "hidden": [4]},
        **quick,
    )
    found, _ = checked(job)
    assert found["places"] > 1
    assert set(found["methods"]["gradient"]) == {"randomisation", "removal"}


@pytest.mark.parametrize("question", [{}, {"sane": True}, {"at": Path("points.gpkg")}])
def test_what_cannot_be_explained_is_refused(tmp_path: Path, question: dict[str, Any]) -> None:
    job = make_job({"imagery": [{"path": "a.tif"}], "task": "forecast"}, base=tmp_path)
    with pytest.raises(
        RequestError, match="a forecast is not explained by saliency; a classification and a regression are"
    ):
        explain(Context(job, Console(quiet=True)), **question)
    assert not list(tmp_path.iterdir())

"""What a job may ask of explanations, and what it is told where it may not."""

from __future__ import annotations

import pytest

from models.saliency.methods import BY_GRADIENT, SIGNED
from models.saliency.target import Target
from models.settings import SaliencySettings
from pipeline.errors import JobError
from tests.explained import METHODS, explainer
from tests.test_bundle import bundle
from tests.test_networks import made
from workflows.explainers import check_names, explainers_of, layer_name, target_of
from workflows.load import make_job


def model():
    names = ("Wald", "Straße", "Wasser")
    legend = [{"name": n, "code": i + 1, "color": "#000000", "values": [n]} for i, n in enumerate(names)]
    return bundle(legend=legend)


def job(tmp_path, **saliency):
    raw = {"imagery": [{"path": "a.tif"}], "labels": {"path": "b.gpkg"}, "saliency": saliency}
    return make_job(raw, base=tmp_path)


@pytest.mark.parametrize(
    ("saliency", "words"),
    [
        ({"patch": 4, "step": 5}, "step: found 5 for a patch of 4: pixels between would never be covered"),
        ({"method": "grad_cam"}, "grad_cam cannot be exact on a map: Grad-CAM weighs features by their mean gradient"),
        ({"method": "guided"}, "guided cannot be exact on a map"),
        ({"method": ["gradient", "guided_gradcam"]}, "guided_gradcam cannot be exact on a map"),
        ({"method": []}, "saliency.method"),
        ({"method": "gradients"}, "did you mean 'gradient'"),
        ({"method": "occlusion_bands"}, "did you mean 'occlusion_band'"),
        ({"method": ["gradient", "smoothgrd"]}, "did you mean 'smoothgrad'"),
        ({"per": ["bands"]}, "did you mean 'band'"),
        ({"per": []}, "saliency.per"),
        ({"samples": 0}, "saliency.samples"),
        ({"steps": 1001}, "saliency.steps"),
        ({"noise": 0}, "saliency.noise"),
        ({"patch": 0}, "saliency.patch"),
        ({"seed": -1}, "saliency.seed"),
        ({"baseline": "zero"}, "saliency.baseline"),
        ({"smaples": 3}, "did you mean 'samples'"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_place(tmp_path, saliency, words):
    with pytest.raises(JobError) as caught:
        job(tmp_path, **saliency)
    assert words in str(caught.value)
    assert "saliency" in str(caught.value)


def test_methods_are_those_that_are_listed_each_once(tmp_path):
    assert job(tmp_path, method="smoothgrad").saliency.methods == ("smoothgrad",)
    several = job(tmp_path, method=["occlusion_band", "gradient", "occlusion_band"]).saliency
    assert several.methods == ("occlusion_band", "gradient")
    assert job(tmp_path).saliency.methods == ("gradient",)


def test_the_first_method_has_the_plain_names():
    settings = SaliencySettings(method=["gradient", "occlusion_band"])
    kinds = ("pixel", "band", "date", "dominant_band", "dominant_date")
    assert [layer_name(settings, "gradient", per) for per in kinds] == [
        "saliency", "saliency_bands", "saliency_dates", "dominant_band", "dominant_date"
    ]  # fmt: skip
    assert layer_name(settings, "occlusion_band", "pixel") == "saliency_occlusion_band"
    assert layer_name(settings, "occlusion_band", "band") == "saliency_occlusion_band_bands"
    assert layer_name(settings, "occlusion_band", "dominant_band") == "dominant_band_occlusion_band"


def test_a_target_is_the_winner_the_margin_or_a_class_of_the_model():
    known = model()
    assert target_of(SaliencySettings(), known) == Target("winner", 0, 1.5)
    assert target_of(SaliencySettings(target="margin"), known) == Target("margin", 0, 1.5)
    assert target_of(SaliencySettings(target="Wasser"), known) == Target("output", 2, 1.5)
    with pytest.raises(
        JobError, match=r"no class 'wasser'; did you mean 'Wasser'\? .* winner, margin, Wald, Straße, Wasser"
    ):
        explainers_of(SaliencySettings(target="wasser"), known)


def test_a_regression_has_no_class_to_explain():
    number = bundle(network=made("mlp", {}, classes=1), task={"name": "regression", "target": "ndvi"}, legend=[])
    assert target_of(SaliencySettings(), number) == Target("output", 0, None)
    for target in ("margin", "Wald"):
        with pytest.raises(
            JobError, match=f"found {target}, but the model gives a number and no classes; leave it out"
        ):
            explainers_of(SaliencySettings(target=target), number)


def test_one_class_has_no_second():
    with pytest.raises(JobError, match=r"saliency.target: found margin, but there is one class, Wald, and no second"):
        check_names(SaliencySettings(target="margin"), ["Wald"], ["red"])


def test_a_baseline_is_given_in_units_of_the_imagery():
    def asked(baseline):
        (one,) = explainers_of(SaliencySettings(baseline=baseline), model())
        return one.baseline

    assert asked("mean") == (0.0, 0.0)
    assert asked({"nir": 0.6}) == pytest.approx((0.0, 0.2))  # mean 0.2, deviation 2
    with pytest.raises(JobError, match=r"saliency.baseline: there is no band 'nri'; did you mean 'nir'\? .* red, nir"):
        asked({"nri": 0.6})


def test_methods_come_in_the_order_of_the_job():
    settings = SaliencySettings(method=["occlusion_date", "gradient"], target="margin")
    assert [(e.method, e.target.kind) for e in explainers_of(settings, model())] == [
        ("occlusion_date", "margin"), ("gradient", "margin")
    ]  # fmt: skip


def test_what_each_method_tells_apart():
    told = {m: explainer(m).axes for m in METHODS}
    assert {m for m, axes in told.items() if axes == ("band", "date")} == set(BY_GRADIENT)
    assert (told["occlusion_band"], told["occlusion_date"], told["occlusion_patch"]) == (("band",), ("date",), ())
    assert {m for m in METHODS if explainer(m).signed} == set(SIGNED)
    assert {m for m in METHODS if not explainer(m).signed} == {"gradient", "smoothgrad"}


@pytest.mark.parametrize(("patch", "reach"), [(1, 20), (2, 22), (3, 22), (8, 28)])
def test_the_reach_is_two_halos_and_what_a_patch_sticks_out(patch, reach):
    network = made("unet", {"width": 2, "depth": 1})  # halo 10, stride 2
    assert explainer("occlusion_patch", patch=patch, step=1).reach(network) == reach
    assert explainer("gradient").reach(network) == 20
    assert explainer("occlusion_band").reach(network) == 10


def test_a_class_may_be_called_by_a_number(tmp_path):
    assert job(tmp_path, target=3).saliency.target == "3"

"""Bundles: the same when read back, refused when anything is wrong."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
import torch

from models.bundle import Bundle
from models.inference import scores
from models.network import ModelError
from tests.test_inference import tile
from tests.test_networks import made


def bundle(name="unet", settings=None, **changes):
    network = made(name, settings or {"width": 2}, bands=2, dates=1, classes=3)
    values = {
        "network": network,
        "bands": ["red", "nir"],
        "dates": ["2021-06-30"],
        "time": [0.0],
        "mean": [0.1, 0.2],
        "std": [1.0, 2.0],
        "task": {"name": "classification"},
        "legend": [{"name": n, "code": i + 1, "color": "#000000"} for i, n in enumerate(("Wald", "Straße", "Wasser"))],
        "temperature": 1.5,
        "figures": {"overall": 0.9},
        "training": {"epochs": [3]},
        "imagery": {"red": {"scale": 1.0, "offset": 0.0, "nodata": None}},
        "created": "2026-01-01T00:00:00+00:00",
    }
    return Bundle(**values | changes)


@pytest.fixture
def saved(tmp_path):
    bundle().save(tmp_path / "model")
    return tmp_path / "model"


def rewrite(folder, change):
    described = json.loads((folder / "bundle.json").read_text())
    change(described)
    (folder / "bundle.json").write_text(json.dumps(described))


@pytest.mark.parametrize(("name", "settings"), [("unet", {"width": 2}), ("mlp", {"hidden": [4]})])
def test_a_bundle_read_back_is_the_same(tmp_path, name, settings):
    first = bundle(name, settings)
    first.save(tmp_path)
    second = Bundle.load(tmp_path)
    for f in dataclasses.fields(Bundle):
        if f.name != "network":
            assert getattr(second, f.name) == getattr(first, f.name)
    assert second.network.settings == first.network.settings
    x = tile(first.network, 16, 16)
    assert torch.equal(scores(first.network, *x), scores(second.network, *x))
    assert second.checksum == first.checksum
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle.json", "weights.safetensors"]


def test_bundle_json_says_what_the_network_needs(saved):
    described = json.loads((saved / "bundle.json").read_text())
    assert described["format"] == 3
    assert described["network"]["halo"] == 10
    assert described["network"]["stride"] == 2
    assert described["versions"]["torch"] == torch.__version__.partition("+")[0] or described["versions"]["torch"]
    assert "Straße" in (saved / "bundle.json").read_text(encoding="utf-8")


def test_the_checksum_is_of_everything_but_the_date():
    first = bundle()
    assert bundle(created="2030-01-01").checksum == first.checksum
    assert bundle(temperature=1.0).checksum != first.checksum
    with torch.no_grad():
        next(first.network.parameters()).view(-1)[0] += 1e-3
    assert bundle().checksum != first.checksum


def test_changed_weights_are_refused(saved):
    path = saved / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"weights.safetensors is damaged or belongs to another model"):
        Bundle.load(saved)


def test_half_a_file_of_weights_is_refused(saved):
    path = saved / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"100 bytes with SHA-256"):
        Bundle.load(saved)


def test_a_changed_description_is_refused(saved):
    rewrite(saved, lambda d: d.update(temperature=9.0))
    with pytest.raises(ModelError, match="was changed after it was written"):
        Bundle.load(saved)


@pytest.mark.parametrize("missing", ["bundle.json", "weights.safetensors"])
def test_a_missing_file_is_named(saved, missing):
    (saved / missing).unlink()
    with pytest.raises(ModelError, match=rf"holds no {missing}"):
        Bundle.load(saved)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(format=2), r"has format 2, this version of landweave reads format 3"),
        (lambda d: d.pop("mean"), r"lacks mean"),
        (lambda d: d["network"].pop("halo"), r"network lacks halo"),
        (lambda d: d.pop("format"), r"not the description of a trained model"),
    ],
)
def test_another_layout_is_refused(saved, change, words):
    rewrite(saved, change)
    with pytest.raises(ModelError, match=words):
        Bundle.load(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_what_is_no_description_is_refused(saved, text):
    (saved / "bundle.json").write_text(text, encoding="latin-1")
    with pytest.raises(ModelError, match=r"bundle.json is not"):
        Bundle.load(saved)


def test_weights_of_another_network_are_refused(saved, tmp_path):
    bundle(settings={"width": 3}).save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "weights.safetensors", saved / "weights.safetensors")
    with pytest.raises(ModelError, match="belongs to another model"):
        Bundle.load(saved)


def test_a_bundle_that_does_not_fit_its_network_is_refused():
    with pytest.raises(ModelError, match="needs 2 bands, got 1"):
        bundle(bands=["red"])
    with pytest.raises(ModelError, match="needs 3 classes in the legend, got 0"):
        bundle(legend=[])
    with pytest.raises(ModelError, match="temperature must be above 0"):
        bundle(temperature=float("nan"))


def test_a_figure_that_is_no_number_is_refused(tmp_path):
    with pytest.raises(ModelError, match="cannot be written as JSON"):
        bundle(figures={"kappa": float("nan")}).save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_older_bundle_is_replaced_as_a_whole(saved):
    bundle(temperature=3.0, settings={"width": 4}).save(saved)
    assert Bundle.load(saved).temperature == 3.0
    assert len(list(saved.iterdir())) == 2

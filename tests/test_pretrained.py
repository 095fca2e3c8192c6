"""Beginning with what another training has learnt: what is taken, what stays new, what is refused."""

from __future__ import annotations

import pytest
import torch

from models.bundle import Bundle
from models.network import ModelError
from models.pretrained import load_pretrained
from models.table import build
from tests.test_bundle import bundle
from tests.test_networks import made

BANDS = ["red", "nir"]


def learnt(name, settings, *, classes=0, dates=1):
    """Return a bundle of a network, as one that learnt without labels."""
    return bundle(
        network=made(name, settings, dates=dates, classes=classes, seed=7),
        dates=["2021-06-30"] * dates,
        time=[0.0] * dates,
        task={"name": "reconstruction" if classes == 0 else "classification"},
        legend=[{"name": str(i), "code": i + 1, "color": "#000000"} for i in range(classes)],
    )


def parts(names):
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize(
    ("name", "settings"),
    [("autoencoder", {"corruption": "mask"}), ("autoencoder", {"looks_at": "land", "width": 2}), ("vae", {"code": 1})],
)
def test_the_encoder_is_taken_and_the_head_is_new(name, settings, tmp_path):
    learnt(name, settings).save(tmp_path)
    source = Bundle.load(tmp_path)
    network = made(name, settings, classes=3, seed=1)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    taken = load_pretrained(network, source, BANDS)
    after, given = network.state_dict(), source.network.state_dict()
    assert parts(taken) == {"encoder"}
    assert taken == [k for k in before if k.startswith("encoder.")]
    for k in before:
        assert torch.equal(after[k], given[k] if k in taken else before[k])
    assert any(not torch.equal(before[k], after[k]) for k in taken)


@pytest.mark.parametrize(
    ("name", "settings", "outputs"),
    [
        ("unet", {"width": 2}, {"head.weight", "head.bias"}),
        ("mlp", {"hidden": [4]}, {"layers.3.weight", "layers.3.bias"}),
        ("lstm", {"hidden": 3}, {"head.weight", "head.bias"}),
    ],
)
@pytest.mark.parametrize("classes", [3, 5])
def test_of_any_network_everything_is_taken_but_the_output_layer(name, settings, outputs, classes):
    # The same number of classes, too: they are other classes.
    source = learnt(name, settings, classes=3)
    network = made(name, settings, classes=classes, seed=1)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    taken = load_pretrained(network, source, BANDS)
    assert set(before) - set(taken) == outputs
    assert all(torch.equal(network.state_dict()[k], source.network.state_dict()[k]) for k in taken)
    assert all(torch.equal(network.state_dict()[k], before[k]) for k in outputs)


def test_without_classes_the_decoder_learns_on():
    source, network = learnt("vae", {}, dates=2), made("vae", {}, dates=2, classes=0, seed=1)
    assert parts(load_pretrained(network, source, BANDS)) == {"encoder", "decoder"}
    assert all(torch.equal(v, source.network.state_dict()[k]) for k, v in network.state_dict().items())


def test_no_random_number_is_drawn():
    source, network = learnt("mlp", {}, classes=3), build("mlp", {}, bands=2, dates=1, classes=3)
    state = torch.get_rng_state()
    load_pretrained(network, source, BANDS)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("source", "name", "settings", "dates", "bands", "words"),
    [
        (("vae", {}), "autoencoder", {}, 1, BANDS, "holds a network 'vae', and model.name is 'autoencoder'"),
        (("vae", {}), "vae", {}, 1, ["nir", "red"], "bands red, nir, here they are nir, red;"),
        (("vae", {}), "vae", {"width": 8}, 1, BANDS, "'vae' that does not fit, width 32 there and 8 here; "),
        (("vae", {}), "vae", {}, 3, BANDS, "does not fit, dates 1 there and 3 here; "),
        (("vae", {"looks_at": "land"}), "vae", {"looks_at": "land", "depth": 2}, 1, BANDS, "depth 1 there and 2 here"),
        (("vae", {"looks_at": "land"}), "vae", {}, 1, BANDS, "looks_at land there and pixel here"),
        (("mlp", {"hidden": []}, 3), "mlp", {"hidden": []}, 1, BANDS, "0 of 0 tensors .* would be the output layer"),
    ],
)
def test_what_does_not_fit_is_refused_and_both_are_named(source, name, settings, dates, bands, words):
    network = made(name, settings, dates=dates, classes=3)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(ModelError, match=rf"model.pretrained: it .*{words}"):
        load_pretrained(network, learnt(*source[:2], classes=source[2] if len(source) > 2 else 0), bands)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())

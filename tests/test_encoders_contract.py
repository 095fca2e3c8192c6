"""Networks that learn without labels: the contract."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from models.inference import prepare, scores
from models.network import EncodingNetwork, ModelError
from models.reconstruction import ReconstructionTask
from models.settings import TrainingSettings
from models.table import build
from tests.oracles_tiles import gradient_support, seen_from, tiled_scores
from tests.scenes import LAND, PIXEL, scene
from tests.test_networks import made

torch.set_num_threads(1)


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("dates", [1, 3])
@pytest.mark.parametrize(("name", "settings"), PIXEL + LAND)
def test_the_radius_is_exactly_what_an_input_reaches(name, settings, dates, classes):
    network = made(name, settings, bands=3, dates=dates, classes=classes)
    side = 2 * network.halo + 4 * network.stride
    furthest = 0
    for phase in range(network.stride):
        reached, y, x = seen_from(network, phase, (phase * 3) % network.stride, side)
        rows, columns = torch.nonzero(reached, as_tuple=True)
        furthest = max(furthest, int((rows - y).abs().max()), int((columns - x).abs().max()))
    assert furthest == network.radius
    assert network.halo >= network.radius > network.halo - network.stride
    assert network.pixelwise == (network.chip == 1) == ((name, settings) in PIXEL)


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize(("name", "settings"), PIXEL[:1] + LAND[:2])
def test_the_support_of_the_gradient_lies_within_the_halo_and_fills_the_radius(name, settings, classes):
    network = made(name, settings, bands=3, dates=2, classes=classes)
    side = 2 * network.halo + 4 * network.stride
    reach = 0
    for phase in range(network.stride):
        y = x = side // 2 + phase
        rows, columns = torch.nonzero(gradient_support(network, y, x, side), as_tuple=True)
        reach = max(reach, int((rows - y).abs().max()), int((columns - x).abs().max()))
    assert reach == network.radius <= network.halo


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize(("name", "settings"), PIXEL + LAND)
@examples(max_examples=3, deadline=None)
@given(h=st.integers(1, 33), w=st.integers(1, 33), size=st.integers(1, 9), seed=st.integers(0, 9))
def test_outputs_do_not_depend_on_how_a_scene_is_cut(name, settings, classes, h, w, size, seed):
    network = made(name, settings, dates=2, classes=classes, seed=seed)
    step = network.stride
    cube, valid = torch.randn(1, 2, 2, h, w), torch.rand(1, 2, h, w) < 0.8
    time = torch.tensor([[0.0, 16.0]])
    whole = tiled_scores(network, cube, valid, time, -(-max(h, w) // step) * step)
    tiled = tiled_scores(network, cube, valid, time, size * step)
    assert torch.allclose(tiled, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "settings"), PIXEL + LAND)
def test_without_classes_it_gives_reconstruction_and_embedding(name, settings):
    network = made(name, settings, bands=2, dates=3, classes=0)
    assert isinstance(network, EncodingNetwork)
    cube, valid, time = scene(network)
    with torch.no_grad():
        found = network(cube, valid, time)
        assert found.shape[1] == network.outputs == 6 + network.features
        reconstruction, embedding = network.split(found)
        encoded = network.encode(cube, valid)
        coarse = network.embedding(encoded)
        assert torch.equal(reconstruction, network.decode(coarse))
    step = network.stride
    assert torch.equal(embedding[..., 1::step, step - 1 :: step] if step > 1 else embedding, coarse)
    assert torch.allclose(scores(prepare(network), cube, valid, time), found, atol=1e-5, rtol=0)


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize(("name", "settings"), PIXEL + LAND)
def test_values_that_are_not_valid_change_nothing(name, settings, classes):
    network = made(name, settings, dates=2, classes=classes)
    cube, valid, time = scene(network)
    other = torch.where(valid[:, :, None], cube, torch.nan)
    with torch.no_grad():
        assert torch.equal(network(cube, valid, time), network(other, valid, time))
        if classes == 0:
            task = ReconstructionTask(network, TrainingSettings()).eval()
            batches = ({"cube": c, "valid": valid, "time": time} for c in (cube, other))
            first, second = (task.loss(b) for b in batches)
            assert torch.equal(first[0], second[0])


@pytest.mark.parametrize(("name", "settings"), PIXEL + LAND)
def test_a_network_for_classes_has_the_same_encoder_and_no_decoder(name, settings):
    without = made(name, settings, dates=2, classes=0).state_dict()
    with_ = made(name, settings, dates=2, classes=3).state_dict()
    encoders = [{k: v.shape for k, v in state.items() if k.startswith("encoder.")} for state in (without, with_)]
    assert encoders[0] == encoders[1]
    assert {k.split(".")[0] for k in without} == {"encoder", "decoder"}
    assert {k.split(".")[0] for k in with_} == {"encoder", "head"}


@pytest.mark.parametrize(
    ("bands", "dates", "settings", "features"),
    [(10, 1, {}, 3), (10, 24, {}, 32), (4, 1, {"looks_at": "land"}, 5), (10, 1, {"code": 7}, 7), (1, 2, {}, 1)],
)
def test_the_code_is_narrower_than_what_it_stands_for(bands, dates, settings, features):
    assert build("autoencoder", settings, bands=bands, dates=dates, classes=0).features == features


def test_a_code_that_can_copy_is_refused_unless_it_must_undo_something():
    with pytest.raises(ModelError, match=r"model.code: found 8, 8 numbers for 8 values"):
        build("autoencoder", {"code": 8}, bands=4, dates=2, classes=0)
    build("autoencoder", {"code": 8, "corruption": "noise"}, bands=4, dates=2, classes=0)
    build("autoencoder", {"code": 8}, bands=4, dates=2, classes=3)

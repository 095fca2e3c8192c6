"""Networks as ONNX: the file says what torch says, and is refused where it does not."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from test_bundle import bundle
from test_run import cli

from models.bundle import Bundle
from models.inference import prepare
from models.network import ModelError
from models.onnx import Session, difference, quantise, write_onnx
from models.table import build
from workflows import export

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The folder of a bundle, exported by the command line."""
    folder = tmp_path_factory.mktemp("exported")
    bundle("unet", {"width": 4}).save(folder)
    assert cli("export", folder, "--onnx", "-q") == 0
    return folder


def test_an_exported_network_normalises_by_itself_and_takes_any_size(exported):
    saved = Bundle.load(exported)
    session = onnxruntime.InferenceSession(str(exported / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["cube", "valid", "time"]
    assert [o.name for o in session.get_outputs()] == ["scores"]
    mean, std = (np.asarray(v, np.float32)[:, None, None] for v in (saved.mean, saved.std))
    rng = np.random.default_rng(0)
    for shape in ((1, 6, 10), (3, 32, 48)):
        dates, bands = saved.network.dates, saved.network.bands
        raw = rng.normal(mean, std, (shape[0], dates, bands, *shape[1:])).astype(np.float32)
        valid = rng.random((shape[0], dates, *shape[1:])) < 0.8
        raw[~np.broadcast_to(valid[:, :, None], raw.shape)] = np.nan
        time = np.tile(np.asarray(saved.time, np.float32), (shape[0], 1))
        found = session.run(None, {"cube": raw, "valid": valid, "time": time})[0]
        with torch.no_grad():
            normal = torch.from_numpy((raw - mean) / std)
            expected = saved.network(normal, torch.from_numpy(valid), torch.from_numpy(time))
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_file_says_what_it_takes(exported):
    saved, proto = Bundle.load(exported), onnx.load(exported / "model.onnx")
    said = {p.key: p.value for p in proto.metadata_props}
    assert json.loads(said["bands"]) == saved.bands
    assert json.loads(said["mean"]) == saved.mean
    assert [c["name"] for c in json.loads(said["classes"])] == [c["name"] for c in saved.legend]
    assert (said["halo"], said["stride"], said["checksum"]) == (str(saved.network.halo), "2", saved.checksum)
    assert "site-packages" not in str(proto), "no path of this machine is in the file"


def test_a_file_that_says_something_else_is_not_left(exported, tmp_path, monkeypatch, capfd):
    def other(network, path, **_):
        path.write_bytes((exported / "model.onnx").read_bytes())
        network.network.head.bias.data[0] += 0.5

    path = tmp_path / "other.onnx"
    monkeypatch.setattr(export, "write_onnx", other)
    assert cli("export", exported, "--onnx", "-q", "-o", path) == 1
    assert "differ from those of torch by up to 0.5, allowed are 0.0001" in " ".join(capfd.readouterr().err.split())
    assert not path.exists()
    assert cli("export", exported) == 2


def test_a_recurrent_network_in_series_of_gaps(tmp_path):
    torch.manual_seed(0)
    network = prepare(build("lstm", {}, bands=3, dates=5, classes=4))
    write_onnx(network, tmp_path / "n.onnx")
    tiles = []
    for b, side in ((1, 3), (2, 5)):
        valid = torch.rand(b, 5, side, side) < 0.6
        tiles.append((torch.randn(b, 5, 3, side, side), valid, 9.0 + torch.arange(5)[None].repeat(b, 1) * 16))
    assert difference(network, Session(network, tmp_path / "n.onnx"), tiles) < 1e-5
    with pytest.raises(ModelError, match="no static eight-bit form of recurrent layers, which 'lstm' is made of"):
        quantise(tmp_path / "n.onnx", tmp_path / "q.onnx", tiles, "lstm")


def test_eight_bits_are_eight_bits(tmp_path):
    torch.manual_seed(0)
    network = prepare(build("unet", {"width": 4}, bands=3, dates=1, classes=4))
    tile = torch.randn(1, 1, 3, 32, 32), torch.ones(1, 1, 32, 32, dtype=torch.bool), torch.zeros(1, 1)
    write_onnx(network, tmp_path / "n.onnx")
    quantise(tmp_path / "n.onnx", tmp_path / "q.onnx", [tile], "unet")
    graph = onnx.load(tmp_path / "q.onnx").graph
    weights = {i.name: i for i in graph.initializer}
    quantised = [n for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in weights]
    assert sum(weights[n.input[0]].data_type == onnx.TensorProto.INT8 for n in quantised) >= 8
    found = difference(network, Session(network, tmp_path / "q.onnx"), [tile])
    with torch.inference_mode():
        assert 0 < found < 0.2 * network(*tile).std() * 4

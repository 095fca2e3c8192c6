"""Fast paths: what they compute, and that none is taken unless classes stay as they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from conftest import write_scene

from models.bundle import Bundle
from models.fast import halved, native_half
from models.inference import prepare, scores
from models.network import ModelError
from models.onnx import require
from models.settings import SaliencySettings
from models.table import NETWORKS, build, network_class
from pipeline.imagery.open import open_cube
from pipeline.maps.store import PartStore
from pipeline.settings import ComputeSettings, ImagerySettings
from workflows import gate
from workflows.console import Console
from workflows.output import Output
from workflows.predict import make_map
from workflows.request import MapRequest
from workflows.settings import PredictSettings

torch.set_num_threads(1)


def tile(network, side=16):
    cube = torch.randn(1, network.dates, network.bands, side, side)
    valid = torch.rand(1, network.dates, side, side) < 0.8
    return cube, valid, 30.0 + torch.arange(network.dates)[None] * 16.0


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_runs_in_half_precision_and_answers_in_single(name):
    torch.manual_seed(0)
    dates = 5 if network_class(name).temporal else 1
    network = prepare(build(name, {}, bands=3, dates=dates, classes=4))
    x = tile(network, 2 * max(network.stride, 8))
    exact = scores(network, *x)
    half = halved(network, torch.bfloat16)
    found = scores(half, *x)
    assert found.dtype == torch.float32
    assert {p.dtype for p in network.parameters()} == {torch.float32}, "the exact path is left alone"
    # A thousandth of the spread would be single precision; more than a tenth, something is wrong with it.
    assert 1e-4 < (found - exact).std() / exact.std() < 0.1


def test_days_keep_their_precision_in_half():
    network = prepare(build("ltae", {}, bands=2, dates=3, classes=4))
    cube, valid, _ = tile(network)
    half = halved(network, torch.bfloat16)
    days = torch.tensor([[300.0, 301.0, 302.0]])
    assert (days.bfloat16() == 300).sum() == 2, "bf16 cannot tell them apart"
    near, far = (scores(half, cube, valid, x) for x in (days, torch.full((1, 3), 300.0)))
    assert not torch.equal(near, far)


def test_half_precision_is_native_only_where_the_processor_has_it(monkeypatch):
    cpu = torch.device("cpu")
    for has, expected in ((True, "torch-bf16"), (False, None)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has=has: has)
        assert native_half(cpu) == expected
    for has, expected in ((True, "torch-bf16"), (False, "torch-fp16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=has: has)
        assert native_half(torch.device("cuda")) == expected


@pytest.fixture(scope="module")
def bundled(tmp_path_factory):
    """A scene of 96 pixels and a network that has not learned anything."""
    folder = tmp_path_factory.mktemp("fast")
    write_scene(folder / "scene.tif")
    torch.manual_seed(2)
    network = build("unet", {"width": 4}, bands=3, dates=1, classes=3)
    with rasterio.open(folder / "scene.tif") as raster, torch.no_grad():
        # Two classes as likely as each other: half precision moves the border between them.
        cube = (torch.from_numpy(raster.read()).float() - 900) / 700
        found = network.eval()(cube[None, None], torch.ones(1, 1, 96, 96, dtype=torch.bool), torch.zeros(1, 1))[0]
        network.head.bias[1] += (found[0] - found[1]).median()
        network.head.bias[2] = -99
    legend = [{"name": n, "code": i, "color": "#102030", "values": [n]} for i, n in enumerate("abc", 1)]
    Bundle(
        task={"name": "classification"}, network=network, bands=["green", "red", "nir"], dates=[None], time=[0.0],
        mean=[900.0] * 3, std=[700.0] * 3, legend=legend, temperature=1.0, figures={}, training={},
        imagery={}, created="2020-01-01T00:00:00+00:00",
    ).save(folder / "model")  # fmt: skip
    return folder


@pytest.fixture(autouse=True)
def _any_machine(monkeypatch):
    """Let any machine take half precision: so small a network may be emulated."""
    monkeypatch.setattr(gate, "native", lambda name, device: True)


def request(folder: Path, engine: str, layers=("classes",), **compute) -> MapRequest:
    cube, _ = open_cube([ImagerySettings(path=str(folder / "scene.tif"))], None, None)
    return MapRequest(
        bundle=Bundle.load(folder / "model"), folder=folder / "model", cube=cube,
        predict=PredictSettings(layers=list(layers), engine=engine, block=32), saliency=SaliencySettings(),
        compute=ComputeSettings(threads=1, **compute), key_imagery={}, software={"landweave": "test"},
    )  # fmt: skip


def mapped(folder: Path, out: Path, engine: str, *layers, **compute) -> bytes:
    asked = request(folder, engine, layers or ("classes",), **compute)
    make_map(asked, Output(out), Console(quiet=True), overwrite=False)
    return (out / "maps" / "classes.tif").read_bytes()


def told(out: Path, layer="classes") -> str:
    with rasterio.open(out / "maps" / f"{layer}.tif") as raster:
        return raster.tags()["engine"]


def values(out: Path):
    with rasterio.open(out / "maps" / "classes.tif") as raster:
        return raster.read(1)


def test_a_fast_path_that_agrees_is_taken_and_the_map_says_so(bundled, tmp_path, capfd, monkeypatch):
    mapped(bundled, tmp_path / "exact", "torch")
    assert told(tmp_path / "exact") == "torch"
    monkeypatch.setattr(gate, "AGREEMENT", 0.5)
    make_map(request(bundled, "torch-bf16"), Output(tmp_path / "fast"), Console(), overwrite=False)
    assert told(tmp_path / "fast").startswith("torch-bf16: classes of ")
    spoken = " ".join(capfd.readouterr().err.split())
    assert "of 9,191 sampled pixels are those of the exact path; " in spoken
    assert "times as fast" in spoken
    assert "times as fast" not in told(tmp_path / "fast"), "a map holds nothing that another run would not repeat"
    share = (values(tmp_path / "exact") == values(tmp_path / "fast")).mean()
    assert 0.9 < share < 1, "bf16 moves a few pixels of an untrained network"
    said = float(told(tmp_path / "fast").split(" of ")[1].split(" %")[0])
    assert said == pytest.approx(100 * (values(tmp_path / "exact") == values(tmp_path / "fast"))[5:, 5:].mean(), abs=1)


def test_a_fast_path_that_disagrees_is_not_taken(bundled, tmp_path, monkeypatch):
    exact = mapped(bundled, tmp_path / "exact", "torch")
    monkeypatch.setattr(gate, "AGREEMENT", 1.0)
    mapped(bundled, tmp_path / "fast", "torch-bf16")
    assert told(tmp_path / "fast").startswith("torch, not torch-bf16: classes of 99.")
    assert np.array_equal(values(tmp_path / "exact"), values(tmp_path / "fast"))
    assert exact != (tmp_path / "fast" / "maps" / "classes.tif").read_bytes(), "the tags differ"


def test_probabilities_must_be_close_too_where_they_are_mapped(bundled, tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "AGREEMENT", 0.5)
    monkeypatch.setattr(gate, "_CLOSE", 1e-6)
    mapped(bundled, tmp_path / "fast", "torch-bf16", "classes", "probabilities")
    assert told(tmp_path / "fast").startswith("torch, not torch-bf16: classes of ")
    assert "their probabilities within 1e-06, and 50 % must be" in told(tmp_path / "fast", "probabilities")


def test_auto_takes_no_path_that_is_not_faster(bundled, tmp_path, capfd, monkeypatch):
    mapped(bundled, tmp_path / "exact", "torch")
    monkeypatch.setattr(gate, "AGREEMENT", 0.5)
    monkeypatch.setattr(gate, "native_half", lambda device: "torch-bf16")
    monkeypatch.setattr(gate, "_FASTER", 1e9)
    make_map(request(bundled, "auto"), Output(tmp_path / "a"), Console(), overwrite=False)
    assert "torch-bf16 is not clearly faster here; the exact path is taken" in " ".join(capfd.readouterr().err.split())
    assert np.array_equal(values(tmp_path / "a"), values(tmp_path / "exact"))
    monkeypatch.setattr(gate, "_FASTER", 0.0)
    mapped(bundled, tmp_path / "b", "auto")
    assert told(tmp_path / "b").startswith("torch-bf16: ")
    monkeypatch.setattr(gate, "native_half", lambda device: None)
    make_map(request(bundled, "auto"), Output(tmp_path / "c"), Console(), overwrite=False)
    assert "no precision faster than single" in " ".join(capfd.readouterr().err.split())


def test_half_precision_is_not_emulated(bundled, tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "native", lambda name, device: False)
    mapped(bundled, tmp_path / "out", "torch-fp16")
    assert told(tmp_path / "out") == "torch, not torch-fp16: this machine has no instructions for it"


def test_what_is_explained_is_exact(bundled, tmp_path):
    mapped(bundled, tmp_path / "out", "torch-bf16", "classes", "saliency")
    assert told(tmp_path / "out").startswith("torch, not torch-bf16: a map that is explained")
    with rasterio.open(tmp_path / "out" / "maps" / "saliency.tif") as raster:
        assert "engine" not in raster.tags()


@pytest.mark.parametrize("engine", ["torch-bf16", "onnx-int8"])
def test_a_resumed_map_keeps_its_engine(bundled, tmp_path, engine, monkeypatch):
    monkeypatch.setattr(gate, "AGREEMENT", 0.0)
    whole = mapped(bundled, tmp_path / "whole", engine)
    record = PartStore.record

    def killed(store, part):
        record(store, part)
        if len(store.records) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PartStore, "record", killed)
        with pytest.raises(KeyboardInterrupt):
            mapped(bundled, tmp_path / "again", engine)
    # Were it tried out again, it would now be refused.
    monkeypatch.setattr(gate, "AGREEMENT", 2.0)
    state = json.loads((tmp_path / "again" / ".landweave" / "predict.json").read_text())
    assert state["choice"]["engine"]["name"] == engine
    assert mapped(bundled, tmp_path / "again", engine) == whole
    assert not list((tmp_path / "again" / ".landweave").glob("*.onnx"))


def test_processes_make_the_same_map_as_threads(bundled, tmp_path):
    one = mapped(bundled, tmp_path / "one", "onnx")
    assert told(tmp_path / "one").startswith("onnx: classes of 100.00 %")
    assert mapped(bundled, tmp_path / "two", "onnx", workers=2) == one


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(
        ModelError, match=r"predict.engine: onnx needs onnxscript, which is not installed.*landweave\[onnx\]"
    ):
        require("predict.engine: onnx")

"""On what a training computes: precision of the device, compiled networks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from models.machine import compiled, options
from models.network import ModelError
from models.settings import TrainingSettings
from models.table import build


@pytest.mark.parametrize(("good", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_bf16_is_taken_where_the_device_computes_it_itself(
    monkeypatch: pytest.MonkeyPatch, good: bool, expected: str
) -> None:
    assert options(TrainingSettings())["precision"] == "32-true"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    # Emulated it is everywhere.
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: including_emulation or good)
    assert options(TrainingSettings())["precision"] == expected


def test_without_a_compiler_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build("mlp", {}, bands=3, dates=1, classes=3)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with (
        pytest.raises(ModelError, match=r"training.compile: no C\+\+ compiler is found here"),
        compiled(network, TrainingSettings(compile=True)),
    ):
        pass


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch, of itself
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="there is no C++ compiler")
def test_a_compiled_network_computes_the_same_and_keeps_its_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("torch._inductor.config.cpp_cache_precompile_headers", False)  # worth it for many kernels
    network = build("mlp", {"hidden": [8], "dropout": 0.0}, bands=3, dates=1, classes=3)
    names = list(network.state_dict())
    given = torch.randn(2, 1, 3, 4, 4), torch.ones(2, 1, 4, 4, dtype=torch.bool), torch.zeros(2, 1)
    plain = network.forward
    with torch.no_grad():
        expected = network(*given)
    with compiled(network, TrainingSettings(compile=True)), torch.no_grad():
        assert network.forward != plain
        found = network(*given)
        assert list(network.state_dict()) == names
    assert network.forward == plain
    assert torch.allclose(found, expected, atol=1e-6)

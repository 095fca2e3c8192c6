"""A network that learns from patches: cut, trained, mapped and measured like any other."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import write_job
from test_run import cli
from torch import nn

from models.network import Network, NetworkSettings, masked
from models.table import NETWORKS
from pipeline.samples.chips import ChipStore
from pipeline.samples.folds import TRAIN

HALO = 3


class Around(Network):
    """A network of three convolutions over the bands of one date, for tests."""

    name = "around"
    centred = True
    Settings = NetworkSettings
    stride = 1
    radius = HALO
    chip = 2 * HALO + 1

    def __init__(self, settings: NetworkSettings, **sizes: int) -> None:
        super().__init__(settings, **sizes)
        widths = [self.dates * self.bands, 8, 8, self.classes]
        pairs = itertools.pairwise(widths)
        convs = [m for a, b in pairs for m in (nn.Conv2d(a, b, 3, padding=1), nn.ReLU())]
        self.layers = nn.Sequential(*convs[:-1])

    def forward(self, cube: Any, valid: Any, time: Any) -> Any:
        self.check(cube)
        return self.layers(masked(cube, valid).flatten(1, 2))


@pytest.fixture
def around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "around", f"{__name__}:Around")


@pytest.mark.usefixtures("around")
def test_a_network_of_patches_learns_maps_and_is_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_job(folder / "job.yaml", model={"name": "around"}, chips={"max_per_class": 60}, folds={"k": 0, "buffer": 0})
    assert cli("check", folder / "job.yaml") == 0
    assert "7 x 7 px, one around each labelled pixel" in capsys.readouterr().err
    short = ("--set", "training.epochs=5", "--set", "training.optimizer.lr=0.01", "--set", "predict.layers=[classes]")
    assert cli("run", folder / "job.yaml", *short) == 0
    assert "labelled pixels are drawn" in capsys.readouterr().err
    store = ChipStore.open(folder / "out" / "chips.zarr")
    assert (store.size, store.margin, store.kind) == (7, HALO, "patches")
    assert (store.counts(0, TRAIN) <= 100).all()
    accuracy = json.loads((folder / "out" / "report" / "accuracy.json").read_text())
    assert accuracy["overall"] > 0.9
    # Scores of the test are those of the map, not those of patches that end where they end.
    (said,) = [n for n in accuracy["notes"] if "read back" in n]
    assert said.startswith(f"{accuracy['n']} of {accuracy['n']} test pixels")
    with rasterio.open(folder / "out" / "maps" / "classes.tif") as raster:
        assert set(np.unique(raster.read(1))) == {0, 1, 2, 3}


@pytest.mark.usefixtures("around")
def test_the_size_of_a_patch_is_the_networks_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_job(folder / "job.yaml", model={"name": "around"})
    assert cli("prepare", folder / "job.yaml", "--set", "chips.size=16") == 2
    assert "chips.size: found 16, but the network 'around' learns from patches of 7 x 7" in capsys.readouterr().err

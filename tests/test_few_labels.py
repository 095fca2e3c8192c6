"""Few labels and much land: what is learnt beside them, or before them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from conftest import write_chips, write_job, write_labels, write_scene
from test_cli import said
from test_run import cli

from models.bundle import Bundle
from pipeline.imagery.statistics import Statistics
from pipeline.samples.chips import ALL, ChipStore
from pipeline.samples.datamodule import ChipDataModule
from pipeline.samples.folds import TRAIN
from pipeline.samples.pixels import moments_of

CNN: dict[str, Any] = {"name": "cnn", "patch": 7, "filters": [4], "pool": 1}
GAN: dict[str, Any] = {**CNN, "name": "gan", "generator_width": 2}
TRAINING: dict[str, Any] = {"epochs": 2, "track": ["csv"], "check_batch": False}


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A folder with `scene.tif` and `fields.gpkg`."""
    write_scene(tmp_path / "scene.tif", side=60)
    write_labels(tmp_path / "fields.gpkg", side=60)
    return tmp_path


def test_land_without_labels_is_cut_beside_the_labelled_and_seen_in_every_batch(
    scene: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    chips = {"samples": 50, "max_per_class": 20}
    plain = write_job(scene / "plain.yaml", model=CNN, chips=chips)
    assert cli("prepare", plain, "-q") == 0
    job = write_job(scene / "job.yaml", model=GAN, training=TRAINING, chips=chips, predict={"layers": ["classes"]})
    # The same patches, but with land beside them: other samples.
    assert "unlabelled: false -> true" in said(capfd, "run", job)
    assert cli("run", job, "-q", "--overwrite") == 0
    land = ChipStore.open(scene / "out" / "unlabelled.zarr")
    # All that were drawn, but for those in the corner without data: `max_per_class` is about labels.
    assert 48 <= len(land) <= 50
    assert (land.size, land.kind) == (7, "patches")
    store = ChipStore.open(scene / "out" / "chips.zarr")
    statistics = Statistics.from_moments(moments_of(store, 0))
    data = ChipDataModule(store.path, 0, statistics, batch_size=8, unlabelled=land.path)
    for batch in data.train_dataloader():
        assert batch["cube"].shape[1:] == batch["unlabelled"]["cube"].shape[1:]
        assert len(batch["unlabelled"]["cube"]) == 32
    # Drawn from all of the land, and from nothing else.
    values = land.read(land.indices(ALL, TRAIN))[0]
    known = {tuple(v.tolist()) for v in statistics.normalise(values, np.isfinite(values).all(2))[:, 0, :, 3, 3]}
    assert {tuple(v.tolist()) for v in batch["unlabelled"]["cube"][:, 0, :, 3, 3]} <= known
    metrics = (scene / "out" / "model" / "metrics.csv").read_text()
    assert "train_unsupervised" in metrics
    with rasterio.open(scene / "out" / "maps" / "classes.tif") as raster:
        assert set(raster.read(1).ravel().tolist()) <= {0, 1, 2, 3}


def test_without_imagery_the_chips_themselves_are_the_land(tmp_path: Path) -> None:
    write_chips(tmp_path / "chips", side=7, per_class=8)
    job = write_job(tmp_path / "job.yaml", imagery=[], labels={"chips": "chips"}, model=GAN, training=TRAINING)
    assert cli("run", job, "-q") == 0
    notes = json.loads((tmp_path / "out" / "run.json").read_text())["notes"]
    assert "the chips come without imagery: the network 'gan' learns from them alone" in notes
    assert "train_unsupervised" in (tmp_path / "out" / "model" / "metrics.csv").read_text()


def test_what_was_learnt_without_labels_is_where_classes_begin(scene: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = {"name": "autoencoder", "code": 2, "width": 8}
    before = write_job(scene / "before.yaml", model=model, training=TRAINING, output="before", chips={"samples": 500})
    job = before.read_text().replace("labels:\n  field: class\n  path: fields.gpkg\n", "task: reconstruction\n")
    before.write_text(job)
    assert cli("train", before, "-q", "--set", "reconstruction.clusters=2") == 0
    own = {
        "model": {**model, "pretrained": "before/model"},
        "training": TRAINING | {"epochs": 1, "optimizer": {"lr": 1e-9}},
    }
    job = write_job(scene / "job.yaml", **own, predict={"layers": ["classes"]})
    assert cli("run", job, "-q") == 0
    learnt, begun = Bundle.load(scene / "before" / "model"), Bundle.load(scene / "out" / "model")
    # A step of next to nothing: the encoder is still the one that was given, and so is what its values were normalised by.
    for name, value in learnt.network.state_dict().items():
        if name.startswith("encoder.") and name.endswith("weight"):
            torch.testing.assert_close(begun.network.state_dict()[name], value, atol=1e-5, rtol=0)
    assert (begun.mean, begun.std) == (learnt.mean, learnt.std)
    assert begun.task == {"name": "classification"}
    # Its weights belong to values of that scale.
    message = said(capfd, "check", job, "--set", "imagery.0.scale=0.0001")
    assert "green: the model wants scale 1, offset 0; the imagery has scale 0.0001" in message
    message = said(capfd, "check", job, "--set", "model.width=4")
    assert "model.pretrained: it holds a network 'autoencoder' that does not fit, width 8 there and 4 here" in message
    message = said(capfd, "check", job, "--set", "model.pretrained=nowhere")
    assert "nowhere holds no bundle.json: it is not a trained model" in message

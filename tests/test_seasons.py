"""What classes look like over time, and what `init` finds in the names of dated files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import write_scene, write_season
from test_run import cli

from pipeline.samples.folds import TRAIN
from pipeline.samples.pixels import labelled
from pipeline.samples.series import open_series
from pipeline.samples.standalone import divide_samples, store_samples
from pipeline.settings import FoldSettings, LabelSettings
from workflows.seasons import seasons_of
from workflows.timecharts import season_charts


@pytest.fixture
def season(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_season(tmp_path)


def test_seasons_are_the_quartiles_of_what_trains(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = ["sample_id,date,ndvi,label"]
    for i in range(40):
        for day in (1, 9, 20) if i % 5 else (1, 9):
            rows.append(f"{i},2020-01-{day:02},{rng.normal(i % 2, 0.2):.4f},{'ab'[i % 2]}")
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n")
    labels = LabelSettings(series=str(tmp_path / "a.csv"))
    table = open_series(labels, None)
    folds = divide_samples(table, FoldSettings(method="features", k=0), labels)
    store = store_samples(table, folds, radius=0, path=tmp_path / "a.zarr", key="k")
    seasons = seasons_of(store)
    assert seasons is not None
    assert seasons.days.tolist() == [0, 8, 19]
    values, target = labelled(store, 0, TRAIN, store.indices(0, TRAIN))
    for k in (0, 1):
        expected = np.nanpercentile(values[target == k], (25, 50, 75), axis=0)
        np.testing.assert_allclose(np.stack([seasons.low[k], seasons.middle[k], seasons.high[k]]), expected, rtol=1e-6)
    (chart,) = season_charts(seasons)
    assert "ndvi over time" in chart


def test_init_finds_dates_and_periods(season: Path) -> None:
    options = ["--labels", "seasons.csv", "--field", "class", "-o", "job.yaml", "-q"]
    assert cli("init", "season/*.tif", *options, "--set", "imagery.0.bands={red: 1, nir: 2}") == 0
    job = yaml.safe_load(Path("job.yaml").read_text())
    assert job["imagery"][0]["date"] == "%Y%m%d"
    assert (job["labels"]["from"], job["labels"]["to"]) == ("from", "to")
    assert job["model"]["name"] == "lstm"
    assert cli("check", "job.yaml", "-q") == 0


def test_init_takes_one_scene_for_one_scene(season: Path) -> None:
    write_scene(season / "scene_20200101.tif", side=48)
    options = ["--labels", "seasons.csv", "--field", "class", "-o", "job.yaml", "-q"]
    assert cli("init", "scene_20200101.tif", *options) == 0
    job = yaml.safe_load(Path("job.yaml").read_text())
    assert "date" not in job["imagery"][0]
    assert job["model"]["name"] == "unet"

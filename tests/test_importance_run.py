"""Which bands and dates matter: maps and samples summed up and reported."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from conftest import write_chips, write_job, write_labels, write_scene, write_season

from pipeline.samples.chips import ChipStore
from tests.oracles_explanations import shares_by_hand
from workflows.console import Console
from workflows.context import Context
from workflows.importance import summarise
from workflows.load import load_job
from workflows.reporting import report
from workflows.run import run
from workflows.train import trained
from workflows.windows import held_out_windows, windows_of

torch.set_num_threads(1)


def summarised(job: Path, stages: tuple[str, ...]) -> tuple[Context, dict[str, Any], str]:
    """Return a job after its stages and its summary, with the report's page."""
    context = Context(load_job(job), Console(quiet=True))
    run(context, stages)
    left = summarise(context, trained(context))
    return context, left, report(context).read_text(encoding="utf-8")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_map_is_summed_up_and_reported(tmp_path):
    write_scene(tmp_path / "scene.tif", side=60)
    write_labels(tmp_path / "fields.gpkg", side=60)
    job = write_job(
        tmp_path / "job.yaml",
        saliency={"method": ["gradient", "occlusion_band"]},
        training={"epochs": 30, "track": ["csv"]},  # so many that each class is on the map
    )
    context, left, page = summarised(job, ("prepare", "train", "predict", "evaluate"))
    report_ = tmp_path / "out" / "report"
    table = rows_of(report_ / "saliency.csv")
    assert list(table[0])[:3] == ["method", "class", "axis"]
    with rasterio.open(tmp_path / "out" / "maps" / "saliency_bands.tif") as raster:
        values = raster.read()
    with rasterio.open(tmp_path / "out" / "maps" / "classes.tif") as raster:
        codes = raster.read(1)
    for c in context.legend.classes:
        mean, *_, pixels = shares_by_hand(values, codes, c.code)
        own = [row for row in table if row["class"] == c.name and row["method"] == "gradient"]
        assert [float(row["share_mean"]) for row in own] == pytest.approx(mean.tolist(), abs=1e-5)
        assert [(row["name"], int(row["pixels"])) for row in own] == [(b, pixels) for b in ("green", "red", "nir")]
        assert not own[0]["value_mean"]
    assert all(row["value_mean"] for row in table if row["method"] == "occlusion_band")
    lost = rows_of(report_ / "permutation.csv")
    assert [row["name"] for row in lost] == ["green", "red", "nir"]
    assert max(float(row["lost_overall_mean"]) for row in lost) > 0.1
    assert left["before"]["overall"] == pytest.approx(1, abs=0.2)
    # One section after another, each table with its figures, and the picture of the dominant band.
    assert page.index("How sure, and why") < page.index("What the network looked at") < page.index("<h2>Accuracy")
    assert "What it looked at, by occlusion of bands" in page
    assert "for it both are the same" in page
    assert re.search(r'<th scope="col"><i class="swatch"[^>]*></i>water</th>', page)
    first = next(row for row in table if row["name"] == "nir" and row["class"] == "forest")
    assert f"{100 * float(first['share_mean']):.0f}<small>" in page
    assert "when a band is replaced" in page
    assert page.count("The band that counts most") >= 2
    assert "../maps/saliency_occlusion_band_bands.tif" in page
    # Places of single pixels, taken from the samples, are what the imagery holds there.
    store = ChipStore.open(context.output.chips)
    ((scorer, held_out),) = held_out_windows(context, store, 50)
    rows, columns = np.array(held_out.origins).T
    again = windows_of(scorer, context.imaged, rows, columns, np.zeros(len(rows), np.int64), held_out.truth)
    for name in ("cube", "valid", "time", "own"):
        assert torch.equal(getattr(held_out, name), getattr(again, name))
    assert held_out.origins == again.origins
    # Nothing is done twice; another model's figures are not shown.
    assert summarise(context, trained(context)) == left
    state = context.output.state("importance")
    assert state is not None
    context.output.finish("importance", state["key"] | {"model": "another"}, **state["left"])
    assert "What the network looked at" not in report(context).read_text(encoding="utf-8")


def test_seasons_are_drawn_over_their_days(tmp_path):
    write_season(tmp_path, side=36)
    job = write_job(
        tmp_path / "job.yaml",
        imagery=[{"path": "season/S2_*.tif", "bands": {"red": 1, "nir": 2}, "date": "%Y%m%d",
                  "mask": {"band": 3, "exclude": [1]}}],
        labels={"path": "seasons.csv", "field": "class", "from": "from", "to": "to"},
        temporal={"every": 60, "fill": "linear"}, model={"name": "mlp", "hidden": [8]}, predict={"periods": "labels"},
    )  # fmt: skip
    _, left, page = summarised(job, ("prepare", "train", "predict", "evaluate"))
    table = rows_of(tmp_path / "out" / "report" / "saliency.csv")
    periods = list(dict.fromkeys(row["period"] for row in table))
    assert len(periods) == 2
    dates = {
        p: list(dict.fromkeys(r["name"] for r in table if r["period"] == p and r["axis"] == "date")) for p in periods
    }
    assert [d[:4] for names in dates.values() for d in (names[0], names[-1])] == ["2020", "2020", "2021", "2021"]
    for period, names in dates.items():
        assert list(left["days"][period]) == names
    # Dates of the test fold are of both years: they are called by their day.
    assert all(row["name"].startswith("day ") for row in left["lost"] if row["axis"] == "date")
    assert "Share of each date, by day" in page
    assert "when a date is replaced" in page


def test_samples_without_imagery_speak_for_themselves(tmp_path):
    write_chips(tmp_path / "chips", side=7)
    model = {"name": "cnn", "patch": 7, "filters": [4], "pool": 1}
    job = write_job(tmp_path / "job.yaml", imagery=[], labels={"chips": "chips"}, model=model)
    _, left, page = summarised(job, ("prepare", "train", "evaluate"))
    assert not left["mapped"]
    table = rows_of(tmp_path / "out" / "report" / "saliency.csv")
    assert {row["axis"] for row in table} == {"band"}
    samples = {row["class"]: int(row["pixels"]) for row in table}
    assert sum(samples.values()) == left["places"]
    assert "over samples of the test fold" in page

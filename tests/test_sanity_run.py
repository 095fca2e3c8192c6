"""Checks of explanations in a trained job, to the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CRS, write_chips, write_job, write_plots, write_scene

from pipeline.errors import RequestError
from workflows import randomisation
from workflows.console import Console
from workflows.context import Context
from workflows.explain import explain
from workflows.load import load_job, make_job
from workflows.sanity import sanity, shown
from workflows.train import train

torch.set_num_threads(1)


def checked(path: Path, *overrides: str) -> tuple[dict[str, Any], Path]:
    context = Context(load_job(path, overrides), Console(quiet=True))
    return sanity(context, train(context)), context.output.report / "sanity.json"


def test_a_trained_job_is_checked_to_the_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(randomisation, "_BUDGET", 200_000)
    path = write_job(
        folder / "job.yaml",
        training={"epochs": 25, "optimizer": {"name": "adamw", "lr": 0.02}, "track": ["csv"]},
        model={"name": "mlp", "hidden": [16], "activation": "tanh"},
        saliency={"method": ["integrated_gradients", "occlusion_patch"], "samples": 4},
    )
    found, file = checked(path)
    assert json.loads(file.read_text()) == found
    own = found["methods"]["integrated_gradients"]
    assert own["removal"]["verdict"] == found["completeness"]["verdict"] == "good"
    assert {v["verdict"] for v in found["methods"]["occlusion_patch"].values()} == {"not applicable"}
    assert found["agreement"]["band"]["verdict"] in ("good", "fair", "poor")
    assert found["agreement"]["date"]["verdict"] == "not applicable"
    assert (found["quantity"], found["window"]) == ("probability of the class", 1)
    rough, _ = checked(path, "saliency.steps=1", "saliency.method=gradient_input", "saliency.target=margin")
    assert rough["completeness"]["verdict"] == "poor"
    assert rough["model"] == found["model"]
    sections = shown(found)
    assert len(sections[0].rows) == 7
    assert sum(len(s.charts) for s in sections) == 2
    assert [s.title for s in sections][-1] == "How alike methods are over bands"


def test_numbers_and_patches_are_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(randomisation, "_BUDGET", 1)
    write_plots(tmp_path / "plots.csv", write_scene(tmp_path / "scene.tif"), number=60)
    quick: dict[str, Any] = {"training": {"epochs": 2, "track": ["csv"]}, "saliency": {"steps": 2, "samples": 1}}
    job = write_job(
        tmp_path / "job.yaml",
        task="regression",
        labels={"path": "plots.csv", "field": "height", "crs": CRS},
        model={"name": "unet", "width": 2},
        **quick,
    )
    found, _ = checked(job)
    assert (found["quantity"], found["window"]) == ("nearness to the value", 22)
    curve = found["methods"]["gradient"]["removal"]
    assert (curve["deletion"][0], curve["deletion"][-1]) == (pytest.approx(1.0), pytest.approx(0.0))
    write_chips(tmp_path / "chips", per_class=10)
    job = write_job(
        tmp_path / "chips.yaml",
        imagery=[],
        labels={"chips": "chips"},
        output="chips-out",
        model={"name": "cnn", "filters": [4], "pool": 1, "patch": 5, "hidden": [4]},
        **quick,
    )
    found, _ = checked(job)
    assert found["places"] > 1
    assert set(found["methods"]["gradient"]) == {"randomisation", "removal"}


@pytest.mark.parametrize("question", [{}, {"sane": True}, {"at": Path("points.gpkg")}])
def test_what_cannot_be_explained_is_refused(tmp_path: Path, question: dict[str, Any]) -> None:
    job = make_job({"imagery": [{"path": "a.tif"}], "task": "forecast"}, base=tmp_path)
    with pytest.raises(
        RequestError, match="a forecast is not explained by saliency; a classification and a regression are"
    ):
        explain(Context(job, Console(quiet=True)), **question)
    assert not list(tmp_path.iterdir())

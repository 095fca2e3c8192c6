"""The training's options through the command line: what is said, what is drawn, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.test_run import cli


def test_a_rate_that_was_found_and_a_verdict_are_said_and_drawn(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = [
        "model={name: mlp, hidden: [8]}", "training.optimizer.lr=auto", "training.epochs=6", "training.initialisation=xavier",
        "training.loss.name=[cross_entropy, dice]", "training.schedule=one_cycle", "predict.layers=[classes]",
        "training.augment=[flip, scale, radiometric, noise]",
    ]  # fmt: skip
    assert cli("run", folder / "job.yaml", *(part for o in options for part in ("--set", o))) == 0
    said = capfd.readouterr().err
    out = folder / "out"
    test = json.loads((out / "model" / "lr_find.json").read_text())
    assert f"learning rate {test['suggestion']:.2g}, found by a range test" in said
    assert "samples/s" in said
    assert "waiting for data" in said
    page = (out / "report" / "index.html").read_text()
    assert "Learning-rate range test" in page
    sentence = next(
        line.partition("training: ")[2] for line in said.splitlines() if "curves" in line or "loss still" in line
    )
    assert " ".join(sentence.split())[:40] in page


@pytest.mark.parametrize(
    ("augment", "words"),
    [("shift", "the network 'mlp' takes dates by their place"), ("drop", "there is one date only")],
)
def test_changes_of_series_that_would_do_nothing_are_refused(
    folder: Path, capfd: pytest.CaptureFixture[str], augment: str, words: str
) -> None:
    options = ["--set", "model={name: mlp}", "--set", f"training.augment=[{augment}]"]
    assert cli("train", folder / "job.yaml", *options) == 2
    assert words in " ".join(capfd.readouterr().err.split())


def test_a_schedule_that_does_not_exist_is_refused_with_its_place(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli("check", folder / "job.yaml", "--set", "training.schedule=cosin") == 2
    assert "training.schedule" in capfd.readouterr().err

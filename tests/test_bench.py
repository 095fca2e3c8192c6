"""Networks compared: the same folds and pixels for all, differences that can be believed, and nothing trained twice."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_job
from oracles_figures import jackknife_of_f1, patches_by_flood
from test_cli import said
from test_run import cli

import workflows.learn
from models.bundle import Bundle
from pipeline.maps.paired import left_out, patches, standard_error
from pipeline.samples.chips import ChipStore
from pipeline.samples.folds import TEST, TRAIN, VAL
from pipeline.samples.pixels import places_of
from workflows.contest import contest
from workflows.entrant import FOREST, Entrant

UNET = {"name": "unet", "width": 4}


@pytest.fixture(scope="module")
def benched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which two networks were compared, with two seeds."""
    from conftest import write_labels, write_scene

    folder = tmp_path_factory.mktemp("benched")
    write_scene(folder / "scene.tif")
    write_labels(folder / "fields.gpkg")
    write_job(folder / "job.yaml", model=UNET, training={"epochs": 2, "track": ["csv"]})
    assert cli("bench", folder / "job.yaml", "--networks", "unet,mlp", "--seeds", 2, "-q") == 0
    return folder


def figures(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out" / "bench" / "bench.json").read_text())


def test_all_are_measured_on_the_same_pixels(benched: Path) -> None:
    found = figures(benched)
    assert {n["name"] for n in found["networks"]} == {"unet", "mlp", FOREST}
    runs = [run for n in found["networks"] for run in n["runs"]]
    assert len(runs) == 6
    assert {run["n"] for run in runs} == {found["pixels"]}
    stores = {name: ChipStore.open(benched / "out" / "bench" / name / "chips.zarr") for name in ("unet", "mlp")}
    # The widest halo among them, and the same labels in each role.
    assert {store.buffer for store in stores.values()} == {10}
    for role in (TRAIN, VAL, TEST):
        places = [
            sorted(zip(p.rows.tolist(), p.columns.tolist(), p.target.tolist(), strict=True))
            for p in (places_of(store, 0, role) for store in stores.values())
        ]
        assert places[0] == places[1]
    assert len(places_of(stores["mlp"], 0, TEST).target) == found["pixels"]


def test_the_table_is_whole(benched: Path) -> None:
    with (benched / "out" / "bench" / "bench.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert sorted((row["network"], row["seed"]) for row in rows) == [
        (n, s) for n in (FOREST, "mlp", "unet") for s in "01"
    ]
    for row in rows:
        empty = {name for name, value in row.items() if value == ""}
        assert empty <= ({"parameters"} if row["network"] == FOREST else set())
        assert min(float(row[c]) for c in ("seconds", "pixels_per_second", "bytes")) > 0
    found = {n["name"]: n for n in figures(benched)["networks"]}
    for name, network in found.items():
        macro = [float(row["macro_f1"]) for row in rows if row["network"] == name]
        assert network["macro_f1"] == pytest.approx(np.mean(macro), abs=1e-5)
        assert network["spread"] == pytest.approx(np.std(macro, ddof=1), abs=1e-5)
    page = (benched / "out" / "bench" / "index.html").read_text()
    assert "<svg" in page
    assert all(sentence.split(",")[0] in page for sentence in figures(benched)["verdict"])


def test_each_training_is_the_one_that_the_job_alone_would_be(benched: Path) -> None:
    job = write_job(
        benched / "alone.yaml", model=UNET, output="alone", training={"epochs": 2, "track": ["csv"], "seed": 1}
    )
    assert cli("train", job, "-q") == 0
    assert cli("evaluate", job, "-q") == 0
    alone = json.loads((benched / "alone" / "report" / "accuracy.json").read_text())
    run = next(n for n in figures(benched)["networks"] if n["name"] == "unet")["runs"][1]
    assert run["seed"] == 1
    assert run["confusion"] == alone["confusion"]
    # The other network has its defaults, not the settings of the job's own.
    bundle = Bundle.load(benched / "out" / "bench" / "mlp" / "seed-0" / "model")
    assert bundle.network.settings.model_dump()["hidden"] == [64, 64]


def test_what_is_done_is_not_done_again(benched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = figures(benched)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(workflows.learn, "learn_round", never)
    monkeypatch.setattr("workflows.entrant.Forest", never)
    monkeypatch.setattr("workflows.entrant.assess", never)
    assert cli("bench", benched / "job.yaml", "--networks", "mlp,forest,unet", "--seeds", 2, "-q") == 0
    after = figures(benched)
    assert sorted(map(str, after["networks"])) == sorted(map(str, before["networks"]))
    assert cli("bench", benched / "job.yaml", "--networks", "mlp,unet", "--seeds", 1, "-q") == 0
    assert figures(benched)["networks"][0]["spread"] is None
    assert "one seed" in " ".join(figures(benched)["verdict"])


@pytest.mark.parametrize(
    ("networks", "word"),
    [("unet,mpl", "did you mean 'mlp'?"), ("foret", "did you mean 'forest'?"), ("forest", "name one network at least")],
)
def test_networks_that_are_not_there_are_named(
    folder: Path, networks: str, word: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert word in said(capfd, "bench", folder / "job.yaml", "--networks", networks)


def test_patches_are_what_touches() -> None:
    rng = np.random.default_rng(0)
    rows, columns = np.nonzero(rng.random((40, 23)) < 0.25)
    found = patches(rows, columns)
    mine = {
        frozenset(zip(rows[found == i].tolist(), columns[found == i].tolist(), strict=True))
        for i in range(found.max() + 1)
    }
    assert mine == {frozenset(p) for p in patches_by_flood(rows, columns)}
    # The last pixel of a row and the first of the next do not touch.
    assert len(set(patches(np.array([0, 1]), np.array([9, 0])).tolist())) == 2


def test_the_standard_error_is_that_of_leaving_out_one_patch_after_another() -> None:
    rng = np.random.default_rng(1)
    reference = rng.integers(0, 3, 400)
    patch = np.repeat(np.arange(40), 10)
    one, other = (np.where(rng.random(400) < p, reference, rng.integers(0, 3, 400)) for p in (0.8, 0.6))
    mine = standard_error(left_out(reference, one, patch, 3) - left_out(reference, other, patch, 3))
    assert mine == pytest.approx(jackknife_of_f1(reference, one, other, patch), rel=1e-9)
    assert standard_error(np.array([0.5])) is None


def entrant(name: str, seed: int, right: Any, speed: float) -> Entrant:
    """Return a training that is right in whole patches: test pixels lie in rows of ten, one class a row."""
    row, column = np.divmod(np.arange(len(right) * 10), 10)
    target = row % 3
    return Entrant(
        name=name, seed=seed, place=np.stack([0 * row, 2 * row, column], axis=1), target=target,
        predicted=np.where(np.repeat(right, 10), target, (target + 1) % 3), seconds=1.0, speed=speed, parameters=1, size=1,
    )  # fmt: skip


def verdict_of(**rates: float) -> str:
    """Return the verdict on networks that are right in so many of a hundred patches; speed falls in the order given."""
    rng = np.random.default_rng(0)
    entrants = {
        name: [entrant(name, s, rng.random(100) < rate, 1e6 / (i + 1)) for s in range(3)]
        for i, (name, rate) in enumerate(rates.items())
    }
    return " ".join(contest(entrants, ["a", "b", "c"]).verdict)


def test_the_verdict_follows_the_figures() -> None:
    clear = verdict_of(mlp=0.5, unet=0.9, forest=0.6)
    assert "more than chance" in clear
    assert "Use unet." in clear
    assert "earn their cost" not in clear
    tie = verdict_of(mlp=0.8, unet=0.8, forest=0.8)
    assert "cannot be told from" in tie
    assert "Use mlp: of " in tie
    assert "have not shown that they earn their cost" in tie
    behind = verdict_of(mlp=0.5, unet=0.6, forest=0.95)
    assert "No network reaches the forest" in behind
    assert "use unet" in behind


def test_equal_pixels_wrong_together_are_not_more_proof() -> None:
    rng = np.random.default_rng(0)
    right = {name: rng.random(12) < rate for name, rate in (("a", 0.9), ("b", 0.6))}
    # Twelve patches of ten pixels each; the same twelve as single pixels would be a tenth of the pixels.
    many = contest({n: [entrant(n, 0, r, 1.0)] for n, r in right.items()}, ["x", "y", "z"])
    assert many.patches == 12
    single = {n: [entrant(n, 0, r, 1.0)] for n, r in right.items()}
    thin = {
        n: [
            Entrant(**{**vars(e), "place": e.place[::10], "target": e.target[::10], "predicted": e.predicted[::10]})
            for e in es
        ]
        for n, es in single.items()
    }
    few = contest(thin, ["x", "y", "z"])
    assert (few.pixels, many.pixels) == (12, 120)
    assert few.standings[1].error == pytest.approx(many.standings[1].error)


def test_pixels_that_not_all_have_are_left_out() -> None:
    rng = np.random.default_rng(0)
    whole = entrant("a", 0, rng.random(20) < 0.8, 1.0)
    some = rng.permutation(200)[:150]
    part = Entrant(**{**vars(entrant("b", 0, rng.random(20) < 0.5, 1.0)), **{
        k: getattr(whole, k)[some] for k in ("place", "target", "predicted")
    }})  # fmt: skip
    found = contest({"a": [whole], "b": [part]}, ["x", "y", "z"])
    assert (found.pixels, found.left) == (150, 50)
    # The same answers in another order are the same figure.
    assert found.standings[0].macro_f1 == found.standings[1].macro_f1
    assert found.standings[1].error == 0

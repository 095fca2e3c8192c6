"""Which bands and dates matter: shares of what maps say, and what replacing them costs."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from conftest import TRANSFORM, write_chips, write_job, write_labels, write_scene, write_season

from models.inference import prepare, scores
from models.settings import SaliencySettings
from models.table import build
from pipeline.samples.chips import ChipStore
from pipeline.samples.legend import Legend, LegendClass
from tests.oracles import shares_by_hand
from workflows.answers import own_scores, replaced
from workflows.console import Console
from workflows.context import Context
from workflows.importance import summarise
from workflows.lattice import even_sample
from workflows.load import load_job
from workflows.permutation import DRAWS, lenders, permute
from workflows.reasons import shown
from workflows.reporting import report
from workflows.run import run
from workflows.scoring import Scorer
from workflows.shares import shares_of_map
from workflows.train import trained
from workflows.windows import Windows, held_out_windows, windows_of

torch.set_num_threads(1)

LEGEND = Legend(
    tuple(
        LegendClass(name=name, code=code, color=f"#00{code:02x}00", values=(name,))
        for name, code in (("water", 3), ("forest", 1), ("field", 7))
    )
)


def write(path: Path, values: Any, names: tuple[str, ...] = (), **tags: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.asarray(values)
    count, height, width = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, crs="EPSG:32633",
        transform=TRANSFORM, nodata=np.nan if values.dtype.kind == "f" else 0,
    ) as raster:  # fmt: skip
        raster.write(values)
        raster.update_tags(**tags)
        for i, name in enumerate(names, 1):
            raster.set_band_description(i, name)
    return path


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients"])
def test_shares_are_those_counted_by_hand(tmp_path, method):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 17, 23)).astype(np.float32) * np.array([5, 1, 1], np.float32)[:, None, None]
    values = np.abs(values) if method == "gradient" else values
    values[:, :3, :5] = np.nan
    values[:, 8, :] = 0
    # 0 is nodata of the map, and 9 is no class of the legend.
    codes = rng.choice(np.array([0, 1, 3, 9], np.uint8), (17, 23))
    codes[10, :2] = 7
    write(tmp_path / "classes.tif", codes[None])
    write(tmp_path / "saliency_bands.tif", values, ("green", "red", "nir"), method=method)
    found, notes = shares_of_map(tmp_path, SaliencySettings(method=method), LEGEND)
    assert notes == []
    assert [row.of for row in found] == ["water"] * 3 + ["forest"] * 3 + ["field"] * 3
    for c in LEGEND.classes:
        rows = [row for row in found if row.of == c.name]
        mean, low, high, value, pixels = shares_by_hand(values, codes, c.code)
        assert [row.name for row in rows] == ["green", "red", "nir"]
        assert [row.pixels for row in rows] == [pixels] * 3
        for name, expected in (("mean", mean), ("low", low), ("high", high)):
            assert [getattr(row, name) for row in rows] == pytest.approx(expected.tolist(), abs=1e-6)
        signed = [row.value for row in rows]
        assert signed == [None] * 3 if method == "gradient" else signed == pytest.approx(value.tolist(), abs=1e-6)
        assert sum(row.mean for row in rows) == pytest.approx(1)


def test_a_regression_has_one_row_for_all_and_dates_that_are_none_have_none(tmp_path):
    values = np.array([3.0, 1.0, 0.0], np.float32)[:, None, None] * np.ones((3, 4, 4), np.float32)
    write(tmp_path / "saliency_dates.tif", values, ("2020-01-01", "2020-02-01", "none"), method="gradient")
    found, _ = shares_of_map(tmp_path, SaliencySettings(), None, "2020")
    assert [(r.period, r.of, r.axis, r.name, r.mean, r.pixels) for r in found] == [
        ("2020", "all", "date", "2020-01-01", 0.75, 16), ("2020", "all", "date", "2020-02-01", 0.25, 16),
    ]  # fmt: skip


def test_a_layer_that_another_method_made_is_left_out(tmp_path):
    write(tmp_path / "saliency_bands.tif", np.ones((2, 4, 4), np.float32), ("a", "b"), method="gradient")
    found, notes = shares_of_map(tmp_path, SaliencySettings(method="smoothgrad"), None)
    assert found == []
    assert "made by gradient, not by smoothgrad" in notes[0]


def test_a_huge_layer_is_sampled_evenly_and_always_the_same(tmp_path):
    height, width = 700, 900
    place = np.arange(height * width, dtype=np.float64).reshape(1, height, width)
    path = write(tmp_path / "a.tif", place)
    classes = write(tmp_path / "c.tif", (place % 200 + 1).astype(np.uint8))
    found = even_sample(path, classes, most=1000, side=64)
    again = even_sample(path, classes, most=1000, side=64)
    assert np.array_equal(found.values, again.values)
    assert not found.whole
    assert found.tiles == 64
    assert found.of_tiles == 11 * 15
    where = found.values[0].astype(np.int64)
    assert 800 <= len(where) <= 1300
    assert np.array_equal(found.classes, where % 200 + 1)
    # Each quarter of the land has its part, within a fifth.
    quarter = (where // width * 2 // height) * 2 + where % width * 2 // width
    assert np.bincount(quarter, minlength=4) == pytest.approx(len(where) / 4, rel=0.2)


def test_of_a_layer_that_holds_a_corner_the_corner_is_sampled(tmp_path):
    values = np.full((1, 700, 900), np.nan, np.float32)
    values[:, 600:690, 500:530] = 1
    found = even_sample(write(tmp_path / "a.tif", values), None, side=64)
    assert found.values.shape == (1, 90 * 30)
    assert found.whole


def linear(weights: Any, dates: int) -> Scorer:
    """Return a scorer of two classes whose score is weights (T * C) times the pixel."""
    weights = torch.as_tensor(weights, dtype=torch.float32)
    network = build("mlp", {"hidden": []}, bands=len(weights) // dates, dates=dates, classes=2)
    with torch.no_grad():
        network.layers[0].weight[:] = 0
        # Behind the values come the flags of the dates, which count nothing here.
        network.layers[0].weight[:, : len(weights)] = torch.stack([weights, -weights])
        network.layers[0].bias[:] = 0
    product: Any = SimpleNamespace(bundle=SimpleNamespace(classifies=True))
    statistics: Any = None
    ready = prepare(network)
    return Scorer(network=ready, engine=ready, statistics=statistics, product=product, device=torch.device("cpu"))


def places(n: int, dates: int, bands: int, side: int = 1) -> Windows:
    cube = torch.randn(n, dates, bands, side, side, generator=torch.Generator().manual_seed(0))
    own = torch.zeros(n, side, side, dtype=torch.bool)
    own[:, side // 2, side // 2] = True
    valid = torch.ones(n, dates, side, side, dtype=torch.bool)
    time = torch.arange(dates, dtype=torch.float32).expand(n, dates).clone()
    return Windows(cube, valid, time, own, ((0, 0),) * n, np.zeros(n))


@pytest.mark.parametrize("rounds", [1, 2])
def test_what_is_ignored_loses_nothing_and_what_decides_loses_all(rounds):
    # Two dates of three bands, as the MLP takes them: the second band of the second date decides, the third helps.
    scorer = linear([0, 0, 0, 0, 5, 1], dates=2)
    held_out = []
    for r in range(rounds):
        windows = places(200, 2, 3)
        windows.cube.add_(0.1 * r)
        score = windows.cube[:, 1, :, 0, 0] @ torch.tensor([0.0, 5, 1])
        windows.truth[:] = (score < 0).numpy()
        held_out.append((scorer, windows))
    found = permute(held_out, ["a", "b", "c"], ["early", "late"], LEGEND.classes[:2])
    assert found is not None
    assert (found.places, found.draws) == (200 * rounds, DRAWS)
    assert found.before == {"overall": 1.0, "macro_f1": 1.0}
    lost = {row.name: row.figures for row in found.lost}
    assert list(lost) == ["a", "b", "c", "early", "late"]
    for name in ("a", "early"):
        assert lost[name] == {"overall": (0.0, 0.0), "macro_f1": (0.0, 0.0)}
    # Of two classes, half of all go wrong where all that decides is another's.
    assert lost["late"]["overall"][0] == pytest.approx(0.5, abs=0.08)
    assert 0 < lost["c"]["overall"][0] < 0.15 < lost["b"]["overall"][0]
    assert lost["b"]["overall"][1] > 0
    assert permute(held_out, ["a", "b", "c"], ["early", "late"], LEGEND.classes[:2]) == found


def test_an_error_grows_where_a_regression_loses_a_band():
    scorer = linear([2, 0], dates=1)
    product: Any = scorer.product
    product.bundle = SimpleNamespace(classifies=False, task={"mean": 10.0, "std": 3.0})
    windows = places(300, 1, 2)
    windows.truth[:] = 10 + 3 * 2 * windows.cube[:, 0, 0, 0, 0].numpy()
    found = permute([(scorer, windows)], ["a", "b"], ["undated"], ())
    assert found is not None
    assert found.before["rmse"] == pytest.approx(0, abs=1e-5)
    # A single date is no choice. Two independent values differ by the square root of two deviations.
    assert [row.name for row in found.lost] == ["a", "b"]
    deviation = windows.truth.std()
    assert found.lost[0].figures["rmse"][0] == pytest.approx(2**0.5 * deviation, rel=0.1)
    assert found.lost[1].figures["rmse"] == (0.0, 0.0)


def test_one_place_cannot_be_replaced():
    assert permute([(linear([1, 1], dates=1), places(1, 1, 2))], ["a", "b"], ["undated"], LEGEND.classes[:2]) is None


def test_each_place_lends_once_and_never_to_itself():
    for n in (2, 3, 50):
        found = lenders(n, (0, 0))
        assert sorted(found) == list(range(n))
        assert (found != np.arange(n)).all()
    assert not np.array_equal(lenders(50, (0, 0)), lenders(50, (1, 0)))


def test_validity_goes_with_the_values():
    windows = places(4, 3, 2, side=3)
    windows.valid[1, 2, 0, 0] = False
    windows.valid[0, 0, 1, 1] = False
    windows.cube.masked_fill_(~windows.valid[:, :, None], 0)
    windows.time[1, 2] = 77
    cube, valid, time = replaced(windows, slice(0, 1), np.array([1, 2, 3, 0]), "date", 2)
    assert torch.equal(cube[0, 2], windows.cube[1, 2])
    assert torch.equal(valid[0, 2], windows.valid[1, 2])
    assert time[0].tolist() == [0, 1, 77]
    assert torch.equal(cube[0, :2], windows.cube[0, :2])
    cube, valid, time = replaced(windows, slice(0, 1), np.array([1, 2, 3, 0]), "band", 1)
    assert torch.equal(valid, windows.valid[:1])
    assert torch.equal(time, windows.time[:1])
    assert torch.equal(cube[0, :, 0], windows.cube[0, :, 0])
    # Where the other saw nothing, the mean: zero. Nothing of the own value is left.
    assert cube[0, 2, 1, 0, 0] == 0
    assert torch.equal(cube[0, 1, 1], windows.cube[1, 1, 1])


@pytest.mark.parametrize(("name", "place"), [("cnn", None), ("unet", (8, 10)), ("mlp", None)])
def test_the_own_pixel_is_scored_as_on_the_map(name, place):
    torch.manual_seed(0)
    network = prepare(build(name, {}, bands=2, dates=1, classes=3))
    side = network.stride + 2 * network.halo
    windows = places(3, 1, 2, side=side)
    if place is not None:
        windows.own[:] = False
        windows.own[:, *place] = True
    found = own_scores(network, windows.cube, windows.valid, windows.time, windows.own)
    y, x = place or (side // 2, side // 2)
    expected = scores(network, windows.cube, windows.valid, windows.time)[:, :, y, x]
    assert torch.allclose(found, expected, atol=1e-5)


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


def found(**more: Any) -> dict[str, Any]:
    share = {"period": "", "method": "gradient", "of": "water", "axis": "band", "low": 0.1, "high": 0.4, "value": None}
    base = {
        "shares": [share | {"name": n, "mean": m, "pixels": 50} for n, m in (("nir", 0.84), ("<junk>", 0.16))],
        "lost": [{"axis": "band", "name": "nir", "figures": {"overall": (0.4, 0.01), "macro_f1": (0.3, 0.01)}},
                 {"axis": "band", "name": "<junk>", "figures": {"overall": (0.0, 0.0), "macro_f1": (0.0, 0.0)}}],
        "places": 100, "draws": 5, "before": {"overall": 0.9, "macro_f1": 0.8}, "days": {"": {}}, "pixelwise": False,
        "mapped": True, "notes": [],
    }  # fmt: skip
    return base | more


def test_a_gradient_that_misleads_is_named():
    share = found()["shares"]
    many = [share[0] | {"mean": 0.21, "name": str(i)} for i in range(4)] + [share[1]]
    (section,) = shown(found(shares=many), LEGEND.classes, {})
    assert [note for note in section.notes if "<junk> (16 %), yet replacing this band loses no accuracy" in note]
    # A small share is no claim, and what costs something is none either.
    (section,) = shown(found(), LEGEND.classes, {})
    assert section.notes == []


def test_without_any_figure_there_is_no_section():
    assert shown(found(shares=[], lost=[]), LEGEND.classes, {}) == []

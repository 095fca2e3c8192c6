"""The next dates of a series: windows that never see what is tested, a trend that is found, a change that stands out."""

from __future__ import annotations

import datetime
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import yaml
from oracles_imagery import naive_dates
from rasters import write
from sklearn.metrics import roc_auc_score
from test_cli import said
from test_run import cli

from models.bundle import Bundle
from models.forecasting import ForecastTask
from models.horizon import Horizon, naive_places
from models.inference import prepare, scores
from models.network import ModelError
from models.settings import TrainingSettings
from models.table import build
from pipeline.errors import RequestError
from workflows.finishing import spread
from workflows.products.forecast import Forecast
from workflows.products.product import product_of

SIDE, STEP, DATES = 32, 30, 36
FIRST = datetime.date(2019, 1, 10)
LAST = FIRST + datetime.timedelta(STEP * (DATES - 1))
TREND, NOISE = 0.08, 0.01
JOB: dict[str, Any] = {
    "task": "forecast",
    "imagery": [{"path": "images/s_*.tif", "date": "%Y%m%d"}],
    "output": "out",
    "model": {"name": "lstm", "hidden": 8, "layers": 1},
    "training": {"epochs": 8, "batch_size": 64, "optimizer": {"lr": 0.02}, "track": ["csv"], "check_batch": False},
}


def write_job(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump(JOB | changes))
    return path


def cleared() -> Any:
    """Return where the land is to change in the last image, (h, w) bool."""
    where = np.zeros((SIDE, SIDE), bool)
    where[20:26, 8:15] = True
    return where


def growth(day: datetime.date) -> float:
    """Return how green all land is on a day, beside what each place is: the season, and the trend of the years."""
    return float(0.2 * np.sin(2 * np.pi * day.timetuple().tm_yday / 365) + TREND * (day - FIRST).days / 365)


def write_seasons(folder: Path) -> None:
    """Write images of two bands that follow the season, each year a little greener."""
    rng = np.random.default_rng(0)
    height = 0.4 + 0.2 * rng.random((SIDE, SIDE))
    for i in range(DATES):
        day = FIRST + datetime.timedelta(STEP * i)
        green = height + growth(day)
        bands = np.stack([0.6 - 0.5 * green, green]) + rng.normal(0, NOISE, (2, SIDE, SIDE))
        # One cloud a date; the first corner never has data.
        y, x = rng.integers(0, SIDE - 4, 2)
        bands[:, y : y + 4, x : x + 4] = np.nan
        bands[:, :2, :2] = np.nan
        write(folder / f"s_{day:%Y%m%d}.tif", bands.astype(np.float32), nodata=np.nan, names=("red", "nir"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three years of images and a finished run on them."""
    folder = tmp_path_factory.mktemp("forecast")
    write_seasons(folder / "images")
    assert cli("run", write_job(folder / "job.yaml"), "-q") == 0
    return folder


def layer(folder: Path, name: str) -> Any:
    with rasterio.open(folder / "maps" / f"{name}.tif") as raster:
        return raster.read()


def horizon(dates: int, history: int, steps: int, bands: tuple[int, ...] = (0, 1)) -> Horizon:
    """Return the horizon of a series of dates thirty days apart, whose years have four."""
    naive = tuple((max(0, history - 4),) * steps for _ in range(dates))
    shift = tuple(-90.0 * (i // 4) for i in range(dates))
    return Horizon(dates=dates, history=history, steps=steps, bands=bands, shift=shift, naive=naive)


def days(*texts: str) -> list[datetime.date]:
    return [datetime.date.fromisoformat(t) for t in texts]


MONTHS = [datetime.date(2020 + i // 12, i % 12 + 1, 15) for i in range(26)]


@pytest.mark.parametrize(
    ("seen", "to_come", "wanted"),
    [
        (MONTHS[:12], MONTHS[12:14], [0, 1]),
        (MONTHS[:24], MONTHS[24:26], [12, 13]),
        # More steps than a year: the year before that year.
        (MONTHS[:12], [*MONTHS[12:24], datetime.date(2022, 1, 15)], [*range(12), 0]),
        # Half a year knows nothing of the season to come, but for the end of it.
        (MONTHS[:6], MONTHS[6:8], [5, 5]),
        (days("2020-01-05", "2020-02-20", "2020-05-01", "2020-12-20"), days("2021-02-10", "2021-04-25"), [1, 2]),
        (days("2020-01-05"), days("2020-02-05"), [0]),
    ],
)
def test_the_naive_forecast_is_the_nearest_day_of_the_year_before(
    seen: list[datetime.date], to_come: list[datetime.date], wanted: list[int]
) -> None:
    found = naive_places([d.toordinal() for d in seen], [d.toordinal() for d in to_come])
    assert found == wanted
    assert [seen[i] for i in found] == naive_dates(seen, to_come)


@pytest.mark.parametrize(("dates", "history", "steps"), [(20, 8, 1), (20, 5, 3), (11, 5, 2)])
def test_windows_slide_and_never_reach_what_stops_or_tests(dates: int, history: int, steps: int) -> None:
    of = horizon(dates, history, steps)
    span = history + steps
    trained = {i for start in range(of.trained) for i in range(start, start + span)}
    stopped = set(range(of.validated + history, of.validated + span))
    tested = set(range(of.tested + history, of.tested + span))
    assert tested == set(range(dates - steps, dates))
    assert stopped == set(range(dates - 2 * steps, dates - steps))
    assert trained == set(range(dates - 2 * steps))


def test_a_window_is_what_was_seen_and_what_came_minus_the_naive_forecast() -> None:
    of = horizon(12, 5, 2, bands=(1,))
    g = torch.Generator().manual_seed(0)
    cube, valid = torch.randn(2, 12, 3, 2, 2, generator=g), torch.rand(2, 12, 2, 2, generator=g) < 0.7
    time = (30.0 * torch.arange(12)).expand(2, 12)
    for start in range(of.tested + 1):
        (seen, flags, at), wanted, known = of.window({"cube": cube, "valid": valid, "time": time}, start)
        assert torch.equal(seen, cube[:, start : start + 5])
        assert torch.equal(flags, valid[:, start : start + 5])
        assert at[0].tolist() == [30 * (start + i) - 90 * (start // 4) for i in range(5)]
        for b, step, y, x in np.ndindex(2, 2, 2, 2):
            came, before = cube[b, start + 5 + step, 1, y, x], cube[b, start + 1, 1, y, x]
            naive = before if valid[b, start + 1, y, x] else 0.0
            assert wanted[b, step, y, x] == came - naive
            assert known[b, step, y, x] == valid[b, start + 5 + step, y, x]


@pytest.mark.parametrize("short", [10, 7, 3])
def test_a_series_that_is_too_short_is_refused_with_the_number_it_needs(short: int) -> None:
    assert horizon(11, 5, 2).trained == 1
    with pytest.raises(ModelError, match=f"needs a series of 11 dates at least .* found {short}; set forecast.history"):
        horizon(short, 5, 2)


@pytest.mark.parametrize("centred", [False, True])
def test_the_loss_is_the_mean_squared_error_of_what_is_known(centred: bool) -> None:
    of = horizon(12, 4, 2, bands=(1,))
    name, settings = (
        ("cnn", {"patch": 7, "filters": [2], "pool": 1, "normalisation": "none"})
        if centred
        else ("lstm", {"hidden": 3})
    )
    torch.manual_seed(0)
    network = build(name, settings, bands=2, dates=4, classes=2)
    task = ForecastTask(network, TrainingSettings(), of, centred=centred).eval()
    g = torch.Generator().manual_seed(1)
    batch = {
        "cube": torch.randn(3, 12, 2, 7, 7, generator=g),
        "valid": torch.rand(3, 12, 7, 7, generator=g) < 0.8,
        "time": (30.0 * torch.arange(12)).expand(3, 12),
        "labels": torch.zeros(3, 7, 7, dtype=torch.int64),
    }
    batch["labels"][0] = -1
    inputs, wanted, known = of.window(batch, of.validated)
    with torch.no_grad():
        total, weight = task.loss(batch)
        found = network(*inputs)
    # A patch is asked for its centre only; the rest of it is what the network sees around.
    where = [(3, 3)] if centred else [(y, x) for y in range(7) for x in range(7)]
    squares = [
        float((found[b, k, y, x] - wanted[b, k, y, x]) ** 2)
        for b in (1, 2)
        for k in range(2)
        for y, x in where
        if known[b, k, y, x] and inputs[1][b, :, y, x].any()
    ]
    assert int(weight) == len(squares) > 0
    assert float(total) == pytest.approx(sum(squares), rel=1e-4)


def test_a_date_that_nobody_saw_is_named(finished: Path) -> None:
    bundle = Bundle.load(finished / "out" / "model")
    outputs = np.ones((5, 6), np.float32)
    outputs[:, 2:4] = np.nan
    assessed: Any = SimpleNamespace(scores=outputs)
    with pytest.raises(RequestError, match="no place of the validation fold has a valid value on 2021-11-01, by which"):
        spread(bundle, [assessed], days("2021-11-01"))


def test_the_errors_around_zero_are_the_spread(finished: Path) -> None:
    bundle = Bundle.load(finished / "out" / "model")
    outputs = np.zeros((4, 6), np.float32)
    outputs[:, 2], outputs[:, 3] = [1, 3, np.nan, 2], [0, 0, 0, 0]
    assessed: Any = SimpleNamespace(scores=outputs)
    found = spread(bundle, [assessed], days("2021-11-01")).task["spread"]
    # What never changes would else make any change infinite.
    assert found == [[pytest.approx((14 / 3) ** 0.5), 1e-3]]


def test_a_trend_is_forecast_better_than_by_the_year_before(finished: Path) -> None:
    figures = json.loads((finished / "out" / "report" / "accuracy.json").read_text())
    assert figures["days"] == [LAST.isoformat()]
    nir = figures["bands"]["nir"]
    # Twelve steps before it was less green, and both images are noisy.
    grown = growth(LAST) - growth(LAST - datetime.timedelta(12 * STEP))
    assert nir["naive"] == pytest.approx((grown**2 + 2 * NOISE**2) ** 0.5, rel=0.1)
    assert figures["skill"] == pytest.approx(1 - (figures["network"] / figures["naive"]) ** 2)
    # 0 is as good as the year before.
    assert figures["skill"] > 0.6
    forecast, observed = layer(finished / "out", "forecast"), image(finished, LAST)
    known = np.isfinite(observed).all(0) & np.isfinite(forecast).all(0)
    assert np.sqrt(((forecast - observed)[1, known] ** 2).mean()) < 0.6 * nir["naive"]


def image(folder: Path, day: datetime.date) -> Any:
    with rasterio.open(folder / "images" / f"s_{day:%Y%m%d}.tif") as raster:
        return raster.read()


def test_a_change_in_the_last_image_stands_out(finished: Path, tmp_path: Path) -> None:
    for path in (finished / "images").glob("*.tif"):
        (tmp_path / "images").mkdir(exist_ok=True)
        shutil.copyfile(path, tmp_path / "images" / path.name)
    with rasterio.open(tmp_path / "images" / f"s_{LAST:%Y%m%d}.tif", "r+") as raster:
        values = raster.read()
        values[:, cleared()] = np.array([0.55, 0.1])[:, None]
        raster.write(values)
    options = ["--set", "imagery.0.date=%Y%m%d"]
    assert (
        cli("apply", finished / "out" / "model", tmp_path / "images/*.tif", "-o", tmp_path / "a", "-q", *options) == 0
    )
    change = layer(tmp_path / "a", "change")[0]
    seen = np.isfinite(change)
    # By chance it is 0.5.
    assert roc_auc_score(cleared()[seen], change[seen]) > 0.98
    assert np.median(change[seen & cleared()]) > 5
    assert np.median(change[seen & ~cleared()]) < 2


def test_the_layers_are_what_the_network_gives(finished: Path) -> None:
    out = finished / "out"
    bundle = Bundle.load(out / "model")
    forecast = product_of(bundle)
    assert isinstance(forecast, Forecast)
    assert (bundle.network.dates, forecast.steps, forecast.chosen) == (13, 1, [0, 1])
    stack = [image(finished, FIRST + datetime.timedelta(STEP * i)) for i in range(DATES - 14, DATES)]
    values = np.stack(stack)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (bundle.mean, bundle.std))
    valid = np.isfinite(values).all(1)
    normal = np.where(valid[:, None], (values - mean) / std, 0).astype(np.float32)
    first = FIRST + datetime.timedelta(STEP * (DATES - 14))
    start = (first - datetime.date(first.year, 1, 1)).days
    time = torch.tensor([[start + 30.0 * i for i in range(13)]])
    cube, flags = torch.from_numpy(normal)[None, :13], torch.from_numpy(valid)[None, :13]
    added = scores(prepare(bundle.network), cube, flags, time)[0].numpy()
    # The season of the date to come, a year of 365 days before: twelve steps of thirty.
    expected = normal[13 - 12] + added
    given = layer(out, "forecast")
    shown = valid[:13].any(0)
    np.testing.assert_allclose(given[:, shown], (expected * std + mean)[:, shown], atol=1e-5)
    assert np.isnan(given[:, ~shown]).all()
    surprise = (normal[13] - expected) / np.array(bundle.task["spread"])[0][:, None, None]
    both = shown & valid[13]
    np.testing.assert_allclose(layer(out, "surprise")[:, both], surprise[:, both], rtol=1e-4, atol=1e-4)
    assert np.isnan(layer(out, "surprise")[:, ~both]).all()
    change = np.sqrt((surprise**2).mean(0))
    np.testing.assert_allclose(layer(out, "change")[0][both], change[both], rtol=1e-4, atol=1e-4)


def test_each_layer_says_what_it_is_and_the_report_shows_it(finished: Path) -> None:
    out = finished / "out"
    names = ("red 2021-11-25", "nir 2021-11-25")
    wanted = {"forecast": (names, None), "surprise": (names, "standard"), "change": (("change",), "standard")}
    for name, (bands, unit) in wanted.items():
        with rasterio.open(out / "maps" / f"{name}.tif") as raster:
            assert raster.descriptions == bands
            assert raster.dtypes == ("float32",) * len(bands)
            assert np.isnan(raster.nodata)
            assert {u and u.split()[0] for u in raster.units} == {unit}
            assert raster.tags()["dates"] == "2020-10-31/2021-11-25"
    page = (out / "report" / "index.html").read_text()
    for title in ("How good the forecast is", "Day by day", "Change", "Forecast"):
        assert f">{title}<" in page, title


def test_the_map_does_not_depend_on_how_it_is_cut_nor_on_older_images(finished: Path, tmp_path: Path) -> None:
    recent = sorted((finished / "images").glob("*.tif"))[-14:]
    for path in recent:
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / path.name).symlink_to(path)
    options = ["--set", "imagery.0.date=%Y%m%d", "--set", "predict.block=16"]
    assert (
        cli("apply", finished / "out" / "model", tmp_path / "images/*.tif", "-o", tmp_path / "a", "-q", *options) == 0
    )
    for name in ("forecast", "surprise", "change"):
        np.testing.assert_allclose(layer(tmp_path / "a", name), layer(finished / "out", name), atol=1e-5)


def test_a_period_ends_with_the_dates_that_are_forecast(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, images = finished / "out" / "model", finished / "images" / "*.tif"
    options = ["--set", "imagery.0.date=%Y%m%d", "--set", "predict.layers=[change]"]
    period = ["--set", "predict.period=[2019-03-01, 2020-06-30]"]
    assert cli("apply", model, images, "-o", tmp_path / "a", "-q", *options, *period) == 0
    with rasterio.open(tmp_path / "a" / "maps" / "change.tif") as raster:
        assert raster.tags()["dates"] == "2019-05-10/2020-06-03"
    copy = shutil.copytree(finished / "out", tmp_path / "b")
    assert cli("predict", finished / "job.yaml", "-q", "--overwrite", "--set", f"output={copy}", *period) == 0
    with rasterio.open(copy / "maps" / "change.tif") as raster:
        assert raster.tags()["dates"] == "2019-05-10/2020-06-03"
    short = ["--set", "predict.period=[2020-01-01, 2020-06-30]"]
    message = said(capfd, "apply", model, images, "-o", tmp_path / "c", *options, *short)
    assert "the model sees 13 dates and forecasts 1: a map needs the images of 14, found 6" in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["forecast.history=40"], "a forecast of 1 dates from 40 needs a series of 43 dates at least .* found 36"),
        (["forecast.bands=[swir]"], "forecast.bands: the imagery has no band 'swir'.* It has red, nir"),
        (
            ["temporal={every: 30, fill: linear}"],
            "temporal.fill: found linear, which fills gaps from images of later dates",
        ),
        (["imagery.0.date=null", "imagery.0.path=images/s_20190110.tif"], "task: forecast needs imagery with dates"),
        (
            ["predict.layers=[classes]"],
            "predict.layers: 'classes' is no layer of a forecast. It makes forecast, surprise",
        ),
        (
            ["training.loss.name=huber"],
            "training.loss.name: found huber, which is not made for a forecast; allowed are auto",
        ),
        (["model={name: gan}"], "model.name: found gan, which learns classes from land without labels"),
        (["labels={path: a.gpkg}"], "a forecast learns without labels, found `labels`"),
    ],
)
def test_what_a_forecast_cannot_do_is_refused(
    finished: Path, capfd: pytest.CaptureFixture[str], changes: list[str], words: str
) -> None:
    message = said(capfd, "check", finished / "job.yaml", *(o for change in changes for o in ("--set", change)))
    assert re.search(words, message), message


def test_check_says_what_is_forecast_from_what(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--set", "forecast={steps: 2, bands: [nir]}"]
    assert cli("check", finished / "job.yaml", *options) == 0
    text = " ".join(capfd.readouterr().err.split())
    assert "nir on 2 dates from the 13 before; stops by 2021-08-27 to 2021-09-26" in text

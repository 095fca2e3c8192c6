"""Which bands and dates matter: shares of what maps say, and claims that mislead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from conftest import TRANSFORM

from models.settings import SaliencySettings
from tests.explained import LEGEND
from tests.oracles_explanations import shares_by_hand
from workflows.lattice import even_sample
from workflows.reasons import shown
from workflows.shares import shares_of_map

torch.set_num_threads(1)


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

"""Tables of labelled series: brought to steps in time as pixels are, and their indices."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from series_tables import BANDS, HELD, made_up, opened, written

from pipeline.errors import ImageryError
from pipeline.imagery.steps import stepped
from pipeline.samples.regular import regular
from pipeline.samples.series import open_series
from pipeline.settings import TemporalSettings


def stepped_by_hand(
    long: pd.DataFrame, samples: pd.DataFrame, temporal: TemporalSettings, periods: bool
) -> list[tuple[list[int], Any]]:
    """Bring each sample to steps by itself, as a pixel; with periods, by the dates that serve imagery too."""
    every = temporal.every
    found = []
    for _, sample in samples.iterrows():
        rows = long[long["sample_id"] == sample["sample_id"]].sort_values("date")
        first = datetime.date.fromisoformat(sample["from"]) if periods else min(rows["date"])
        days = np.array([(d - first).days for d in rows["date"]])
        values = rows[BANDS].to_numpy(np.float32)
        span = (datetime.date.fromisoformat(sample["to"]) - first).days if periods else int(days[-1])
        at = days.tolist() if every is None else list(range(0, span + 1, every))
        if periods:
            assert every is not None
            last = at[-1] + every + (every - 1 if temporal.composite != "none" else 0)
            inside = (days >= -every) & (days <= last)
            days, values = days[inside], values[inside]
        valid = np.isfinite(values).all(1)
        made, good = stepped(
            np.where(valid[:, None], values, 0)[..., None, None], valid[:, None, None], days.tolist(), at,
            every=every, fill=temporal.fill, composite=temporal.composite,
        )  # fmt: skip
        found.append((at, np.where(good[:, None], made, np.nan)[..., 0, 0]))
    return found


@pytest.mark.parametrize("periods", [True, False])
@pytest.mark.parametrize(
    "kind",
    [
        {"every": 30, "fill": "linear"},
        {"every": 30, "fill": "nearest"},
        {"every": 45},
        {"every": 60, "composite": "median"},
        {"every": 60, "composite": "best", "fill": "linear"},
        {"fill": "linear"},
        {"fill": "nearest"},
    ],
)
def test_series_are_brought_to_steps_as_pixels_are(tmp_path: Path, kind: dict[str, Any], periods: bool) -> None:
    temporal = TemporalSettings.model_validate(kind)
    if periods and temporal.every is None:
        pytest.skip("without regular steps a period has dates of its own alone")
    long, samples = made_up(dates=9, spread=480 if periods else 300, before=120 if periods else 0, seed=2)
    long.loc[::7, "red"] = np.nan
    # Two samples on the same days are brought to steps together.
    twin = long[long["sample_id"] == 97].assign(sample_id=94, red=5.0)
    long = pd.concat([long[long["sample_id"] != 94], twin], ignore_index=True)
    table = open_series(written(tmp_path, long, samples, **(HELD if periods else {})), None, temporal)
    expected = stepped_by_hand(long, samples, temporal, periods)
    most = max(len(at) for at, _ in expected)
    assert table.values.shape == (12, most, 2)
    for i, (at, values) in enumerate(expected):
        assert table.time[i, : len(at)].tolist() == at
        np.testing.assert_array_equal(table.values[i, : len(at)], values)
        assert np.isnan(table.values[i, len(at) :]).all()
    assert np.isfinite(table.values).any(2).mean() > 0.3


def test_without_steps_series_are_as_they_are() -> None:
    values, time = np.ones((2, 3, 1), np.float32), np.zeros((2, 3), np.float32)
    found = regular(values, time, np.array([3, 3]), np.array([0, 0]), TemporalSettings())
    assert found[0] is values
    assert found[1] is time


def test_indices_are_added_to_the_bands(tmp_path: Path) -> None:
    long, samples = made_up()
    long.loc[5, BANDS] = 0.0
    table = open_series(written(tmp_path, long, samples), None, None, ["ndvi"])
    assert table.bands == ("red", "nir", "ndvi")
    red, nir, found = np.moveaxis(table.values, -1, 0)
    np.testing.assert_allclose(found, (nir - red) / (nir + red), rtol=1e-5)
    # Where the index is not defined the date does not count.
    plain = opened(tmp_path, long, samples)
    undefined = (plain.values == 0).all(2)
    assert undefined.sum() == 1
    assert np.isnan(table.values[undefined]).all()
    with pytest.raises(ImageryError, match=r"ndwi|green"):
        open_series(written(tmp_path, long, samples), None, None, ["ndwi"])
    by_role = open_series(
        written(tmp_path, long.rename(columns={"nir": "b8"}), samples), None, None, ["ndvi"], {"nir": "b8"}
    )
    np.testing.assert_array_equal(by_role.values, table.values)

"""Made-up tables of labelled series, written to files and opened."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.samples.series import SeriesTable, open_series
from pipeline.settings import LabelSettings

START = datetime.date(2020, 9, 1)
END = datetime.date(2021, 8, 31)
BANDS = ["red", "nir"]
HELD = {"from": "from", "to": "to"}


def made_up(
    n: int = 12, dates: int = 5, seed: int = 0, spread: int = 300, before: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a table of series, its rows in any order, and a table of samples in two periods."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        start = START if i % 3 else datetime.date(2019, 9, 1)
        for number in rng.choice(np.arange(-before, spread), dates - i % 2, replace=False).tolist():
            red, nir = rng.uniform(100, 4000, 2).round().tolist()
            rows.append({"sample_id": 100 - i, "date": start + datetime.timedelta(number), "red": red, "nir": nir})
    samples = pd.DataFrame(
        {
            "sample_id": [100 - i for i in range(n)],
            "longitude": rng.uniform(-55, -54, n),
            "latitude": rng.uniform(-12, -11, n),
            "label": ["forest" if i % 2 else "field" for i in range(n)],
            "from": [str(START) if i % 3 else "2019-09-01" for i in range(n)],
            "to": [str(END) if i % 3 else "2020-08-31" for i in range(n)],
            "score": rng.uniform(0, 1, n),
        }
    )
    order = rng.permutation(len(rows))
    return pd.DataFrame(rows).iloc[order].reset_index(drop=True), samples


def written(
    folder: Path, long: pd.DataFrame, samples: pd.DataFrame | None, suffix: str = ".csv", **options: Any
) -> LabelSettings:
    """Write tables; return the settings that name them."""
    given: dict[str, Any] = {}
    for name, table in (("series", long), ("samples", samples)):
        if table is not None:
            path = folder / f"{name}{suffix}"
            if suffix == ".parquet":
                table.to_parquet(path, index=False)
            else:
                table.to_csv(path, index=False)
            given[name] = str(path)
    return LabelSettings.model_validate(given | options)


def opened(folder: Path, long: pd.DataFrame, samples: pd.DataFrame | None, **options: Any) -> SeriesTable:
    return open_series(written(folder, long, samples, **options), None)

"""Labels that hold for a year each."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from places import frame, opened, square

from pipeline.imagery.dates import Period
from pipeline.samples.folds import Folds, make_folds
from pipeline.samples.shapes import VectorLabels
from pipeline.settings import FoldSettings

YEARS = tuple(Period(datetime.date(y, 9, 1), datetime.date(y + 1, 8, 31)) for y in (2019, 2020, 2021))
DATES = tuple(datetime.date(y, m, 5) for y in (2020, 2021, 2022) for m in (2, 5))
HELD = {"from": "from", "to": "to"}


def dated(shapes: Sequence[Any], values: Sequence[str], years: Sequence[int], **columns: Any) -> Any:
    """Return features that hold in a year, by its number."""
    ends = {"from": [str(YEARS[i].start) for i in years], "to": [str(YEARS[i].end) for i in years]}
    return frame(shapes, values, **ends, **columns)


def lattice(path: Path, years: int = 2, side: int = 4, turned: int = 1) -> VectorLabels:
    """Open 36 squares of three classes in each year; each year every class is another, or with 0 the same."""
    places = [square(10 * r + 3, 10 * c + 3, side) for r in range(6) for c in range(6)]
    classes = np.random.default_rng(0).permutation(36)
    values = [f"class {(i + turned * y) % 3}" for y in range(years) for i in classes]
    of = [y for y in range(years) for _ in places]
    return opened(path, dated(places * years, values, of), dates=DATES, **HELD)


def divided(labels: VectorLabels, halo: int = 0, **options: Any) -> Folds:
    return make_folds(labels, FoldSettings.model_validate(options), halo)

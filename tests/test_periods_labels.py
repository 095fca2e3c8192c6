"""Labels that hold for periods: read per period, and divided by place."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pytest
from places import frame, grid, opened, square
from rasters import write
from shapely.geometry import Point
from years import DATES, HELD, YEARS, dated, divided, lattice

from pipeline.errors import LabelError
from pipeline.grid import whole
from pipeline.samples.features import open_labels
from pipeline.samples.labels import IGNORE
from pipeline.samples.shapes import VectorLabels
from pipeline.samples.units import together
from pipeline.settings import LabelSettings

# -- labels of each period


def test_a_pixel_has_the_label_of_each_year(tmp_path: Path) -> None:
    shapes = [square(3, 3, 8), square(3, 3, 8), square(3, 7, 8), square(40, 40)]
    labels = opened(tmp_path / "a.gpkg", dated(shapes, list("abca"), [0, 1, 1, 2]), dates=DATES, **HELD)
    assert labels.periods == YEARS
    assert labels.feature_period.tolist() == [0, 1, 1, 2]
    codes = [labels.read(whole(labels.geobox), p).codes for p in range(3)]
    assert [c[5, 5] for c in codes] == [0, 1, IGNORE]
    assert [c[5, 8] for c in codes] == [0, 2, IGNORE]
    assert [int((c >= 0).sum()) for c in codes] == [64, 96, 16]
    assert [[(w.y, w.x) for w in labels.windows(20, p)] for p in range(3)] == [
        [(0, 0)],
        [(0, 0)],
        [(20, 20), (20, 40), (40, 20), (40, 40)],
    ]
    assert [n for n in labels.notes if "overlap" in n] == [
        "1 pairs of features of different classes overlap (first: 2 and 3, b and c); the later in the file counts"
    ]


def test_labels_of_different_years_do_not_overlap(tmp_path: Path) -> None:
    place = Point(500_035, 4_999_965)
    shapes = [square(20, 20), square(20, 20), place, place]
    labels = opened(tmp_path / "a.gpkg", dated(shapes, list("abab"), [0, 1, 0, 1]), dates=DATES, **HELD)
    assert labels.notes == []
    again = opened(tmp_path / "b.gpkg", dated(shapes, list("abab"), [0, 1, 0, 0]), dates=DATES, **HELD)
    assert again.notes == ["1 pixels hold points of different classes; the later in the file counts"]


def test_labels_of_periods_without_images_are_left_out_and_it_is_said(tmp_path: Path) -> None:
    features = dated([square(3, 3), square(20, 3), square(40, 3)], list("aba"), [0, 0, 1])
    labels = opened(tmp_path / "a.gpkg", features, dates=DATES[:2], **HELD)
    assert labels.periods == YEARS[:1]
    assert "1 of 3 labels hold for periods without any image and are left out" in labels.notes
    with pytest.raises(
        LabelError, match=r"no label holds while there are images\n.*2019-09-01 to 2021-08-31\n.*2010-01-01"
    ):
        opened(tmp_path / "b.gpkg", features, dates=[datetime.date(2010, 1, 1)], **HELD)
    with pytest.raises(LabelError, match=r"labels hold for periods.*but the imagery has no dates; say how they stand"):
        opened(tmp_path / "c.gpkg", features, dates=[None], **HELD)


def test_a_raster_holds_at_any_time(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.ones((1, 60, 60), "uint8"))
    with pytest.raises(LabelError, match=r"labels\.from: .*a\.tif is a raster, which has no fields"):
        open_labels(LabelSettings.model_validate({"path": str(path)} | HELD), None, grid(), DATES)


def test_a_wrong_date_in_a_file_names_its_row(tmp_path: Path) -> None:
    features = dated([square(3, 3), square(20, 3), square(40, 3)], list("aba"), [0, 0, 1])
    features.loc[2, "to"] = "never"
    with pytest.raises(LabelError, match=r"a\.gpkg: row 3: expected a date such as 2021-06-30 in 'to', found 'never'"):
        opened(tmp_path / "a.gpkg", features, dates=DATES, **HELD)


# -- folds: a place is in one of them at any time


def test_places_of_several_years_stay_together(tmp_path: Path) -> None:
    labels = lattice(tmp_path / "a.gpkg", years=3)
    place = together(labels)
    assert place.tolist() == list(range(36)) * 3
    folds = divided(labels)
    assert (folds.method, folds.of_feature is not None) == ("features", True)
    assert folds.of_feature is not None
    of_place = folds.of_feature.reshape(3, 36)
    assert (of_place == of_place[0]).all()
    assert set(of_place[0].tolist()) == {0, 1, 2}
    assert "folds: 108 labels lie on 36 places; what is one place in several periods stays together" in folds.notes


def test_places_that_touch_over_the_years_are_one(tmp_path: Path) -> None:
    # 0 and 2 share no ground, but both share some with 1; 3 touches 0 in the same year, which is no reason.
    shapes = [square(0, 0, 4), square(2, 2, 4), square(5, 5, 4), square(0, 4, 1), square(30, 30, 4)]
    labels = opened(tmp_path / "a.gpkg", dated(shapes, list("ababa"), [0, 1, 0, 0, 1]), dates=DATES, **HELD)
    place = together(labels)
    naive = linked_by_hand(labels)
    assert place.tolist() == naive == [0, 0, 0, 1, 2]


def linked_by_hand(labels: VectorLabels) -> list[int]:
    """Number features so that those of different periods that share ground have one number."""
    number = list(range(labels.n_features))
    shapes = list(labels.frame.geometry)
    for _ in number:
        for i, a in enumerate(shapes):
            for j, b in enumerate(shapes):
                if labels.feature_period[i] != labels.feature_period[j] and a.intersects(b):
                    number[i] = number[j] = min(number[i], number[j])
    return [sorted(set(number)).index(n) for n in number]


def test_places_are_those_of_an_oracle(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    shapes = [square(*rng.uniform(0, 50, 2), rng.uniform(1, 6)) for _ in range(40)]
    years = rng.integers(0, 3, 40).tolist()
    labels = opened(tmp_path / "a.gpkg", dated(shapes, list("ab") * 20, years), dates=DATES, **HELD)
    found = together(labels)
    assert found.tolist() == linked_by_hand(labels)
    assert 1 < found.max() < 39


def test_points_in_one_pixel_are_one_place(tmp_path: Path) -> None:
    shapes = [Point(500_001, 4_999_999), Point(500_009, 4_999_991), Point(500_011, 4_999_991), square(30, 30)]
    labels = opened(tmp_path / "a.gpkg", dated(shapes, list("abab"), [0, 1, 1, 0]), dates=DATES, **HELD)
    assert together(labels).tolist() == [0, 0, 1, 2]


def test_without_periods_each_feature_is_a_place(tmp_path: Path) -> None:
    labels = opened(tmp_path / "a.gpkg", frame([square(0, 0), square(0, 0)], list("ab")))
    assert together(labels).tolist() == [0, 1]


def test_blocks_of_land_are_the_same_in_all_years(tmp_path: Path) -> None:
    labels = lattice(tmp_path / "a.gpkg")
    folds = divided(labels, method="blocks", size=100)
    full = whole(labels.geobox)
    first, second = (folds.read(full, labels.read(full, p)) for p in range(2))
    np.testing.assert_array_equal(first, second)
    assert set(np.unique(first)) == {-1, 0, 1, 2}
    # Labels of both years weigh: a class of one year alone is known too.
    shapes = [*(square(10 * i + 3, 3) for i in range(6)), *(square(10 * i + 3, 33) for i in range(6))]
    some = opened(tmp_path / "b.gpkg", dated(shapes, ["a"] * 6 + ["b"] * 6, [0] * 6 + [1] * 6), dates=DATES, **HELD)
    assert divided(some, method="blocks", size=100, k=3).k == 3

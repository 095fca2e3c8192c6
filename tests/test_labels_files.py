"""Labels from files: formats, what lies where, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracles_samples import labelled_by_hand
from places import CRS, codes, frame, grid, opened, square
from shapely.geometry import Point

from pipeline.errors import LabelError
from pipeline.samples.features import open_labels
from pipeline.samples.labels import IGNORE
from pipeline.samples.shapes import VectorLabels
from pipeline.settings import ClassSettings, LabelSettings

FIELDS = frame([square(5, 5, 10), square(20, 30, 12), square(40, 10, 8)], ["water", "forest", "forest"])


def vector(path: Path, **options: Any) -> VectorLabels:
    labels = open_labels(LabelSettings.model_validate({"path": str(path), "field": "class"} | options), None, grid())
    assert isinstance(labels, VectorLabels)
    return labels


# -- formats


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".geojson", ".fgb", ".parquet"])
def test_any_format_and_any_crs_label_the_same_pixels(tmp_path: Path, suffix: str) -> None:
    expected = labelled_by_hand(FIELDS.geometry, [1, 0, 0], grid())
    there = FIELDS.to_crs("EPSG:4326") if suffix in (".geojson", ".parquet") else FIELDS
    path = tmp_path / f"fields{suffix}"
    if suffix == ".parquet":
        there.to_parquet(path)
    else:
        there.to_file(path)
    labels = vector(path)
    assert [c.name for c in labels.legend.classes] == ["forest", "water"]
    assert labels.n_features == 3
    np.testing.assert_array_equal(codes(labels), expected)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("x,y,class\n500055,4999945,a\n500105,4999895,b\n", {"crs": CRS}),
        ("X;Y;class\n500055,0;4999945,0;a\n500105,0;4999895,0;b\n", {"crs": CRS}),
        ("class\teasting\tnorthing\na\t500055\t4999945\nb\t500105\t4999895\n", {"crs": CRS}),
        ("\ufefflon,lat,class\n15.0006997,45.1529821,a\n15.0013358,45.152532,b\n", {}),
    ],
)
def test_points_of_a_table(tmp_path: Path, text: str, options: dict[str, Any]) -> None:
    path = tmp_path / "points.csv"
    path.write_text(text, encoding="utf-8")
    found = codes(vector(path, **options))
    assert {(int(y), int(x)): int(found[y, x]) for y, x in zip(*np.nonzero(found != IGNORE), strict=True)} == {
        (5, 5): 0,
        (10, 10): 1,
    }


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("x,y,class\n1,2,a\n", {}, "states no CRS; give it with labels.crs"),
        ("x,y,class\n1,2,a\n", {"crs": "EPSG:nonsense"}, "labels.crs: 'EPSG:nonsense' is no CRS"),
        ("x,y,class\n1,2,a\n1,north,b\n", {"crs": CRS}, "line 3: expected a number in column 'y', found 'north'"),
        ("east,north,class\n1,2,a\n", {"crs": CRS}, "expected columns x, y .* found east, north, class"),
        ("", {"crs": CRS}, "cannot be read as vector data"),
    ],
)
def test_a_table_that_is_wrong_is_refused(tmp_path: Path, text: str, options: dict[str, Any], message: str) -> None:
    path = tmp_path / "points.csv"
    path.write_text(text)
    with pytest.raises(LabelError, match=message):
        vector(path, **options)


def test_a_file_of_several_layers_must_be_told_which(tmp_path: Path) -> None:
    path = tmp_path / "fields.gpkg"
    FIELDS.to_file(path, layer="training")
    FIELDS[:1].to_file(path, layer="old")
    with pytest.raises(LabelError, match="2 layers, name one: training, old"):
        vector(path)
    with pytest.raises(LabelError, match="no layer 'trainin'; did you mean 'training'"):
        vector(path, layer="trainin")
    assert vector(path, layer="training").n_features == 3


def test_points_without_coordinates_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text("x,y,class\n500055,4999945,a\n,4999945,a\n500105,4999895,b\n")
    labels = vector(path, crs=CRS)
    assert labels.n_features == 2
    assert "1 features" in labels.notes[0]


# -- what lies where


def test_labels_outside_are_counted(tmp_path: Path) -> None:
    shapes = [square(5, 5), square(15, 5), square(500, 5), square(600, 5)]
    labels = opened(tmp_path / "a.gpkg", frame(shapes, ["a", "b", "b", "sea"]))
    assert labels.notes == [
        "2 of 4 labels lie outside the raster and are left out",
        "label values without a feature inside the raster: sea",
    ]
    assert [(r["label"], r["class"], r["features"], r["outside"]) for r in labels.report()] == [
        ("a", "a", 1, 0),
        ("b", "b", 1, 1),
        ("sea", "none", 0, 1),
    ]


def test_labels_all_outside_are_refused_with_both_extents(tmp_path: Path) -> None:
    far = FIELDS.translate(xoff=1e5).to_crs("EPSG:4326")
    with pytest.raises(LabelError) as refused:
        opened(tmp_path / "a.gpkg", FIELDS.set_geometry(far))
    message = str(refused.value)
    for part in ("EPSG:32633", "WGS 84", "(500000, 4999400) to (500600, 5000000)", "600050", "16."):
        assert part in message


def test_labels_in_the_wrong_place_are_refused(tmp_path: Path) -> None:
    nowhere = frame([Point(0, 95), Point(10, 95)], ["a", "b"], crs="EPSG:4326")
    with pytest.raises(LabelError, match="no label lies inside the raster"):
        opened(tmp_path / "a.gpkg", nowhere)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"field": "clas"}, "no field 'clas'; did you mean 'class'\\? It has class"),
        ({"field": None}, "labels.field: name the field with the class; .* has class"),
    ],
)
def test_a_wrong_name_is_refused_with_the_nearest(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    FIELDS.to_file(tmp_path / "a.gpkg")
    with pytest.raises(LabelError, match=message):
        opened(tmp_path / "a.gpkg", FIELDS, **options)
    with pytest.raises(LabelError, match=r"no file .*a\.gpgk; did you mean 'a\.gpkg'"):
        vector(tmp_path / "a.gpgk")


def test_labels_that_state_no_crs_are_refused_unless_it_is_given(tmp_path: Path) -> None:
    path = tmp_path / "a.shp"
    FIELDS.to_file(path)
    path.with_suffix(".prj").unlink()
    with pytest.raises(LabelError, match=r"states no CRS; give it with labels\.crs"):
        vector(path)
    np.testing.assert_array_equal(codes(vector(path, crs=CRS)), labelled_by_hand(FIELDS.geometry, [1, 0, 0], grid()))


def test_a_file_that_holds_no_features_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.gpkg"
    path.write_text("not a database")
    with pytest.raises(LabelError, match="cannot be read as vector data"):
        vector(path)


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="needs two classes at least, found one: 'a'; is this the right field"):
        opened(tmp_path / "a.gpkg", frame([square(1, 1), square(9, 9)], ["a", "a"]))


def test_a_class_without_labels_is_refused_with_what_there_is(tmp_path: Path) -> None:
    classes = [ClassSettings(name="Water", labels=["watr"]), ClassSettings(name="Forest", labels=["forest"])]
    with pytest.raises(LabelError, match="for 'Water'; did you mean 'water'") as refused:
        opened(tmp_path / "a.gpkg", FIELDS, classes=classes)
    assert "label values there: forest, water" in str(refused.value)


def test_values_of_no_class_are_left_out_and_said(tmp_path: Path) -> None:
    features = frame([square(1, 1), square(9, 9), square(19, 19)], ["a", "b", "bb"])
    labels = opened(tmp_path / "a.gpkg", features, classes=[ClassSettings(name="a"), ClassSettings(name="b")])
    assert labels.notes == ["label values of no class are left out: 'bb'; did you mean 'b'? (1)"]
    assert labels.n_features == 2
    assert labels.report()[2] == {"label": "bb", "class": "none", "features": 1, "outside": 0}


def test_labels_can_be_sent_to_a_worker(tmp_path: Path) -> None:
    labels = opened(tmp_path / "a.gpkg", FIELDS)
    np.testing.assert_array_equal(codes(pickle.loads(pickle.dumps(labels))), codes(labels))

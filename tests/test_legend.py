"""The legend: codes, colours, and what is refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import LabelError
from pipeline.samples.legend import Legend, palette, text_of
from pipeline.settings import ClassSettings


def test_every_value_is_a_class_in_natural_order() -> None:
    legend = Legend.from_values(["crop 10", "crop 9", "Forest", "crop 9"], None)
    assert [c.name for c in legend.classes] == ["crop 9", "crop 10", "Forest"]
    assert legend.codes.tolist() == [1, 2, 3]
    assert [legend.index(v) for v in ("crop 9", "crop 10", "Forest", "sea")] == [0, 1, 2, None]


@pytest.mark.parametrize(
    ("values", "codes"),
    [
        ([3, 7, 254], [3, 7, 254]),
        ([3.0, 7.0], [3, 7]),  # a column of numbers with gaps is stored as float
        (["2", "1"], [1, 2]),
        ([0, 5], [1, 2]),
        ([5, 300], [1, 2]),
        (["1", "01"], [1, 2]),
        (["²", "1"], [1, 2]),
    ],
)
def test_values_that_are_codes_keep_them(values: list[object], codes: list[int]) -> None:
    assert sorted(Legend.from_values(values, None).codes.tolist()) == codes


def test_settings_name_classes_and_leave_codes_to_be_filled() -> None:
    classes = [
        ClassSettings(name="Wood", labels=["forest", 3]),
        ClassSettings(name="Lake", code=1, color="#0000ff"),
        ClassSettings(name="Field"),
    ]
    legend = Legend.from_values(["forest"], classes)
    assert legend.codes.tolist() == [2, 1, 3]
    assert [legend.index(v) for v in ("forest", 3, 3.0, "Lake", "Field", "Wood")] == [0, 0, 0, 1, 2, None]
    assert legend.classes[1].color == "#0000ff"


@pytest.mark.parametrize(
    ("classes", "what"),
    [
        ([{"name": "a"}, {"name": "a", "labels": ["b"]}], "name 'a'"),
        ([{"name": "a", "code": 4}, {"name": "b", "code": 4}], "code 4"),
        ([{"name": "a", "labels": ["x", 1]}, {"name": "b", "labels": ["1"]}], "label value '1'"),
    ],
)
def test_what_stands_for_two_classes_is_refused(classes: list[dict[str, object]], what: str) -> None:
    with pytest.raises(LabelError, match=f"{what} stands for two classes"):
        Legend.from_values(["x"], [ClassSettings.model_validate(c) for c in classes])


@pytest.mark.parametrize(
    ("codes", "dtype", "nodata"),
    [
        ([1, 2], "uint8", 0),
        ([1, 255], "uint8", 0),
        ([0, 1], "uint8", 255),
        ([0, 254], "uint8", 255),
        ([0, 255], "uint16", 65535),
        ([1, 256], "uint16", 0),
    ],
)
def test_nodata_is_no_class_and_fits_the_type(codes: list[int], dtype: str, nodata: int) -> None:
    legend = Legend.from_values(["c0"], [ClassSettings(name=f"c{c}", code=c) for c in codes])
    assert (legend.dtype, legend.nodata) == (dtype, nodata)


def test_many_classes_need_uint16_and_too_many_are_refused() -> None:
    legend = Legend.from_values([f"c{i}" for i in range(300)], None)
    assert legend.dtype == "uint16"
    with pytest.raises(LabelError, match=r"70000 different values.*is this the field with the class"):
        Legend.from_values(range(70_000), None)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("forestwaterurban xyz", min_size=1), unique=True, max_size=60))
def test_colours_are_distinct(names: list[str]) -> None:
    colors = palette(names)
    assert len(set(colors)) == len(names)
    assert all(re.fullmatch("#[0-9a-f]{6}", c) for c in colors)


def test_colours_are_those_expected_and_none_is_used_twice() -> None:
    water, forest = palette(["Water", "primary forest"])
    assert int(water[5:], 16) > int(water[1:3], 16)
    assert int(forest[3:5], 16) > int(forest[1:3], 16)
    assert palette(["river"], taken=[water.upper()]) != [water]
    assert len(set(palette([f"class {i}" for i in range(200)]))) == 200


def test_a_legend_survives_json() -> None:
    legend = Legend.from_values(["a", "b", "Übergang"], None)
    assert Legend.from_json(legend.to_json()) == legend


def test_an_unknown_value_names_the_nearest() -> None:
    assert Legend.from_values(["forest", "water"], None).unknown("forrest") == "'forrest'; did you mean 'forest'?"


@pytest.mark.parametrize(("value", "text"), [(1.0, "1"), (1.5, "1.5"), (7, "7"), (" pasture ", "pasture")])
def test_text_of_a_value(value: object, text: str) -> None:
    assert text_of(value) == text

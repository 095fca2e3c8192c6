"""Labels on the grid: rasterisation against a naive oracle, and repair."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from oracles_samples import labelled_by_hand
from places import CRS, X, Y, codes, frame, grid, opened, square
from shapely.geometry import GeometryCollection, LineString, MultiPoint, MultiPolygon, Point, Polygon, box

from pipeline.grid import Window
from pipeline.samples.features import open_labels
from pipeline.samples.labels import IGNORE
from pipeline.samples.shapes import VectorLabels, pixel_bounds
from pipeline.settings import LabelSettings


def at(row: float, column: float) -> Point:
    """Return a point given in pixels of the grid."""
    return Point(X + 10 * column, Y - 10 * row)


# -- rasterisation

# On a lattice: where an edge lies a hundred-thousandth of a pixel beside a pixel's side, GDAL's all_touched may miss the pixel.
_SIZES = st.integers(2, 63).map(lambda n: n / 7)
_PLACES = st.integers(-21, 126).map(lambda n: n / 7)


@st.composite
def _shapes(draw: st.DrawFn) -> Any:
    row, column, high, wide = draw(_PLACES), draw(_PLACES), draw(_SIZES), draw(_SIZES)
    kind = draw(st.sampled_from(["square", "triangle", "ring"]))
    outer = square(row, column, high, wide)
    if kind == "ring":
        return outer.difference(square(row + high / 4, column + wide / 4, high / 2, wide / 2))
    left, bottom, right, top = outer.bounds
    return outer if kind == "square" else Polygon([(left, bottom), (right, bottom), ((left + 2 * right) / 3, top)])


@settings(max_examples=40, deadline=None)
@given(st.lists(_shapes(), min_size=1, max_size=5), st.booleans())
def test_polygons_label_the_centres_they_cover_and_the_last_counts(shapes: list[Any], all_touched: bool) -> None:
    box_ = grid(16, 18)
    classes = np.arange(len(shapes)) % 3
    labels = made(shapes, classes, box_, all_touched)
    found, expected = codes(labels), labelled_by_hand(shapes, classes, box_, all_touched)
    # Edges that run through centres, or along the sides of pixels, are a matter of rounding.
    on_edge = np.zeros(found.shape, bool)
    for i, j in np.ndindex(found.shape):
        place = at(i + 0.5, j + 0.5)
        pixel = square(i, j, 1)
        on_edge[i, j] = any(
            shape.boundary.distance(place) < 1e-6
            or (all_touched and pixel.distance(shape) < 1e-3 and pixel.intersection(shape).area < 1e-3)
            for shape in shapes
        )
    np.testing.assert_array_equal(found[~on_edge], expected[~on_edge])


@settings(max_examples=40, deadline=None)
@given(st.lists(_shapes(), min_size=1, max_size=5), st.integers(-4, 14), st.integers(-4, 14), st.integers(1, 12))
def test_a_window_is_a_part_of_the_whole(shapes: list[Any], y: int, x: int, side: int) -> None:
    labels = made(shapes, np.arange(len(shapes)) % 3, grid(16, 18))
    full = labels.read(Window(y=-10, x=-10, height=40, width=40))
    part = labels.read(Window(y=y, x=x, height=side, width=side))
    rows, columns = slice(y + 10, y + 10 + side), slice(x + 10, x + 10 + side)
    np.testing.assert_array_equal(part.codes, full.codes[rows, columns])
    np.testing.assert_array_equal(part.feature, full.feature[rows, columns])
    assert (full.codes[:10] == IGNORE).all()
    assert (full.codes[:, 28:] == IGNORE).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(_shapes(), min_size=1, max_size=4), st.integers(1, 20))
def test_windows_find_every_label(shapes: list[Any], size: int) -> None:
    labels = made(shapes, np.zeros(len(shapes), int), grid(16, 18))
    windows = list(labels.windows(size))
    assert len(set(windows)) == len(windows)
    assert all(w.y % size == 0 and w.x % size == 0 and w.shape == (size, size) for w in windows)
    found = sum(int((labels.read(w).codes != IGNORE).sum()) for w in windows)
    assert found == int((codes(labels) != IGNORE).sum())


def made(shapes: list[Any], classes: Any, geobox: GeoBox, all_touched: bool = False) -> VectorLabels:
    """Return labels without a file."""
    from pipeline.samples.legend import Legend

    features = frame(shapes, [f"c{i}" for i in classes]).assign(class_index=np.asarray(classes, np.int16))
    legend = Legend.from_values(["c0", "c1", "c2"], None)
    return VectorLabels(geobox=geobox, legend=legend, frame=features, all_touched=all_touched)


def test_threads_read_labels_at_once_without_a_warning() -> None:
    labels = made([square(2, 2, 9)], [0], grid(16, 18))
    window = Window(y=0, x=0, height=16, width=18)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: int((labels.read(window).codes == 0).sum()), range(2000)))
    assert set(found) == {81}


def test_lines_label_every_pixel_they_pass_and_points_their_own(tmp_path: Path) -> None:
    shapes = [LineString([at(2.3, 1.2), at(11.6, 20.9)]), at(30.2, 40.7), MultiPoint([at(50.5, 1.5), at(51.5, 1.5)])]
    labels = opened(tmp_path / "a.gpkg", frame(shapes, ["road", "tree", "tree"]))
    singles = [shapes[0], shapes[1], *shapes[2].geoms]
    np.testing.assert_array_equal(codes(labels), labelled_by_hand(singles, [0, 1, 1, 1], grid()))


def test_the_order_of_the_file_holds_across_kinds(tmp_path: Path) -> None:
    line = LineString([at(8.5, 0.5), at(8.5, 30.5)])
    shapes = [square(5, 5, 8), line, square(5, 20, 8), at(8.5, 22.5)]
    labels = opened(tmp_path / "a.gpkg", frame(shapes, ["a", "b", "c", "d"]))
    found = codes(labels)
    assert found[8, 5:13].tolist() == [1] * 8
    assert found[8, 20:28].tolist() == [2, 2, 3, 2, 2, 2, 2, 2]


def test_a_polygon_that_covers_no_centre_labels_the_pixel_it_lies_in(tmp_path: Path) -> None:
    tiny = square(10.1, 10.1, 0.2)
    sliver = square(20.1, 5.1, 0.2, 30)
    crossing = square(30.45, 5.1, 0.1, 30)
    shapes = [tiny, sliver, crossing, square(40, 5, 10)]
    labels = opened(tmp_path / "a.gpkg", frame(shapes, ["a", "b", "c", "d"]))
    found = codes(labels)
    assert [int((found == i).sum()) for i in range(4)] == [1, 1, 30, 100]
    assert found[10, 10] == 0
    assert [n for n in labels.notes if "centre" in n] == [
        "2 polygons that cover no pixel centre: labels of the pixel they lie in (in the order of the file: 1, 2)"
    ]
    touched = opened(tmp_path / "b.gpkg", frame(shapes, ["a", "b", "c", "d"]), all_touched=True)
    assert int((codes(touched) == 1).sum()) == 31


def test_pixel_bounds_of_a_south_up_and_a_rotated_grid() -> None:
    south_up = GeoBox((10, 10), Affine(10, 0, 0, 0, 10, 0), CRS)
    assert pixel_bounds([box(21, 31, 45, 55)], south_up).tolist() == [[3, 2, 5, 4]]
    turned = GeoBox((10, 10), Affine.rotation(90) @ Affine.scale(10), CRS)
    assert pixel_bounds([MultiPolygon([box(-45, 31, -21, 55)])], turned).tolist() == [[2, 3, 4, 5]]


# -- repair


def test_overlaps_of_different_classes_are_said(tmp_path: Path) -> None:
    shapes = [square(0, 0, 10), square(5, 5, 10), square(0, 10, 5), square(40, 40, 5), square(42, 42, 5)]
    labels = opened(tmp_path / "a.gpkg", frame(shapes, ["a", "b", "b", "a", "a"]))
    (note,) = labels.notes
    assert note == (
        "1 pairs of features of different classes overlap (first: 1 and 2, a and b); the later in the file counts"
    )
    assert codes(labels)[7, 7] == 1


def test_points_of_different_classes_in_a_pixel_are_said(tmp_path: Path) -> None:
    shapes = [at(3.2, 3.2), at(3.7, 3.7), at(9.5, 9.5)]
    labels = opened(tmp_path / "a.gpkg", frame(shapes, ["a", "b", "a"]))
    assert labels.notes == ["1 pixels hold points of different classes; the later in the file counts"]
    assert codes(labels)[3, 3] == 1


def test_broken_geometries_are_repaired_and_listed(tmp_path: Path) -> None:
    bow = Polygon([(X, Y), (X + 100, Y - 100), (X + 100, Y), (X, Y - 100)])
    spike = Polygon(
        [(X + 200, Y), (X + 300, Y), (X + 300, Y - 100), (X + 200, Y - 100), (X + 200, Y), (X + 200, Y + 90)]
    )
    high = Polygon([(X, Y - 300, 5), (X + 100, Y - 300, 5), (X + 100, Y - 400, 5)])
    mixed = GeometryCollection([square(30, 30, 5), LineString([at(50.5, 30.5), at(50.5, 40.5)])])
    labels = opened(tmp_path / "a.gpkg", frame([bow, spike, high, mixed], ["a", "b", "b", "a"]))
    assert labels.notes == ["2 features with an invalid geometry: repaired (in the order of the file: 1, 2)"]
    assert labels.frame.geometry.is_valid.all()
    assert not labels.frame.geometry.has_z.any()
    found = codes(labels)
    assert int((found[:10, :10] == 0).sum()) == 50
    assert int((found[:10, 20:30] == 1).sum()) == 100
    assert (found[50, 30:41] == 0).all()


def test_features_without_a_place_or_a_label_are_left_out(tmp_path: Path) -> None:
    shapes = [square(1, 1), None, Polygon(), square(11, 11), square(21, 21), square(31, 31)]
    labels = opened(tmp_path / "a.gpkg", frame(shapes, ["a", "a", "a", None, "  ", "b"]))
    assert labels.n_features == 2
    assert labels.notes == [
        "2 features without a geometry: left out (in the order of the file: 2, 3)",
        "2 features without a value of 'class': left out (in the order of the file: 4, 5)",
    ]


# -- real data


def test_polygons_of_a_real_scene_label_what_another_tool_labelled(data: Path) -> None:
    folder = data / "landsat_chiapas"
    with rasterio.open(folder / "training_data.gtif") as raster:
        geobox = GeoBox.from_rio(raster)
        theirs = raster.read(1, masked=True).filled(0)
    settings_ = LabelSettings(path=str(folder / "training_data.shp"), field="class")
    ours = codes(open_labels(settings_, None, geobox)) != IGNORE
    assert ours.sum() > 0
    assert (ours != (theirs > 0)).mean() < 1e-3

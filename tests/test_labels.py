"""Labels on the grid: formats, repair, rasterisation against a naive oracle, and what is refused."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from oracles import labelled_by_hand
from places import CRS, X, Y, codes, frame, grid, opened, square
from shapely.geometry import GeometryCollection, LineString, MultiPoint, MultiPolygon, Point, Polygon, box

from pipeline.errors import LabelError
from pipeline.grid import Window
from pipeline.samples.features import open_labels
from pipeline.samples.labels import IGNORE
from pipeline.samples.shapes import VectorLabels, pixel_bounds
from pipeline.settings import ClassSettings, LabelSettings

FIELDS = frame([square(5, 5, 10), square(20, 30, 12), square(40, 10, 8)], ["water", "forest", "forest"])


def at(row: float, column: float) -> Point:
    """Return a point given in pixels of the grid."""
    return Point(X + 10 * column, Y - 10 * row)


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


def test_pixel_bounds_of_a_south_up_and_a_rotated_grid() -> None:
    south_up = GeoBox((10, 10), Affine(10, 0, 0, 0, 10, 0), CRS)
    assert pixel_bounds([box(21, 31, 45, 55)], south_up).tolist() == [[3, 2, 5, 4]]
    turned = GeoBox((10, 10), Affine.rotation(90) @ Affine.scale(10), CRS)
    assert pixel_bounds([MultiPolygon([box(-45, 31, -21, 55)])], turned).tolist() == [[2, 3, 4, 5]]


# -- label rasters


def write_raster(path: Path, values: Any, transform: Affine | None = None, **profile: Any) -> Path:
    values = np.asarray(values)
    options = {"driver": "GTiff", "crs": CRS, "transform": transform or grid().affine} | profile
    with rasterio.open(
        path, "w", count=1, height=values.shape[0], width=values.shape[1], dtype=values.dtype, **options
    ) as raster:
        raster.write(values, 1)
    return path


def raster_values() -> Any:
    values = np.zeros((60, 60), np.uint8)
    values[5:15, 5:15], values[30:40, 20:50] = 7, 3
    return values


def test_a_raster_of_labels(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "labels.tif", raster_values())
    labels = open_labels(LabelSettings(path=str(path)), None, grid())
    np.testing.assert_array_equal(
        labels.legend.codes[codes(labels)][raster_values() > 0], raster_values()[raster_values() > 0]
    )
    assert ((codes(labels) == IGNORE) == (raster_values() == 0)).all()
    assert [r["pixels"] for r in labels.report()] == [300, 100]
    assert "3200 pixels of 0 are taken for not labelled" in labels.notes[0]
    assert [(w.y, w.x) for w in labels.windows(20)] == [(0, 0), (20, 20), (20, 40)]
    assert labels.n_features == 0
    outside = pickle.loads(pickle.dumps(labels)).read(Window(y=-5, x=-5, height=20, width=20))
    assert (outside.codes[:5] == IGNORE).all()
    assert (outside.codes[10, 10:] != IGNORE).all()


def test_zero_is_a_class_where_it_is_named(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "labels.tif", raster_values(), nodata=3)
    classes = [ClassSettings(name="land", labels=[0]), ClassSettings(name="water", labels=[7])]
    labels = open_labels(LabelSettings(path=str(path)), classes, grid())
    assert labels.notes == []
    found = codes(labels)
    assert [int((found == i).sum()) for i in (0, 1, IGNORE)] == [3200, 100, 300]


def test_a_raster_on_another_grid_gives_the_nearest_pixel(tmp_path: Path) -> None:
    coarse = np.array([[1, 2], [3, 4]], np.int16)
    path = write_raster(tmp_path / "labels.tif", coarse, Affine(300, 0, X, 0, -300, Y))
    labels = open_labels(LabelSettings(path=str(path)), None, grid())
    np.testing.assert_array_equal(labels.legend.codes[codes(labels)], np.kron(coarse, np.ones((30, 30))))


def test_whole_numbers_stored_as_floats_are_labels_and_fractions_are_not(tmp_path: Path) -> None:
    values = raster_values().astype(np.float32)
    values[0, 0] = np.nan
    labels = open_labels(LabelSettings(path=str(write_raster(tmp_path / "a.tif", values))), None, grid())
    assert labels.legend.codes.tolist() == [3, 7]
    values[0, 0] = 0.25
    with pytest.raises(LabelError, match=r"labels are whole numbers, found 0.25 in rows 0..59"):
        open_labels(LabelSettings(path=str(write_raster(tmp_path / "b.tif", values))), None, grid())


def test_a_raster_of_labels_that_is_wrong_is_refused(tmp_path: Path) -> None:
    far = write_raster(tmp_path / "far.tif", raster_values(), Affine(10, 0, X + 5e4, 0, -10, Y))
    with pytest.raises(LabelError, match=r"no label lies inside the raster.*550000"):
        open_labels(LabelSettings(path=str(far)), None, grid())
    bare = write_raster(tmp_path / "bare.tif", raster_values(), crs=None)
    with pytest.raises(LabelError, match="states no CRS"):
        open_labels(LabelSettings(path=str(bare)), None, grid())
    assert open_labels(LabelSettings(path=str(bare), crs=CRS), None, grid()).legend.codes.tolist() == [3, 7]
    text = tmp_path / "text.tif"
    text.write_text("no raster")
    with pytest.raises(LabelError, match=r"labels\.path: .*cannot be opened as a raster"):
        open_labels(LabelSettings(path=str(text)), None, grid())


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

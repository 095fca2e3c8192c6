"""Folds: shares, no leaks, what is chosen by default, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from places import frame, grid, opened, scattered, square
from shapely.geometry import LineString, Point, box

from pipeline.errors import LabelError
from pipeline.grid import Window, whole
from pipeline.samples.features import open_labels
from pipeline.samples.folds import NONE, TEST, TRAIN, VAL, Folds, Round, make_folds
from pipeline.samples.labels import IGNORE, Labels
from pipeline.samples.shapes import VectorLabels
from pipeline.samples.stratify import assign
from pipeline.samples.units import feature_weights
from pipeline.settings import FoldSettings, LabelSettings


def divided(labels: Labels, halo: int = 0, **options: Any) -> Folds:
    return make_folds(labels, FoldSettings.model_validate(options), halo)


def fold_of_pixels(folds: Folds, labels: Labels) -> tuple[Any, Any]:
    """Return folds and classes of all labelled pixels."""
    tile = labels.read(whole(labels.geobox))
    fold = folds.read(whole(labels.geobox), tile)
    assert ((fold < 0) == (tile.codes == IGNORE)).all()
    return fold, tile.codes


# -- whole features


def test_features_stay_whole_and_every_fold_has_its_share(tmp_path: Path) -> None:
    labels = scattered(tmp_path / "a.gpkg", [20, 10, 6])
    folds = divided(labels, halo=3)
    assert (folds.method, folds.names, folds.k, folds.buffer) == ("features", ("train", "val", "test"), 0, 3)
    tile = labels.read(whole(labels.geobox))
    fold, codes = fold_of_pixels(folds, labels)
    for feature in range(36):
        assert len(np.unique(fold[tile.feature == feature])) == 1
    for index, n in enumerate((20, 10, 6)):
        counts = np.bincount(fold[codes == index], minlength=3) / 16
        assert np.abs(counts - n * np.array((0.6, 0.2, 0.2))).max() <= 1


def test_the_seed_decides_and_nothing_else(tmp_path: Path) -> None:
    labels = scattered(tmp_path / "a.gpkg", [12, 12])
    first, again, other = (divided(labels, seed=s).of_feature for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != other).any()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 50)), min_size=8, max_size=60),
    st.sampled_from([(0.6, 0.2, 0.2), (0.5, 0.25, 0.25), (0.2,) * 5]),
    st.integers(0, 5),
)
def test_no_fold_is_further_from_its_share_than_one_unit(
    units: list[tuple[int, int]], shares: Sequence[float], seed: int
) -> None:
    weights = np.zeros((len(units), 4))
    for i, (index, weight) in enumerate(units):
        weights[i, index] = weight
    fold = assign(weights, np.array(shares), seed)
    for index in range(4):
        of = weights[:, index]
        for f, share in enumerate(shares):
            # Heaviest first, to the fold that lacks most: no fold ends above its share by more than one unit.
            assert of[fold == f].sum() - share * of.sum() <= of.max() + 1e-9


# -- cross-validation


def test_few_features_are_cross_validated_and_it_is_said(tmp_path: Path) -> None:
    folds = divided(scattered(tmp_path / "a.gpkg", [11, 6, 2]))
    assert folds.k == 10
    assert "cross-validated with 10 folds, for class 'class 2' has labels in only 2 features" in folds.notes[-1]
    assert divided(scattered(tmp_path / "b.gpkg", [11, 6, 5])).k == 0
    assert divided(scattered(tmp_path / "c.gpkg", [3, 3])).k == 6


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(2, 9), min_size=2, max_size=4).filter(lambda n: sum(n) >= 6), st.integers(3, 6))
def test_each_fold_is_tested_once_by_a_network_that_has_seen_its_classes(
    tmp_path_factory: pytest.TempPathFactory, per_class: list[int], k: int
) -> None:
    labels = scattered(tmp_path_factory.mktemp("labels") / "a.gpkg", per_class)
    folds = divided(labels, k=k)
    assert folds.of_feature is not None
    assert len(folds.rounds) == folds.k == k
    classes = len(per_class)
    parts = len(folds.names) // k
    for i, round_ in enumerate(folds.rounds):
        own = range(i * parts, (i + 1) * parts)
        assert (round_.roles[own] == TEST).all()
        assert (np.delete(round_.roles, own, 0) != TEST).all()
        role = round_.roles[folds.of_feature, labels.feature_class]
        assert (role != NONE).all()
        assert set(labels.feature_class[role == TRAIN]) == set(range(classes))
        assert (role == VAL).any()
        assert len(set(folds.of_feature[role == VAL])) == 1


def test_a_part_of_the_next_fold_stops_the_training(tmp_path: Path) -> None:
    folds = divided(scattered(tmp_path / "a.gpkg", [15, 15]), k=5)
    assert folds.names[:3] == ("fold 1a", "fold 1b", "fold 2a")
    for i, round_ in enumerate(folds.rounds):
        roles = [TRAIN] * 10
        roles[2 * i] = roles[2 * i + 1] = TEST
        roles[(2 * i + 2) % 10] = VAL
        assert round_.roles.tolist() == [[r, r] for r in roles]


def test_of_many_folds_a_whole_one_stops_the_training(tmp_path: Path) -> None:
    folds = divided(scattered(tmp_path / "a.gpkg", [15, 15]), k=10)
    assert folds.names[:2] == ("fold 1", "fold 2")
    assert folds.rounds[0].roles[:3, 0].tolist() == [TEST, VAL, TRAIN]


def test_a_class_of_one_feature_is_cross_validated_when_asked_and_it_is_said(tmp_path: Path) -> None:
    labels = scattered(tmp_path / "a.gpkg", [12, 1])
    folds = divided(labels, k=5, method="features")
    assert "class 'class 1' lies in one fold alone" in folds.notes[-1]
    with pytest.raises(LabelError, match=r"labels in 1 of the features.*with folds.k: 5 it goes on"):
        divided(labels, method="features")


def test_a_class_of_two_features_never_loses_the_last_to_validation(tmp_path: Path) -> None:
    labels = scattered(tmp_path / "a.gpkg", [20, 2])
    folds = divided(labels, k=5)
    assert folds.of_feature is not None
    first, second = folds.of_feature[labels.feature_class == 1]
    assert first // 2 != second // 2
    for tested, other in ((first, second), (second, first)):
        assert folds.rounds[tested // 2].roles[other, 1] == TRAIN


def test_all_labels_train_in_the_round_of_everything() -> None:
    assert (Round.everything(5, 3).roles == np.full((5, 3), TRAIN)).all()


@pytest.mark.parametrize(
    ("per_class", "options", "message"),
    [
        ([9, 9], {"k": 2}, "folds.k: found 2; one fold trains, one stops, one tests"),
        ([3, 3], {"k": 8}, "folds.k: found 8, but there are only 6 features to divide"),
        ([2, 2], {"fractions": (1, 0, 0), "k": 0}, "the val fold is empty.*use folds.k: 5"),
        ([9, 1], {"method": "features"}, "'class 1' has labels in 1 of the features.*use folds.method: blocks"),
    ],
)
def test_what_cannot_be_divided_is_refused(
    tmp_path: Path, per_class: list[int], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(LabelError, match=message):
        divided(scattered(tmp_path / "a.gpkg", per_class), **options)


def test_labels_in_too_few_places_are_refused(tmp_path: Path) -> None:
    shapes = [square(1, 1), square(40, 40)]
    labels = opened(tmp_path / "a.gpkg", frame(shapes, ["a", "b"]))
    with pytest.raises(
        LabelError, match=r"class 'a' has labels in 1 of the blocks of land.*add labels of it elsewhere"
    ):
        divided(labels, size=300)


# -- blocks of land


def points(n: int, width: int = 60, offset: int = 0) -> Any:
    rng = np.random.default_rng(1)
    places = rng.uniform(0, width, (n, 2)) + offset
    shapes = [Point(500_000 + 10 * x, 5_000_000 - 10 * y) for x, y in places]
    return frame(shapes, rng.choice(["a", "b", "c"], n))


def test_many_points_are_divided_by_blocks_of_land(tmp_path: Path) -> None:
    labels = opened(tmp_path / "a.gpkg", points(200))
    folds = divided(labels, halo=2)
    assert folds.method == "blocks"
    assert "200 points are too many to lie apart" in folds.notes[0]
    fold, _ = fold_of_pixels(folds, labels)
    cells = np.arange(60) // folds.side
    for cell in np.ndindex(int(cells[-1]) + 1, int(cells[-1]) + 1):
        inside = fold[np.ix_(cells == cell[0], cells == cell[1])]
        assert len(np.unique(inside[inside >= 0])) <= 1
    assert (np.bincount(fold[fold >= 0], minlength=3) > 0).all()


def test_a_part_of_the_land_is_divided_like_the_whole(tmp_path: Path) -> None:
    labels = opened(tmp_path / "a.gpkg", points(200))
    folds = divided(labels)
    full, _ = fold_of_pixels(folds, labels)
    for window in (Window(y=-5, x=-7, height=30, width=40), Window(y=33, x=17, height=40, width=50)):
        part = folds.read(window, labels.read(window))
        inside = window.intersect(whole(labels.geobox))
        assert inside is not None
        np.testing.assert_array_equal(part[inside.within(window)], full[inside.within(whole(labels.geobox))])


def test_blocks_have_the_size_that_is_asked_for_or_follow_from_where_labels_lie(tmp_path: Path) -> None:
    geobox = grid(400, 400)
    everywhere = opened(tmp_path / "a.gpkg", points(200, 400), geobox)
    assert divided(everywhere, method="blocks", size=500).side == 50
    assert divided(everywhere, method="blocks").side == 49
    assert divided(everywhere, halo=40, method="blocks").side == 80
    corner = opened(tmp_path / "b.gpkg", points(200, 40, 300), geobox)
    assert divided(corner, method="blocks").side == 5
    with pytest.raises(LabelError, match=r"folds\.size: 3 is less than a pixel \(10\)"):
        divided(everywhere, method="blocks", size=3)


def test_blocks_are_halved_where_a_class_lies_in_too_few(tmp_path: Path) -> None:
    shapes = [*(square(r, c, 6) for r in range(0, 400, 20) for c in range(0, 400, 20)), square(208, 208, 40)]
    labels = opened(tmp_path / "a.gpkg", frame(shapes, ["land"] * 400 + ["lake"]), grid(400, 400))
    folds = divided(labels)
    assert folds.notes[0] == "folds: blocks of land, for class 'lake' is one feature, which only blocks can divide"
    assert folds.side < 49
    fold, codes = fold_of_pixels(folds, labels)
    assert len(np.unique(fold[codes == 0])) >= 2


def test_a_raster_of_labels_is_divided_by_blocks(tmp_path: Path) -> None:
    import rasterio

    values = np.random.default_rng(0).integers(1, 4, (60, 60)).astype(np.uint8)
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", height=60, width=60, count=1, dtype="uint8",
                       crs="EPSG:32633", transform=grid().affine) as raster:  # fmt: skip
        raster.write(values, 1)
    labels = open_labels(LabelSettings(path=str(tmp_path / "a.tif")), None, grid())
    folds = divided(labels)
    assert (folds.method, folds.side) == ("blocks", 7)
    fold, codes = fold_of_pixels(folds, labels)
    for index in range(3):
        shares = np.bincount(fold[codes == index], minlength=3) / (codes == index).sum()
        assert np.abs(shares - (0.6, 0.2, 0.2)).max() < 0.06
    with pytest.raises(LabelError, match="a label raster has no features; use blocks, not features"):
        divided(labels, method="features")


def test_lines_weigh_by_their_length(tmp_path: Path) -> None:
    line = LineString([(500_005, 4_999_995), (500_205, 4_999_995)])
    labels = opened(tmp_path / "a.gpkg", frame([line, square(20, 20, 4)], ["a", "b"]))
    assert feature_weights(labels).tolist() == [[20, 0], [0, 16]]


def test_a_class_that_a_split_leaves_out_of_the_test_is_named(tmp_path: Path) -> None:
    folds = divided(scattered(tmp_path / "a.gpkg", [20, 2]), k=0)
    assert any(n.startswith("folds: no labels to ") for n in folds.notes)
    assert "'class 1'; folds.k would give them some" in folds.notes[-1]


def test_features_on_a_grid_of_degrees_are_divided(tmp_path: Path) -> None:
    geobox = GeoBox((60, 60), Affine(1e-4, 0, 15, 0, -1e-4, 45.15), "EPSG:4326")
    shapes = [
        box(15 + c * 1e-3, 45.15 - r * 1e-3 - 4e-4, 15 + c * 1e-3 + 4e-4, 45.15 - r * 1e-3)
        for r in range(6)
        for c in range(6)
    ]
    labels = opened(tmp_path / "a.gpkg", frame(shapes, list("abcabc") * 6, crs="EPSG:4326"), geobox)
    np.testing.assert_allclose(feature_weights(labels).sum(1), 16)
    assert divided(labels).k == 0


# -- a field says so


def by_field(path: Path, values: Sequence[Any], name: str = "fold") -> VectorLabels:
    shapes = [square(10 * (i // 6) + 1, 10 * (i % 6) + 1) for i in range(len(values))]
    labels = ["a" if i % 2 else "b" for i in range(len(values))]
    return opened(path, frame(shapes, labels, **{name: list(values)}))


def test_a_field_divides(tmp_path: Path) -> None:
    values = ["Train", "training", "val", "validation", "test", "Testing"]
    folds = divided(by_field(tmp_path / "a.gpkg", values))
    assert (folds.method, folds.k) == ("field", 0)
    assert folds.of_feature is not None
    assert folds.of_feature.tolist() == [0, 0, 1, 1, 2, 2]
    assert folds.notes == ["folds: by the field 'fold' of the labels"]


def test_a_field_of_numbers_is_cross_validated(tmp_path: Path) -> None:
    labels = by_field(tmp_path / "a.gpkg", [1, 1, 2, 2, 10, 10, 1, 2], name="part")
    folds = divided(labels, method="field", field="part")
    assert (folds.names, folds.k) == (("1", "2", "10"), 3)
    assert folds.of_feature is not None
    assert folds.of_feature.tolist() == [0, 0, 1, 1, 2, 2, 0, 1]


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (["train", "val"] * 3, {}, "no label has 'test' in 'fold'"),
        (["train", None, "val", "test"], {}, "1 labels have no value of 'fold'; allowed are train, val and test"),
        (range(20), {}, r"holds 20 values \(0, 1, 2, 3, 4, 5, ...\).*folds.method: features"),
        ([1, 2, 3, 2, 1, 2], {}, "all labels of class 'a' are in one fold of 'fold'"),
        (["train", "val"], {"field": "folds", "method": "field"}, "no field 'folds'; did you mean 'fold'"),
        (["train", "test", "val", "test"], {}, "no training labels for 'a'"),
    ],
)
def test_a_field_that_does_not_divide_is_refused(
    tmp_path: Path, values: Sequence[Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(LabelError, match=message):
        divided(by_field(tmp_path / "a.gpkg", values), **options)


# -- buffer


def test_the_buffer_is_the_halo_unless_it_is_given(tmp_path: Path) -> None:
    labels = scattered(tmp_path / "a.gpkg", [9, 9])
    assert [divided(labels, halo=24).buffer, divided(labels, halo=24, buffer=0).buffer] == [24, 0]


def test_labels_of_a_real_scene_are_cross_validated(data: Path) -> None:
    import rasterio

    folder = data / "landsat_chiapas"
    with rasterio.open(folder / "LE70220491999322EDC01_stack.gtif") as raster:
        geobox = GeoBox.from_rio(raster)
    labels = open_labels(LabelSettings(path=str(folder / "training_data.shp"), field="class"), None, geobox)
    folds = divided(labels, halo=24)
    assert folds.k == 10
    assert "'urban' has labels in only 2 features" in folds.notes[-1]

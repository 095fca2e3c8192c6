"""Figures of accuracy against scikit-learn; areas against a published example and an exact integral."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import CRS, Geod, Transformer
from sklearn import metrics
from test_parts import Class

from pipeline.errors import RunError
from pipeline.grid import Window, whole
from pipeline.maps.accuracy import Accuracy, confusion
from pipeline.maps.areas import Counted, areas, count_areas
from pipeline.maps.estimation import adjusted_areas
from pipeline.maps.surface import by_rows, cell_areas

CLASSES = [Class(n, c, "#102030") for n, c in (("a", 3), ("b", 5), ("c", 9), ("d", 12))]


@settings(max_examples=40, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
def test_figures_agree_with_another_implementation(pairs):
    reference, predicted = np.array(pairs).T
    found = Accuracy.of(confusion(reference, predicted, 4), CLASSES)
    labels = range(4)
    np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(reference, predicted, labels=labels))
    assert found.overall == pytest.approx(metrics.accuracy_score(reference, predicted))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        reference, predicted, labels=labels, zero_division=0
    )
    assert found.support == support.tolist()
    for mine, theirs in ((found.precision, precision), (found.recall, recall), (found.f1, f1)):
        assert [v or 0.0 for v in mine] == pytest.approx(theirs.tolist())
    present = sorted(set(reference) | set(predicted))
    assert found.macro_f1 == pytest.approx(metrics.f1_score(reference, predicted, labels=present, average="macro"))
    iou = metrics.jaccard_score(reference, predicted, labels=present, average=None)
    assert [found.iou[i] for i in present] == pytest.approx(iou.tolist())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kappa = metrics.cohen_kappa_score(reference, predicted)
    assert found.kappa is None if np.isnan(kappa) else found.kappa == pytest.approx(kappa)
    json.dumps(found.to_json(), allow_nan=False)


def test_accuracy_json_has_the_agreed_form():
    made = Accuracy.of(np.array([[5, 1, 0, 0], [0, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]), CLASSES).to_json()
    assert list(made) == ["n", "overall", "kappa", "macro_f1", "classes", "confusion"]
    assert made["n"] == 10
    assert made["classes"][0] == {
        "code": 3,
        "name": "a",
        "support": 6,
        "precision": 1.0,
        "recall": pytest.approx(5 / 6),
        "f1": pytest.approx(10 / 11),
        "iou": pytest.approx(5 / 6),
    }
    absent = made["classes"][3]
    assert [absent[k] for k in ("support", "precision", "recall", "f1", "iou")] == [0, None, None, None, None]
    assert made["macro_f1"] == pytest.approx((10 / 11 + 8 / 9) / 2)


def test_no_samples_give_no_figures():
    made = Accuracy.of(np.zeros((4, 4), int), CLASSES).to_json()
    assert (made["n"], made["overall"], made["kappa"], made["macro_f1"]) == (0, None, None, None)


def test_indices_outside_the_classes_are_refused():
    with pytest.raises(ValueError, match=r"reference: class indices must lie in 0\.\.3, got -1\.\.1"):
        confusion(np.array([-1, 1]), np.array([0, 0]), 4)
    with pytest.raises(ValueError, match="one length"):
        confusion(np.array([1]), np.array([0, 0]), 4)


# Olofsson et al. 2014, tables 8 and 9: rows = map, columns = reference; deforestation, forest gain, stable forest,
# stable non-forest. Pixels of 30 m.
TABLE_8 = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
HECTARES = [0.09 * n for n in (200_000, 150_000, 3_200_000, 6_450_000)]


def test_the_worked_example_of_olofsson_2014():
    found = adjusted_areas(TABLE_8.T, HECTARES)
    assert (found.overall.value, found.overall.margin) == (
        pytest.approx(0.9465, abs=5e-5),
        pytest.approx(0.0185, abs=5e-5),
    )
    assert found.areas[0].value == pytest.approx(21_158, abs=1)
    assert found.areas[0].margin == pytest.approx(6_158, abs=1)
    assert found.areas[1].value == pytest.approx(11_686, abs=1)
    assert found.areas[1].margin == pytest.approx(3_756, abs=1)
    assert [round(u.value, 2) for u in found.users] == [0.88, 0.73, 0.93, 0.96]
    assert [round(u.margin, 2) for u in found.users] == [0.07, 0.10, 0.04, 0.02]
    assert [round(p.value, 2) for p in found.producers] == [0.75, 0.85, 0.93, 0.96]
    assert [round(p.margin, 2) for p in found.producers] == [0.21, 0.25, 0.03, 0.02]
    assert sum(a.value for a in found.areas) == pytest.approx(sum(HECTARES))


@pytest.mark.parametrize("samples", [0, 1])
def test_a_stratum_with_fewer_than_two_samples_is_reported_and_left_out(samples):
    matrix = TABLE_8.copy()
    matrix[1] = [0, samples, 0, 0]
    found = adjusted_areas(matrix.T, HECTARES)
    assert found.unsampled == (1,)
    assert found.unsampled_area == pytest.approx(HECTARES[1])
    assert found.users[1] is None
    assert sum(a.value for a in found.areas) == pytest.approx(sum(HECTARES) - HECTARES[1])
    counted = {i: Counted(pixels=9, square_metres=HECTARES[i] * 10_000) for i in range(4)}
    rows = areas(matrix.T, counted, [Class(str(i), i, "#000000") for i in range(4)])
    assert (rows[1].adjusted_ha, rows[1].interval_ha, rows[1].counted_ha) == (None, None, pytest.approx(HECTARES[1]))
    assert "no estimate" in rows[1].note
    assert all(r.adjusted_ha is not None and np.isfinite(r.interval_ha) for r in (rows[0], rows[2], rows[3]))


def test_nothing_sampled_gives_no_estimate():
    found = adjusted_areas(np.zeros((4, 4), int), HECTARES)
    assert found.overall is None
    assert found.areas == (None,) * 4
    assert found.unsampled == (0, 1, 2, 3)


def test_a_class_the_map_never_shows_still_has_an_area():
    matrix = TABLE_8.copy()
    matrix[1] = 0
    mapped = [*HECTARES[:1], 0.0, *HECTARES[2:]]
    found = adjusted_areas(matrix.T, mapped)
    assert found.unsampled == ()
    assert found.areas[1].value > 0


def outline_area(geobox: GeoBox, y: int, x: int) -> float:
    """The area of one pixel on the ellipsoid, by the geodesics of a finely divided outline."""
    steps = np.linspace(0, 1, 50)
    ring = [(x + s, y) for s in steps] + [(x + 1, y + s) for s in steps]
    ring += [(x + 1 - s, y + 1) for s in steps] + [(x, y + 1 - s) for s in steps]
    crs = geobox.crs.proj
    to_earth = Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    longitude, latitude = to_earth.transform(*np.array([geobox.affine * p for p in ring]).T)
    geod = Geod(a=crs.ellipsoid.semi_major_metre, b=crs.ellipsoid.semi_minor_metre)
    unit = crs.geodetic_crs.axis_info[0].unit_conversion_factor
    return abs(geod.polygon_area_perimeter(longitude * unit, latitude * unit, radians=True)[0])


@pytest.mark.parametrize(
    ("crs", "affine"),
    [
        ("EPSG:4326", Affine(0.01, 0, -57, 0, -0.01, 60)),
        ("EPSG:4807", Affine(0.01, 0, 1, 0, -0.01, 52)),
        ("EPSG:32721", Affine(100, 0, 800_000, 0, -100, 8_000_000)),
        ("EPSG:3857", Affine(100, 0, -6e6, 0, -100, 8e6)),
        ("EPSG:3395", Affine(100, 0, -6e6, 0, -100, 8e6)),
        ("EPSG:2263", Affine(300, 0, 980_000, 0, -300, 200_000)),
        ("EPSG:3035", Affine(100, 0, 4_321_000, 0, -100, 3_210_000)),
        ("EPSG:3031", Affine(1000, 0, -1e6, 0, -1000, 1e6)),
    ],
)
def test_the_area_of_a_pixel_is_true_in_every_crs(crs, affine):
    geobox = GeoBox((3, 3), affine, crs)
    rows, columns = (1, 3) if by_rows(geobox) else (1, 1)
    found = cell_areas(geobox, whole(geobox), rows, columns)
    assert found[1, found.shape[1] // 2] == pytest.approx(outline_area(geobox, 1, 1), rel=2e-6)


def test_the_pixels_of_the_globe_add_up_to_the_earth():
    geobox = GeoBox((180, 360), Affine(1, 0, -180, 0, -1, 90), "EPSG:4326")
    total = cell_areas(geobox, whole(geobox), 1, 360).sum() * 360
    a, b = CRS.from_epsg(4326).ellipsoid.semi_major_metre, CRS.from_epsg(4326).ellipsoid.semi_minor_metre
    e = np.sqrt(1 - (b / a) ** 2)
    assert total == pytest.approx(2 * np.pi * a**2 * (1 + (1 - e**2) / e * np.arctanh(e)), rel=1e-12)


def test_a_place_outside_the_projection_has_no_area():
    geobox = GeoBox((2, 2), Affine(1e6, 0, 3e7, 0, -1e6, 3e7), "EPSG:3035")
    assert (cell_areas(geobox, Window(y=0, x=0, height=2, width=2), 1, 1) == 0).all()


@pytest.mark.parametrize("crs", ["EPSG:32721", "EPSG:4326", "EPSG:3857"])
def test_counting_goes_over_every_window(tmp_path, crs, monkeypatch):
    monkeypatch.setattr("pipeline.maps.areas._WINDOW", 64)
    step = 0.001 if crs == "EPSG:4326" else 10
    affine = Affine(step, 0, 10 if crs == "EPSG:4326" else 500_000, 0, -step, 50 if crs == "EPSG:4326" else 6_000_000)
    values = np.random.default_rng(0).choice(np.array([0, 3, 200], np.uint8), (150, 201))
    profile = {"driver": "GTiff", "count": 1, "height": 150, "width": 201, "dtype": "uint8", "nodata": 0}
    with rasterio.open(tmp_path / "a.tif", "w", **profile, crs=crs, transform=affine) as out:
        out.write(values, 1)
    found = count_areas(tmp_path / "a.tif")
    geobox = GeoBox((150, 201), affine, crs)
    size = cell_areas(geobox, whole(geobox), 1, 1)
    assert list(found) == [3, 200]
    for code, counted in found.items():
        assert counted.pixels == (values == code).sum()
        assert counted.square_metres == pytest.approx(size[values == code].sum(), rel=1e-6)


def test_a_map_without_a_crs_has_no_areas(tmp_path):
    profile = {"driver": "GTiff", "count": 1, "height": 5, "width": 5, "dtype": "uint8", "nodata": 0}
    with rasterio.open(tmp_path / "a.tif", "w", **profile, transform=Affine(2, 0, 0, 0, -2, 0)) as out:
        out.write(np.ones((5, 5), np.uint8), 1)
    with pytest.raises(RunError, match="no CRS"):
        count_areas(tmp_path / "a.tif")

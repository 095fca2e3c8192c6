"""What became of what between two maps: against plain loops, on the ellipsoid, and as a table."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Geod
from rasters import write
from test_parts import Class

from pipeline.errors import RunError
from pipeline.grid import whole
from pipeline.maps import change as module
from pipeline.maps.areas import AreaRow, count_areas
from pipeline.maps.change import Change, change
from pipeline.maps.surface import cell_areas
from workflows.tables import write_areas_csv, write_changes_csv

CLASSES = [Class(n, c, "#102030") for n, c in (("forest", 3), ("field", 5), ("water", 9))]
CODES = np.array([0, 3, 5, 9], np.uint8)


def maps(folder: Path, height: int = 40, width: int = 50, seed: int = 0, **profile: Any) -> tuple[Path, Path]:
    """Write two maps of one grid; a fifth of the pixels of each is nodata."""
    rng = np.random.default_rng(seed)
    return tuple(  # type: ignore[return-value]
        write(
            folder / f"{name}.tif",
            rng.choice(CODES, (1, height, width), p=(0.2, 0.4, 0.3, 0.1)).astype(profile.get("dtype", "uint8")),
            nodata=0,
            **{k: v for k, v in profile.items() if k != "dtype"},
        )
        for name in ("before", "after")
    )


def by_hand(before: Path, after: Path, area: Any) -> tuple[Any, Any]:
    """Count pixels and hectares pixel by pixel; ``area`` (H, W) is in square metres."""
    pixels, hectares = np.zeros((3, 3), int), np.zeros((3, 3))
    with rasterio.open(before) as a, rasterio.open(after) as b:
        first, second = a.read(1), b.read(1)
    index = {3: 0, 5: 1, 9: 2}
    for y, x in np.ndindex(first.shape):
        i, j = index.get(int(first[y, x])), index.get(int(second[y, x]))
        if i is not None and j is not None:
            pixels[i, j] += 1
            hectares[i, j] += area[y, x] / 10_000
    return pixels, hectares


@pytest.mark.parametrize("window", [2048, 16])
def test_changes_are_those_of_plain_loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    # An equal-area CRS: a pixel of 20 x 30 m is of 600 square metres everywhere.
    transform = Affine(20, 0, 4_321_000, 0, -30, 3_210_000)
    monkeypatch.setattr(module, "_WINDOW", window)
    before, after = maps(tmp_path, transform=transform, crs="EPSG:3035")
    found = change(before, after, CLASSES)
    pixels, hectares = by_hand(before, after, np.full((40, 50), 600.0))
    np.testing.assert_array_equal(found.pixels, pixels)
    np.testing.assert_allclose(found.hectares, hectares, rtol=1e-6)
    assert (found.pixels > 0).all()
    assert found.pixels.sum() < 2000
    total = hectares.sum()
    assert found.changed == pytest.approx((total - np.trace(hectares)) / total)


def test_changes_of_a_utm_grid_are_near_the_plane(tmp_path: Path) -> None:
    before, after = maps(tmp_path, transform=Affine(10, 0, 500_000, 0, -10, 5_000_000), crs="EPSG:32633")
    found = change(before, after, CLASSES)
    # On the central meridian lengths are 0.9996 of the true ones.
    np.testing.assert_allclose(found.hectares, found.pixels * 0.01 / 0.9996**2, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_changes_of_a_geographic_grid_are_computed_row_by_row(tmp_path: Path, dtype: str) -> None:
    # Half a degree tall: rows differ in their area by half, from north to south.
    transform = Affine(0.5, 0, -60, 0, -0.5, 65)
    before, after = maps(tmp_path, 60, 30, transform=transform, crs="EPSG:4326", dtype=dtype)
    found = change(before, after, CLASSES)
    geod = Geod(ellps="WGS84")
    area = np.zeros((60, 30))
    for row in range(60):
        top = 65 - 0.5 * row
        # Parallels are no geodesics: many vertices along them.
        x = np.linspace(0, 0.5, 200)
        ring = np.concatenate([x, x[::-1]]), np.concatenate([np.full(200, top), np.full(200, top - 0.5)])
        area[row] = abs(geod.polygon_area_perimeter(*ring)[0])
    pixels, hectares = by_hand(before, after, area)
    np.testing.assert_array_equal(found.pixels, pixels)
    np.testing.assert_allclose(found.hectares, hectares, rtol=1e-6)
    assert area[-1, 0] > 1.5 * area[0, 0]


def test_what_two_maps_share_adds_up_to_their_areas(tmp_path: Path) -> None:
    before, after = maps(tmp_path, 30, 30, transform=Affine(0.01, 0, -55, 0, -0.01, -11), crs="EPSG:4326")
    same = change(before, before, CLASSES)
    assert same.changed == pytest.approx(0)
    counted = count_areas(before)
    assert np.diag(same.pixels).tolist() == [counted[c].pixels for c in (3, 5, 9)]
    np.testing.assert_allclose(np.diag(same.hectares) * 10_000, [counted[c].square_metres for c in (3, 5, 9)])
    there, back = change(before, after, CLASSES), change(after, before, CLASSES)
    np.testing.assert_array_equal(there.pixels, back.pixels.T)
    with rasterio.open(before) as source:
        geobox = GeoBox(source.shape, source.transform, source.crs.to_wkt())
    assert there.hectares.sum() < cell_areas(geobox, whole(geobox), 1, 30).sum() * 30 / 10_000


def test_maps_that_share_no_ground_have_no_share_of_change(tmp_path: Path) -> None:
    shared: dict[str, Any] = {"transform": Affine(10, 0, 500_000, 0, -10, 5_000_000), "crs": "EPSG:32633", "nodata": 0}
    left, right = np.zeros((1, 4, 4), np.uint8), np.zeros((1, 4, 4), np.uint8)
    left[..., :2], right[..., 2:] = 3, 5
    found = change(write(tmp_path / "a.tif", left, **shared), write(tmp_path / "b.tif", right, **shared), CLASSES)
    assert not found.pixels.any()
    assert np.isnan(found.changed)


@pytest.mark.parametrize(
    "other",
    [
        {"height": 41},
        {"transform": Affine(10, 0, 500_010, 0, -10, 5_000_000)},
        {"crs": "EPSG:32632"},
    ],
)
def test_maps_of_different_grids_are_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    shared: dict[str, Any] = {"transform": Affine(10, 0, 500_000, 0, -10, 5_000_000), "crs": "EPSG:32633"}
    (tmp_path / "other").mkdir()
    before, _ = maps(tmp_path, **shared)
    after, _ = maps(tmp_path / "other", **shared | other)
    with pytest.raises(RunError, match=r"before.tif and .*before.tif are not on one grid"):
        change(before, after, CLASSES)


# -- tables


def row(name: str, code: int, adjusted: float | None = 1.5) -> AreaRow:
    return AreaRow(code=code, name=name, color="#102030", pixels=7, samples=3, counted_ha=2.25, adjusted_ha=adjusted,
                   interval_ha=None if adjusted is None else 0.5, note="" if adjusted else "a, b")  # fmt: skip


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_areas_of_one_map_have_no_period(tmp_path: Path) -> None:
    write_areas_csv(tmp_path / "areas.csv", {"": [row("forest", 3), row("wäter", 9, None)]})
    first, second = read(tmp_path / "areas.csv")
    assert first == {
        "code": "3", "class": "forest", "pixels": "7", "counted_ha": "2.2500", "adjusted_ha": "1.5000",
        "interval_95_ha": "0.5000", "samples": "3", "note": "",
    }  # fmt: skip
    assert (second["class"], second["adjusted_ha"], second["note"]) == ("wäter", "", "a, b")


def test_areas_of_several_maps_name_the_period_first(tmp_path: Path) -> None:
    years = ("2019-09-01_2020-08-31", "2020-09-01_2021-08-31")
    write_areas_csv(tmp_path / "areas.csv", {y: [row("forest", 3), row("water", 9)] for y in years})
    rows = read(tmp_path / "areas.csv")
    assert list(rows[0])[:3] == ["period", "code", "class"]
    assert [(r["period"], r["class"]) for r in rows] == [(y, c) for y in years for c in ("forest", "water")]


def test_changes_are_written_where_there_are_any(tmp_path: Path) -> None:
    pixels = np.array([[5, 0, 2], [0, 9, 0], [1, 0, 0]])
    write_changes_csv(
        tmp_path / "changes.csv",
        {("a", "b"): Change(pixels, pixels * 0.09), ("b", "c"): Change(pixels.T, pixels.T * 0.09)},
        CLASSES,
    )
    rows = read(tmp_path / "changes.csv")
    assert rows[1] == {
        "before": "a", "after": "b", "class_before": "forest", "class_after": "water", "pixels": "2", "hectares": "0.1800",
    }  # fmt: skip
    assert [(r["before"], r["class_before"], r["class_after"], r["pixels"]) for r in rows] == [
        ("a", "forest", "forest", "5"),
        ("a", "forest", "water", "2"),
        ("a", "field", "field", "9"),
        ("a", "water", "forest", "1"),
        ("b", "forest", "forest", "5"),
        ("b", "forest", "water", "1"),
        ("b", "field", "field", "9"),
        ("b", "water", "forest", "2"),
    ]

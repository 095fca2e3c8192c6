"""Indices of the cube: as the books have them, by the roles of bands, before steps."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from cubes import opened, refused, write_days
from oracles_imagery import naive_steps
from rasters import noise, write

from pipeline.errors import ImageryError
from pipeline.grid import whole
from pipeline.imagery.indices import _ROLES, find_indices


def scene(path, names=("blue", "green", "red", "nir", "swir2"), **profile):
    stored = noise(len(names), 20, 20, most=10_000)
    return write(path, stored, names=names, nodata=0, **profile), stored.astype(np.float32)


def test_indices_are_those_of_the_books(tmp_path):
    path, stored = scene(tmp_path / "a.tif", scales=(0.0001,) * 5)
    names = ["NDVI", "ndwi", "evi", "nbr", "savi"]
    cube, _ = opened(path, indices=names)
    assert cube.bands == ("blue", "green", "red", "nir", "swir2", "ndvi", "ndwi", "evi", "nbr", "savi")
    blue, green, red, nir, swir = stored * np.float32(0.0001)
    tile = cube.read(whole(cube.geobox))
    found = dict(zip(cube.bands, tile.values[0], strict=True))
    valid = tile.valid[0]
    for name, expected in {
        "ndvi": (nir - red) / (nir + red),
        "ndwi": (green - nir) / (green + nir),
        "evi": 2.5 * (nir - red) / (nir + 6 * red - 7.5 * blue + 1),
        "nbr": (nir - swir) / (nir + swir),
        "savi": 1.5 * (nir - red) / (nir + red + 0.5),
    }.items():
        np.testing.assert_allclose(found[name][valid], expected[valid], rtol=2e-4, atol=1e-6)
    assert valid.mean() > 0.99


def test_every_index_of_the_library_is_as_the_library_computes_it():
    import spyndex

    rng = np.random.default_rng(0)
    roles = {role: f"x{i}" for i, role in enumerate(_ROLES)}
    planes = {band: rng.uniform(0.01, 0.9, (7, 9)).astype(np.float32) for band in roles.values()}
    params = {k: c.default for k, c in spyndex.constants.items()}
    params |= {sign: planes[roles[role]] for role, (sign, _) in _ROLES.items()}
    # SAVI takes a constant of its own; some need numbers that nobody knows.
    usual = [k for k, i in spyndex.indices.items() if k != "SAVI" and all(params.get(b) is not None for b in i.bands)]
    assert len(usual) > 200
    with np.errstate(all="ignore"):
        expected = spyndex.computeIndex(usual, params=params, returnOrigin=False)
    for key, value in zip(usual, expected, strict=True):
        (index,) = find_indices([key], tuple(roles.values()), roles)
        np.testing.assert_array_equal(index.of(planes), value, err_msg=key)
        assert index.of(planes).dtype == np.float32, key


def test_an_index_reads_bands_that_it_does_not_give(tmp_path):
    path, _ = scene(tmp_path / "a.tif")
    cube, _ = opened(path, indices=["ndvi", "nbr"])
    full = cube.read(whole(cube.geobox))
    part = cube.select(["nbr", "green"])
    assert part.shape == (1, 2, 20, 20)
    tile = part.read(whole(cube.geobox))
    np.testing.assert_array_equal(tile.values[0], full.values[0][[6, 1]])
    assert sorted(part._planes[2:]) == ["nir", "swir2"]
    assert cube.select(["red"])._planes == ("red",)
    with pytest.raises(ImageryError, match=r"no band 'ndvy'; did you mean 'ndvi'"):
        cube.select(["ndvy"])


def test_where_an_index_is_not_defined_the_date_is_invalid(tmp_path):
    stored = np.float32([[[1, 0, 2]], [[3, 0, -2]]])
    path = write(tmp_path / "a.tif", stored, names=("red", "nir"), nodata=-9)
    cube, _ = opened(path, indices=["ndvi"])
    tile = cube.read(whole(cube.geobox))
    assert tile.valid[0, 0].tolist() == [True, False, False]
    assert tile.values[0, :, 0].tolist() == [[1, 0, 0], [3, 0, 0], [0.5, 0, 0]]


def test_indices_come_before_steps(tmp_path):
    write_days(tmp_path, [0, 10], bands=2, names=("red", "nir"))
    entry = {"path": str(tmp_path / "*.tif"), "date": "%Y%m%d"}
    plain = opened(entry, indices=["ndvi"])[0]
    seen = plain.read(whole(plain.geobox))
    cube = opened(entry, indices=["ndvi"], temporal={"every": 5, "fill": "linear"})[0].select(["ndvi"])
    values, valid = naive_steps(seen.values[:, 2:], seen.valid, [0, 10], [0, 5, 10], every=5, fill="linear")
    tile = cube.read(whole(cube.geobox))
    np.testing.assert_array_equal(tile.valid, valid)
    np.testing.assert_array_equal(tile.values, values)


@pytest.mark.parametrize("names", [("B04", "B08"), ("red", "B8A"), ("RED", "Nir")])
def test_bands_are_known_by_the_names_people_use(tmp_path, names):
    path, stored = scene(tmp_path / "a.tif", names=names)
    cube, _ = opened(path, indices=["ndvi"])
    red, nir = stored
    np.testing.assert_allclose(cube.read(whole(cube.geobox)).values[0, 2], (nir - red) / (nir + red), rtol=1e-5)


def test_roles_are_stated_where_names_do_not_say_them(tmp_path):
    path, stored = scene(tmp_path / "a.tif", names=("B3", "B4"))
    text = refused(path, indices=["ndvi"])
    assert (
        "'ndvi' needs the role nir, and no band is called so; there are: B3, B4. Say which it is: roles: {nir:" in text
    )
    cube, _ = opened(path, indices=["ndvi"], roles={"red": "B3", "nir": "B4"})
    red, nir = stored
    np.testing.assert_allclose(cube.read(whole(cube.geobox)).values[0, 2], (nir - red) / (nir + red), rtol=1e-5)
    assert "roles: no role 'nirr'; did you mean 'nir'?; there are:" in refused(path, roles={"nirr": "B3"})
    assert "roles.nir: the imagery has no band 'B9'" in refused(path, roles={"nir": "B9"})


def test_indices_that_cannot_be(tmp_path):
    path, _ = scene(tmp_path / "a.tif", names=("red", "nir", "ndvi"))
    assert "no index 'ndvii' is known; did you mean 'ndvi'?" in refused(path, indices=["ndvii"])
    assert "has a band 'ndvi' already" in refused(path, indices=["ndvi"])
    assert "'kndvi' needs 'kNN', which is no band and has no usual value" in refused(path, indices=["kndvi"])


def test_the_catalogue_of_indices_is_loaded_where_it_is_used():
    code = "import sys, pipeline.imagery.open; sys.exit('spyndex' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_constants_want_reflectance(tmp_path):
    path, _ = scene(tmp_path / "a.tif")
    notes = opened(path, indices=["ndvi", "evi"])[1]
    assert len(notes) == 1
    assert notes[0].startswith("evi: the constants of the formula are for reflectance between 0 and 1")
    assert opened({"path": str(path), "scale": 0.0001}, indices=["ndvi", "evi"])[1] == []

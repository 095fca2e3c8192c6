"""Rasters that break things: each opens and reads as rasterio alone reads it, or is refused with the reason."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from pipeline.errors import LandweaveError
from pipeline.grid import Window, whole
from pipeline.imagery.open import open_cube
from pipeline.settings import GridSettings, ImagerySettings

DATA = Path(os.environ.get("LANDWEAVE_DATA", Path(__file__).parent.parent.parent / "shared" / "data")) / "awkward"
INDEX = DATA / "index.json"
FILES = [e["file"] for e in json.loads(INDEX.read_text())] if INDEX.is_file() else []
RASTERS = [f for f in FILES if f.endswith((".tif", ".jp2"))]

REFUSED = {
    "odcgeo_au-3577-rotated.tif": "is rotated against the axes of its CRS; give the output `grid`",
    "stars_geomatrix.tif": "is rotated against the axes of its CRS; give the output `grid`",
    "odcgeo_au-gcp.tif": "is placed by ground control points, and has no grid of its own; give the output `grid`",
    "riotiler_cog_gcps.tif": "is placed by ground control points, and has no grid of its own; give the output `grid`",
    "vrt/RGB.byte.gcp.vrt": "is placed by ground control points, and has no grid of its own; give the output `grid`",
    "vrt/RGB.byte.rpc.vrt": r"is placed by rational polynomials \(RPC\), and has no grid of its own; give the output `grid`",
    "rasterio_float.tif": "states no CRS; give it with `crs`",
    "rasterio_float_nan.tif": "states no CRS; give it with `crs`",
    "rasterio_rotated.tif": "states no CRS; give it with `crs`",
    "rasterio_corrupt.tif": r"reading rows \d+\.\.\d+, columns \d+\.\.\d+ failed .* damaged or truncated",
}

pytestmark = [
    pytest.mark.skipif(not RASTERS, reason=f"the awkward rasters are absent: there is no {INDEX}"),
    # Of the oracle: it opens files that have no position.
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
]


def cube_of(name, grid=None, **changes):
    return open_cube([ImagerySettings(path=str(DATA / name), **changes)], grid, None)


@pytest.mark.parametrize("name", sorted({*REFUSED} if RASTERS else {"absent"}))
def test_refused_with_the_reason(name):
    with pytest.raises(LandweaveError, match=REFUSED[name]) as caught:
        cube_of(name)
    assert Path(name).name in str(caught.value)


@pytest.mark.parametrize("name", [f for f in RASTERS if f not in REFUSED] or ["absent"])
def test_opens_and_reads_as_rasterio_does(name):
    cube, _ = cube_of(name)
    _, _, height, width = cube.shape
    window = Window(y=height // 2 - 40, x=width // 2 - 40, height=80, width=80)
    tile = cube.read(window)
    assert np.isfinite(tile.values).all()
    part = window.intersect(whole(cube.geobox))
    (source,) = cube.sources
    with rasterio.open(DATA / name) as raster:
        turn = slice(None, None, -1 if raster.transform.e > 0 else 1)
        at = (slice(None), turn, slice(None))
        stored = raster.read(list(source.indexes))[at][:, part.y : part.bottom, part.x : part.right]
        masks = raster.read_masks(list(source.indexes))[at][:, part.y : part.bottom, part.x : part.right] > 0
    scaled = stored * np.array(source.scales)[:, None, None] + np.array(source.offsets)[:, None, None]
    valid = (masks & np.isfinite(scaled)).all(0)
    inside = part.within(window)
    np.testing.assert_array_equal(tile.valid[0][inside], valid)
    np.testing.assert_allclose(tile.values[0][:, *inside], np.where(valid, scaled, 0), rtol=1e-6)
    outside = np.ones(window.shape, bool)
    outside[inside] = False
    assert not tile.valid[0][outside].any()


@pytest.mark.parametrize(
    ("name", "crs", "resolution", "share"),
    [
        ("odcgeo_au-3577-rotated.tif", "EPSG:3577", 20_000, (0.2, 0.4)),
        ("odcgeo_au-gcp.tif", "EPSG:3577", 20_000, (0.4, 0.6)),
        ("riotiler_cog_gcps.tif", "EPSG:32643", 1000, (0.5, 0.8)),
        ("vrt/RGB.byte.gcp.vrt", "EPSG:32610", 20, (0.4, 0.6)),
        ("vrt/RGB.byte.rpc.vrt", "EPSG:32610", 20, (0.4, 0.6)),
        ("stars_geomatrix.tif", "EPSG:32611", 5, (0.3, 0.7)),
        ("riotiler_cog_dateline.tif", "EPSG:3832", 2000, (0.5, 1.0)),
        ("rasterio_world.byte.tif", "EPSG:8857", 100_000, (0.5, 1.0)),
        ("sits_modis_sinusoidal_no_nodata.jp2", "EPSG:4326", 0.01, (0.7, 1.0)),
    ],
)
def test_honoured_on_a_given_grid(name, crs, resolution, share):
    cube, notes = cube_of(name, GridSettings(crs=crs, resolution=resolution))
    assert any("not on the output grid, resampled (bilinear)" in n for n in notes)
    valid = cube.read(whole(cube.geobox)).valid
    assert share[0] <= valid.mean() <= share[1]


@pytest.mark.parametrize("name", ["riotiler_cog_hirise_mars.tif", "riotiler_cog_nonearth.tif"])
@pytest.mark.parametrize("bounds", [None, (0, 0, 10_000, 10_000)])
def test_another_planet_is_mapped_in_its_own_crs_only(name, bounds):
    assert cube_of(name)[0].shape[0] == 1
    with pytest.raises(LandweaveError, match="Cannot find coordinate operations"):
        cube_of(name, GridSettings(crs="EPSG:3857", resolution=100, bounds=bounds))


def test_nothing_warns_of_a_missing_position(recwarn):
    with pytest.raises(LandweaveError, match="states no CRS"):
        cube_of("rasterio_rotated.tif")
    assert not [w for w in recwarn if issubclass(w.category, NotGeoreferencedWarning)]

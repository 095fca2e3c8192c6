"""A made-up scene that behaves like a real one: fields, forest, water and a town, under noise, mixed pixels and clouds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from scipy.ndimage import distance_transform_edt, gaussian_filter, uniform_filter, zoom
from shapely.geometry import Polygon

from pipeline.files import whole_file

Array = np.ndarray[Any, Any]

CLASSES = ("water", "forest", "grassland", "cropland", "bare soil", "town")
WATER, FOREST, GRASS, CROP, BARE, TOWN = range(6)
BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")
# Mean surface reflectance of each class in each band.
_SPECTRA = np.array(
    [
        [0.045, 0.055, 0.040, 0.025, 0.012, 0.008],
        [0.028, 0.045, 0.030, 0.290, 0.140, 0.060],
        [0.048, 0.082, 0.065, 0.310, 0.220, 0.120],
        [0.052, 0.085, 0.078, 0.320, 0.200, 0.110],
        [0.090, 0.125, 0.160, 0.235, 0.310, 0.260],
        [0.100, 0.120, 0.135, 0.210, 0.235, 0.200],
    ]
)
_CRS = "EPSG:32633"
_CORNER = (502_310.0, 5_301_780.0)
_PIXEL = 10.0
# The scene is drawn finer than it is seen: pixels at edges are mixtures, as a sensor's are.
_FINE = 2
_POLYGONS = 22
_NODATA = 0


@dataclass(frozen=True, slots=True)
class Scene:
    """Files of a scene.

    Attributes
    ----------
    rasters : list of Path
        Imagery: four bands at 10 m, two at 20 m on another grid.
    labels : Path
        Polygons in geographic coordinates.
    field : str
        Field with the class.
    truth : Path
        The class of every pixel (numbers from 1; names in the tag ``classes``), which no real scene has.
    """

    rasters: list[Path]
    labels: Path
    field: str
    truth: Path


def make_scene(folder: Path, *, side: int = 1024, seed: int = 0) -> Scene:
    """Write a scene of ``side`` x ``side`` pixels of 10 m; the same seed gives the same scene."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    fine = side * _FINE
    cover, parcel = _land(fine, rng)
    image = _reflectance(cover, parcel, rng)
    truth = _majority(cover)
    seen = np.stack([_shrunk(gaussian_filter(band, 0.6 * _FINE)) for band in image])
    haze = 0.012 * _noise(side, side / 3, rng)
    for i, strength in enumerate((1.0, 0.7, 0.5, 0.2, 0.1, 0.05)):
        seen[i] += strength * haze + rng.normal(0, 0.004, seen[i].shape)
    hidden = _clouds(side, rng)
    transform = Affine(_PIXEL, 0, _CORNER[0], 0, -_PIXEL, _CORNER[1])
    optical = _write(folder / "optical_10m.tif", seen[:4], BANDS[:4], transform, hidden)
    infrared = _write_coarse(folder / "infrared_20m.tif", seen[4:], transform, hidden)
    labels = folder / "training.gpkg"
    # A GeoPackage holds the time of its writing; a fixed one keeps the same scene the same file.
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "2024-06-21T10:00:00.000Z"})
    try:
        with whole_file(labels) as temporary:
            _digitise(truth, transform, rng).to_crs("EPSG:4326").to_file(temporary, layer="training", driver="GPKG")
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})
    return Scene([optical, infrared], labels, "class", _write_truth(folder / "truth.tif", truth, transform))


def _noise(side: int, scale: float, rng: np.random.Generator) -> Array:
    """Return smooth noise with mean zero and standard deviation one; ``scale`` is the size of its features in pixels."""
    coarse = max(1, int(scale / 6))
    n = -(-side // coarse) + 8
    field = gaussian_filter(rng.standard_normal((n, n)), scale / coarse / 2.5, mode="wrap")
    grown = zoom(field, coarse, order=1)[:side, :side] if coarse > 1 else field[:side, :side]
    return np.asarray((grown - grown.mean()) / grown.std())


def _land(side: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return the class of each fine pixel, and the number of its parcel."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    parcel, kind = _parcels(x, y, side, rng)
    cover = kind
    hills = _noise(side, side / 5, rng) + 0.35 * _noise(side, side / 22, rng)
    forest = hills > 0.55
    cover = np.where(forest, FOREST, cover)
    cover = np.where(forest & (_noise(side, side / 40, rng) > 1.9), GRASS, cover)
    cover = np.where(_town(x, y, side, hills, rng), TOWN, cover)
    bend = 0.07 * side * np.sin(2 * np.pi * y / (0.55 * side)) + 0.03 * side * np.sin(2 * np.pi * y / (0.21 * side) + 1)
    river = np.abs(x - 0.62 * side - bend - 0.15 * y) < side * (0.007 + 0.004 * np.sin(2 * np.pi * y / (0.4 * side)))
    bank = distance_transform_edt(~river) < side * 0.006
    cover = np.where(bank & (cover != TOWN), GRASS, cover)
    lake = np.hypot((x - 0.22 * side) / 1.6, y - 0.72 * side) < side * (0.055 + 0.012 * _noise(side, side / 8, rng))
    cover = np.where(river | lake, WATER, cover)
    return cover.astype(np.int8), parcel


def _parcels(x: Array, y: Array, side: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Divide the land into rotated parcels, each with one use."""
    angle = 0.35 + 0.12 * _noise(side, side / 2, rng)
    u = x * np.cos(angle) + y * np.sin(angle)
    v = -x * np.sin(angle) + y * np.cos(angle)
    depth = side / 18
    row = np.floor(v / depth).astype(np.int64)
    rows = row - row.min()
    length = side / rng.uniform(9, 26, rows.max() + 1)
    shift = rng.uniform(0, side, rows.max() + 1)
    column = np.floor((u + shift[rows]) / length[rows]).astype(np.int64)
    parcel = (rows * 4001 + column - column.min()) % 65_521
    use = rng.choice([CROP, CROP, CROP, CROP, GRASS, GRASS, BARE], 65_521)
    return parcel, use[parcel]


def _town(x: Array, y: Array, side: int, hills: Array, rng: np.random.Generator) -> Array:
    """Return where the town and a village are: dense in the middle, frayed at the edge."""
    frayed = 0.25 * _noise(side, side / 30, rng)
    town = np.hypot(x - 0.40 * side, y - 0.33 * side) / (0.13 * side)
    village = np.hypot(x - 0.84 * side, y - 0.80 * side) / (0.055 * side)
    return np.asarray((np.minimum(town, village) + frayed < 1) & (hills < 1.2))


def _reflectance(cover: Array, parcel: Array, rng: np.random.Generator) -> Array:
    """Return the reflectance of each fine pixel, (6, h, w): spectra, season of each parcel, texture of each class."""
    side = cover.shape[0]
    image = _SPECTRA[cover].transpose(2, 0, 1).copy()
    # Crops stand at different stages, so that some are like grass and some like bare soil.
    stage = np.clip(rng.beta(3.0, 1.6, 65_521), 0.15, 1)[parcel]
    crop = cover == CROP
    soil = _SPECTRA[BARE][:, None]
    image[:, crop] = image[:, crop] * stage[crop] + soil * (1 - stage[crop])
    shade = 1 + 0.07 * rng.standard_normal(65_521)[parcel]
    image *= np.where((cover == CROP) | (cover == GRASS) | (cover == BARE), shade, 1)
    y, x = np.mgrid[:side, :side]
    rows = 1 + 0.05 * np.sin((x * np.cos(0.35) + y * np.sin(0.35)) * 1.3)
    image *= np.where(crop, rows, 1)
    crowns = gaussian_filter(rng.standard_normal((side, side)), 1.4)
    crowns /= crowns.std()
    image *= np.where(cover == FOREST, 1 + 0.22 * crowns, 1)
    image *= np.where(cover == GRASS, 1 + 0.05 * _noise(side, 12, rng), 1)
    _build(image, cover == TOWN, rng)
    return image


def _build(image: Array, town: Array, rng: np.random.Generator) -> None:
    """Put roofs, streets and gardens into the town: taken pixel by pixel, soil, asphalt and lawn."""
    side = town.shape[0]
    y, x = np.mgrid[:side, :side]
    u, v = x * 0.92 + y * 0.39, -x * 0.39 + y * 0.92
    street = (u % 22 < 4) | (v % 30 < 4)
    house = (np.floor(u / 7.3).astype(int) * 7919 + np.floor(v / 6.1).astype(int) * 104_729) % 9973
    roof = rng.uniform(0.55, 1.7, 9973)[house]
    garden = rng.random(9973)[house] < 0.3
    lawn = _SPECTRA[GRASS]
    for i, band in enumerate(image):
        built = np.where(garden, lawn[i], band * roof)
        band[town] = np.where(street, 0.075 + 0.012 * i, built)[town]


def _shrunk(fine: Array) -> Array:
    return np.asarray(fine.reshape(fine.shape[0] // _FINE, _FINE, fine.shape[1] // _FINE, _FINE).mean((1, 3)))


def _majority(cover: Array) -> Array:
    """Return the commonest class in each pixel."""
    shares = np.stack([_shrunk((cover == c).astype(np.float32)) for c in range(len(CLASSES))])
    return np.asarray(shares.argmax(0), dtype=np.uint8)


def _clouds(side: int, rng: np.random.Generator) -> Array:
    """Return where clouds and their shadows hide the land."""
    cloud = _noise(side, side / 9, rng) + 0.3 * _noise(side, side / 40, rng) > 2.0
    step = max(2, side // 48)
    return np.asarray(cloud | np.roll(cloud, (step, -step), (0, 1)))


def _write(path: Path, values: Array, names: tuple[str, ...], transform: Affine, hidden: Array) -> Path:
    stored = np.clip(np.rint(values * 10_000), 1, 65_535).astype(np.uint16)
    stored[:, hidden] = _NODATA
    profile = {
        "driver": "GTiff", "width": values.shape[2], "height": values.shape[1], "count": len(names), "dtype": "uint16",
        "crs": _CRS, "transform": transform, "nodata": _NODATA, "compress": "deflate", "predictor": 2, "tiled": True,
        "photometric": "MINISBLACK",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(stored)
        raster.scales = (0.0001,) * len(names)
        raster.colorinterp = [ColorInterp.undefined] * len(names)
        for i, name in enumerate(names, start=1):
            raster.set_band_description(i, name)
    return path


def _write_coarse(path: Path, values: Array, transform: Affine, hidden: Array) -> Path:
    """Write the infrared bands at 20 m, on a grid of their own that does not share the corner of the other."""
    margin = 6
    padded = np.pad(values, ((0, 0), (margin, margin + 1), (margin, margin + 1)), mode="reflect")
    hidden = np.pad(hidden, ((margin, margin + 1), (margin, margin + 1)), mode="constant")
    # Shifted by one fine pixel, so that no two pixels of the grids have an edge in common every time.
    rows, columns = (padded.shape[1] - 1) // 2 * 2, (padded.shape[2] - 1) // 2 * 2
    coarse = padded[:, 1 : rows + 1, 1 : columns + 1].reshape(len(values), rows // 2, 2, columns // 2, 2).mean((2, 4))
    gone = np.asarray(hidden[1 : rows + 1, 1 : columns + 1].reshape(rows // 2, 2, columns // 2, 2).any((1, 3)))
    corner = transform @ Affine.translation(1 - margin, 1 - margin) @ Affine.scale(2)
    return _write(path, coarse, BANDS[4:], corner, gone)


def _write_truth(path: Path, truth: Array, transform: Affine) -> Path:
    profile = {
        "driver": "GTiff", "width": truth.shape[1], "height": truth.shape[0], "count": 1, "dtype": "uint8", "crs": _CRS,
        "transform": transform, "compress": "deflate", "nodata": 0,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(truth + 1, 1)
        raster.update_tags(classes=";".join(f"{i}={name}" for i, name in enumerate(CLASSES, start=1)))
    return path


def _digitise(truth: Array, transform: Affine, rng: np.random.Generator) -> gpd.GeoDataFrame:
    """Return polygons as an analyst draws them: irregular, mostly well inside their land, a few over its edge."""
    rows = []
    side = truth.shape[0]
    for index, name in enumerate(CLASSES):
        inside = distance_transform_edt(uniform_filter((truth == index).astype(np.float32), 3) > 0.99)
        candidates = np.argwhere(inside >= min(2.5, inside.max()))
        taken: list[Array] = []
        for y, x in rng.permutation(candidates):
            if len(taken) == _POLYGONS:
                break
            if any(np.hypot(y - t[0], x - t[1]) < side / 24 for t in taken):
                continue
            taken.append(np.array([y, x]))
            reach = min(float(inside[y, x]), side / 64) * rng.uniform(0.7, 1.1)
            turns = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(6, 12)))
            radius = reach * rng.uniform(0.75, 1.1, len(turns))
            ring = [
                transform @ (x + 0.5 + r * np.cos(t), y + 0.5 + r * np.sin(t))
                for r, t in zip(radius, turns, strict=True)
            ]
            rows.append({"class": name, "geometry": Polygon(ring)})
    return gpd.GeoDataFrame(rows, crs=_CRS)

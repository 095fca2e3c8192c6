"""Labelled chips in folders: how a chip is read from its file, and what is no chip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from conftest import NAMES
from oracles_samples import centre_by_hand
from rasters import pattern, write

from pipeline.errors import ImageryError, LabelError, ReadError
from pipeline.samples.chipfiles import around_centre, facts_of, reach, read_chip


@pytest.mark.parametrize("suffix", [".tif", ".png", ".npz"])
def test_a_chip_is_read_as_it_was_written(tmp_path: Path, suffix: str) -> None:
    values, path = pattern(3, 6, 6), tmp_path / f"a{suffix}"
    if suffix == ".npz":
        np.savez(path, values)
    else:
        write(path, values, driver="GTiff" if suffix == ".tif" else "PNG", names=NAMES if suffix == ".tif" else ())
    np.testing.assert_array_equal(read_chip(path), values.astype(np.float32))
    facts = facts_of(path)
    assert facts.bands == (NAMES if suffix == ".tif" else ("band_1", "band_2", "band_3"))
    assert (facts.shape, facts.scaling) == ((6, 6), ((1.0, 0.0),) * 3)


def test_scale_nodata_and_alpha_are_as_the_file_says(tmp_path: Path) -> None:
    stored = pattern(2, 4, 4, "uint16")
    path = write(tmp_path / "a.tif", stored, nodata=5, scales=(0.5, 2.0), offsets=(1.0, 0.0))
    expected = stored * np.array([0.5, 2.0])[:, None, None] + np.array([1.0, 0.0])[:, None, None]
    np.testing.assert_array_equal(read_chip(path), np.where(stored == 5, np.nan, expected).astype(np.float32))
    assert (facts_of(path).scaling, facts_of(path).nodata) == (((0.5, 1.0), (2.0, 0.0)), 5)
    picture = pattern(4, 5, 5)
    picture[3] = 255
    picture[3, 1, 2] = 0
    path = write(tmp_path / "a.png", picture, driver="PNG")
    found = read_chip(path)
    assert found.shape == (3, 5, 5)
    assert np.isnan(found[:, 1, 2]).all()
    assert np.isfinite(found).sum() == 3 * 24


@pytest.mark.parametrize(("shape", "first"), [((4, 3, 3), True), ((3, 3, 4), False), ((3, 3, 3), True), ((5, 5), True)])
def test_the_axes_of_an_array_are_told_by_its_square(tmp_path: Path, shape: tuple[int, ...], first: bool) -> None:
    values = np.random.default_rng(0).normal(size=shape)
    np.savez(tmp_path / "a.npz", x=values, y=3)
    expected = values.reshape(-1, *shape[-2:]) if first else values.transpose(2, 0, 1)
    np.testing.assert_array_equal(read_chip(tmp_path / "a.npz"), expected.astype(np.float32))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros((2, 3, 3)), "b": np.zeros(3)}, r"holds 2 arrays \(a, b\); one of them must be 'x'"),
        ({"x": np.zeros((2, 3, 4))}, r"the array 'x' is \(2, 3, 4\); a chip is square"),
        ({"x": np.zeros(4)}, r"the array 'x' is \(4,\); a chip is square"),
        ({"x": np.full((3, 3), "a")}, "the array 'x' holds no numbers"),
    ],
)
def test_an_array_that_is_no_chip_is_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(LabelError, match=f"a.npz.*{message}|{message}"):
        facts_of(tmp_path / "a.npz")


def test_a_file_that_is_no_chip_is_refused(tmp_path: Path) -> None:
    for name in ("a.npz", "a.tif", "a.png"):
        (tmp_path / name).write_bytes(b"no chip")
        with pytest.raises((ReadError, ImageryError), match=f"{name} cannot be"):
            read_chip(tmp_path / name)
    path = tmp_path / "palette.png"
    with rasterio.open(write(path, pattern(1, 4, 4), driver="GTiff"), "r+") as raster:
        raster.write_colormap(1, {i: (i, i, i, 255) for i in range(16)})
    with pytest.raises(LabelError, match="a picture with a palette"):
        read_chip(path)


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (4, 4), (5, 8), (6, 5)])
def test_the_centre_is_the_pixel_at_half_height_and_width(shape: tuple[int, int]) -> None:
    values = pattern(2, *shape)
    most = reach(shape)
    for radius in range(most + 1):
        np.testing.assert_array_equal(around_centre(values, radius), centre_by_hand(values, radius))
    with pytest.raises(IndexError):
        centre_by_hand(values, most + 1)

"""What lies beside a GeoTIFF: names, table and style."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from affine import Affine
from test_parts import Class, Legend

from pipeline.maps.geotiff import value_range, write_sidecars
from pipeline.maps.layers import Layer

LEGEND = Legend((Class("Forest & <wood>", 1, "#1b7837"), Class("Wässer", 4, "#2166ac")))


def raster(path: Path, values: np.ndarray, nodata: float, crs: str = "EPSG:32633") -> Path:
    profile = {"driver": "GTiff", "count": 1, "height": values.shape[0], "width": values.shape[1]}
    transform = Affine(10, 0, 500_000, 0, -10, 5_000_000)
    with rasterio.open(path, "w", **profile, dtype=values.dtype, nodata=nodata, crs=crs, transform=transform) as out:
        out.write(values, 1)
    return path


def test_names_and_table_of_a_class_map(tmp_path):
    path = raster(tmp_path / "classes.tif", np.ones((4, 4), np.uint8), 0)
    aux, qml = write_sidecars(path, Layer.classes(LEGEND), {1: 16})
    assert (aux.name, qml.name) == ("classes.tif.aux.xml", "classes.qml")
    band = ElementTree.parse(aux).getroot().find("PAMRasterBand")
    assert [c.text or "" for c in band.iter("Category")] == ["", "Forest & <wood>", "", "", "Wässer"]
    # Usage codes of GDAL: value, pixel count, name, red, green, blue.
    columns = [(c.findtext("Name"), c.findtext("Type"), c.findtext("Usage")) for c in band.iter("FieldDefn")]
    assert columns == [
        ("Value", "0", "5"),
        ("Count", "0", "1"),
        ("Class", "2", "2"),
        ("Red", "0", "6"),
        ("Green", "0", "7"),
        ("Blue", "0", "8"),
    ]
    rows = [[f.text for f in row] for row in band.iter("Row")]
    assert rows == [["1", "16", "Forest & <wood>", "27", "120", "55"], ["4", "0", "Wässer", "33", "102", "172"]]


def test_counts_above_32_bits_become_real_numbers(tmp_path):
    path = raster(tmp_path / "classes.tif", np.ones((4, 4), np.uint8), 0)
    aux, _ = write_sidecars(path, Layer.classes(LEGEND), {1: 10_000_000_000, 4: 1})
    table = ElementTree.parse(aux).getroot().find("PAMRasterBand/GDALRasterAttributeTable")
    assert table.findall("FieldDefn")[1].findtext("Type") == "1"
    assert table.find("Row")[1].text == "10000000000"


def test_the_style_of_a_class_map_holds_exactly_the_classes(tmp_path):
    path = raster(tmp_path / "classes.tif", np.ones((4, 4), np.uint8), 0)
    _, qml = write_sidecars(path, Layer.classes(LEGEND), {1: 16})
    entries = [e.attrib for e in ElementTree.parse(qml).getroot().iter("paletteEntry")]
    assert [(e["value"], e["label"], e["color"]) for e in entries] == [
        ("1", "Forest & <wood>", "#1b7837"),
        ("4", "Wässer", "#2166ac"),
    ]


def test_a_class_map_needs_its_counts(tmp_path):
    path = raster(tmp_path / "classes.tif", np.ones((4, 4), np.uint8), 0)
    with pytest.raises(ValueError, match="counted pixels"):
        write_sidecars(path, Layer.classes(LEGEND))


def test_any_other_map_needs_values(tmp_path):
    with pytest.raises(ValueError, match="values, to span them"):
        write_sidecars(tmp_path / "confidence.tif", Layer.confidence())


def test_the_ramp_of_a_layer_spans_the_percentiles_of_real_values(tmp_path):
    values = np.linspace(0, 10_000, 10_000).round().astype(np.uint16).reshape(100, 100)
    values[0] = 65535
    (qml,) = write_sidecars(tmp_path / "confidence.tif", Layer.confidence(), values=values[1:].ravel())
    shader = ElementTree.parse(qml).getroot().find("pipe/rasterrenderer/rastershader/colorrampshader")
    low, high = np.percentile(values[1:], (2, 98)) * 0.0001
    assert float(shader.get("minimumValue")) == pytest.approx(low)
    assert float(shader.get("maximumValue")) == pytest.approx(high)
    stops = [float(item.get("value")) for item in shader.iter("item")]
    assert stops == sorted(stops)
    assert (stops[0], stops[-1]) == (pytest.approx(low), pytest.approx(high))


def test_ranges_leave_out_what_is_no_value():
    values = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    values[:100], values[200] = np.nan, np.inf
    np.testing.assert_allclose(value_range(values), np.percentile(values[np.isfinite(values)], (2, 98)), rtol=1e-6)
    assert value_range(np.full(3, np.nan, np.float32)) == value_range(np.empty(0, np.uint16)) == (0, 1)
    low, high = value_range(np.full(3, 7, np.float32))
    assert low == 7 < high


@pytest.mark.skipif(shutil.which("gdalinfo") is None, reason="gdalinfo is not installed")
def test_gdalinfo_reads_names_and_table(tmp_path):
    path = raster(tmp_path / "classes.tif", np.ones((4, 4), np.uint8), 0)
    write_sidecars(path, Layer.classes(LEGEND), {1: 16})
    told = subprocess.run(["gdalinfo", str(path)], capture_output=True, text=True, check=True).stdout
    assert "4: Wässer" in told
    assert "<F>Forest &amp; &lt;wood&gt;</F>" in told

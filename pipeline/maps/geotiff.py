"""What lies beside a GeoTIFF so that a GIS shows it right: names and table of classes (aux.xml), style (QML)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from pipeline.files import whole_file
from pipeline.maps.layers import Layer, LegendLike, rgb

Array = np.ndarray[Any, Any]

# Types and usages of columns, numbered as in GDAL's gdal.h (GDALRATFieldType, GDALRATFieldUsage).
_INTEGER, _REAL, _STRING = 0, 1, 2
_PIXEL_COUNT, _NAME, _VALUE, _RED, _GREEN, _BLUE = 1, 2, 5, 6, 7, 8

# Five stops of viridis: even steps of lightness, safe for the colour-blind.
_RAMP = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")
# Red for what speaks against, blue for what speaks for; safe for the colour-blind too (after ColorBrewer's RdBu).
_DIVERGING = ("#b2182b", "#f4a582", "#f7f7f7", "#92c5de", "#2166ac")

_QML_VERSION = "3.22.0"


def write_sidecars(
    path: Path, layer: Layer, counts: Mapping[int, int] | None = None, values: Array | None = None
) -> list[Path]:
    """Write what belongs beside the GeoTIFF of a layer.

    Parameters
    ----------
    path : Path
        The finished GeoTIFF.
    layer : Layer
        What it holds.
    counts : dict of int
        Pixels per class code at full resolution; needed for a class map.
    values : (n,) array
        Stored values of the first band, or a sample of them, without nodata; needed for any other map.

    Returns
    -------
    list of Path
        The files written.
    """
    style = path.with_suffix(".qml")
    if layer.legend is None:
        if values is None:
            raise ValueError(f"layer {layer.name!r}: the colours need values, to span them")
        low, high = (v * layer.scale for v in value_range(values))
        if layer.signed:
            low, high = -max(abs(low), abs(high)), max(abs(low), abs(high))
        _write(style, _continuous(low, high, _DIVERGING if layer.signed else _RAMP), _DOCTYPE)
        return [style]
    if counts is None:
        raise ValueError(f"layer {layer.name!r}: the attribute table needs the counted pixels of each class")
    table = path.with_name(path.name + ".aux.xml")
    _write(table, _aux(layer.legend, counts))
    _write(style, _paletted(layer.legend), _DOCTYPE)
    return [table, style]


def value_range(values: Array, low: float = 2, high: float = 98) -> tuple[float, float]:
    """Return two percentiles of values; those that are not finite do not count.

    Returns
    -------
    tuple of float
        ``(0, 1)`` where there is no value at all; the upper one is always above the lower one.
    """
    values = values[np.isfinite(values)].astype(np.float64)
    if not values.size:
        return 0.0, 1.0
    bottom, top = (float(v) for v in np.percentile(values, (low, high)))
    return (bottom, top) if top > bottom else (bottom, bottom + max(abs(bottom), 1.0) * 1e-6)


def _aux(legend: LegendLike, counts: Mapping[int, int]) -> Element:
    """Return GDAL's auxiliary metadata: category names by code, and the raster attribute table."""
    root = Element("PAMDataset")
    band = SubElement(root, "PAMRasterBand", band="1")
    names = {int(c.code): str(c.name) for c in legend.classes}
    categories = SubElement(band, "CategoryNames")
    for code in range(max(names) + 1):
        SubElement(categories, "Category").text = names.get(code, "")
    table = SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    # Integers of an attribute table have 32 bits.
    count_type = _INTEGER if max(counts.values(), default=0) < 2**31 else _REAL
    columns = (
        ("Value", _INTEGER, _VALUE),
        ("Count", count_type, _PIXEL_COUNT),
        ("Class", _STRING, _NAME),
        ("Red", _INTEGER, _RED),
        ("Green", _INTEGER, _GREEN),
        ("Blue", _INTEGER, _BLUE),
    )
    for index, (name, kind, usage) in enumerate(columns):
        column = SubElement(table, "FieldDefn", index=str(index))
        for tag, value in (("Name", name), ("Type", kind), ("Usage", usage)):
            SubElement(column, tag).text = str(value)
    for index, entry in enumerate(legend.classes):
        row = SubElement(table, "Row", index=str(index))
        for value in (entry.code, counts.get(int(entry.code), 0), entry.name, *rgb(entry.color)):
            SubElement(row, "F").text = str(value)
    return root


# Without the document type QGIS reads the style, but some of its tools do not recognise the file.
_DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"


def _style() -> tuple[Element, Element]:
    root = Element("qgis", version=_QML_VERSION, styleCategories="Symbology")
    return root, SubElement(root, "pipe")


def _finish(root: Element, pipe: Element) -> Element:
    SubElement(pipe, "brightnesscontrast", brightness="0", contrast="0", gamma="1")
    SubElement(pipe, "huesaturation", saturation="0", grayscaleMode="0", colorizeOn="0")
    SubElement(pipe, "rasterresampler", maxOversampling="2")
    SubElement(root, "blendMode").text = "0"
    return root


def _paletted(legend: LegendLike) -> Element:
    """Return a QGIS style whose legend holds exactly the classes."""
    root, pipe = _style()
    renderer = SubElement(
        pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1", nodataColor=""
    )
    SubElement(renderer, "rasterTransparency")
    palette = SubElement(renderer, "colorPalette")
    for entry in legend.classes:
        SubElement(
            palette, "paletteEntry", value=str(entry.code), label=str(entry.name), color=str(entry.color), alpha="255"
        )
    return _finish(root, pipe)


def _continuous(low: float, high: float, colors: Sequence[str]) -> Element:
    """Return a QGIS style that shows the first band on a ramp between two values."""
    root, pipe = _style()
    renderer = SubElement(
        pipe,
        "rasterrenderer",
        type="singlebandpseudocolor",
        band="1",
        opacity="1",
        alphaBand="-1",
        nodataColor="",
        classificationMin=repr(low),
        classificationMax=repr(high),
    )
    SubElement(renderer, "rasterTransparency")
    shader = SubElement(SubElement(renderer, "rastershader"), "colorrampshader")
    for name, value in (
        ("colorRampType", "INTERPOLATED"),
        ("classificationMode", "1"),
        ("clip", "0"),
        ("minimumValue", repr(low)),
        ("maximumValue", repr(high)),
    ):
        shader.set(name, value)
    ramp = SubElement(shader, "colorramp", name="[source]", type="gradient")
    stops = [",".join(str(v) for v in (*rgb(color), 255)) for color in colors]
    inner = ":".join(f"{i / (len(stops) - 1):g};{stop}" for i, stop in enumerate(stops) if 0 < i < len(stops) - 1)
    options = {"color1": stops[0], "color2": stops[-1], "discrete": "0", "rampType": "gradient", "stops": inner}
    choices = SubElement(ramp, "Option", type="Map")
    for name, value in options.items():
        SubElement(choices, "Option", name=name, value=value, type="QString")
    for i, color in enumerate(colors):
        at = low + (high - low) * i / (len(colors) - 1)
        SubElement(shader, "item", value=repr(at), label=f"{at:.4g}", color=color, alpha="255")
    return _finish(root, pipe)


def _write(path: Path, root: Element, prolog: str = "") -> None:
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    with whole_file(path) as temporary:
        temporary.write_text(f"{prolog}{text}\n", encoding="utf-8")

"""Layers that explain a map, in words and pictures, by what they say of themselves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import Resampling

from pipeline.samples.legend import LegendClass
from workflows.pictures import MapPicture, class_picture, decimated, ramp_picture
from workflows.sections import ClassFigure

SPOKEN = {
    "gradient": "gradient",
    "gradient_input": "gradient times input",
    "smoothgrad": "SmoothGrad",
    "integrated_gradients": "integrated gradients",
    "occlusion_band": "occlusion of bands",
    "occlusion_date": "occlusion of dates",
    "occlusion_patch": "occlusion of patches",
}
"""What the methods are called in a sentence."""

# Longer side of a picture in pixels.
_PICTURE = 760


def dominant_figure(name: str, path: Path) -> tuple[str, ClassFigure]:
    """Return the method of a layer of dominant bands or dates, and its picture, with those that occur in it."""
    with rasterio.open(path) as raster:
        tags = raster.tags()
        values, valid = decimated(raster, _PICTURE, Resampling.nearest)
    occur = set(np.unique(values[valid]).tolist())
    listed = [c for c in json.loads(tags.get("classes", "[]")) if c["code"] in occur]
    legend = [LegendClass(name=c["name"], code=c["code"], color=c["color"], values=()) for c in listed]
    axis = "date" if name.startswith("dominant_date") else "band"
    method = tags.get("method", "")
    return method, ClassFigure(
        title=f"The {axis} that counts most",
        picture=class_picture(path, legend, most=_PICTURE),
        legend=legend,
        caption=f"By {SPOKEN.get(method, method)}. {sentence(tags.get('meaning', ''))}".strip(),
    )


def about_layer(path: Path) -> str:
    """Return what a layer of saliency holds, as its own tags say."""
    with rasterio.open(path) as raster:
        tags = raster.tags()
    by = f"By {SPOKEN.get(tags['method'], tags['method'])}. " if "method" in tags else ""
    signed = "Above zero it speaks for the target, below against it." if tags.get("signed") == "yes" else ""
    said = (sentence(tags.get(key, "")) for key in ("meaning", "reduction"))
    return " ".join(part for part in (by.strip(), *said, signed) if part) or "How much each pixel counts."


def saliency_picture(path: Path) -> MapPicture:
    """Return the picture of the layer per pixel; of a method with signs zero lies in the middle of the ramp."""
    with rasterio.open(path) as raster:
        signed = raster.tags().get("signed") == "yes"
    if not signed:
        return ramp_picture(path, colors="magma", average=True)
    plain = ramp_picture(path, colors="RdBu", average=True)
    reach = max(abs(plain.low or 0.0), abs(plain.high or 0.0)) or 1.0
    return ramp_picture(path, colors="RdBu", average=True, span=(-reach, reach))


def sentence(text: str) -> str:
    """Return words as a sentence; nothing of nothing."""
    return f"{text[0].upper()}{text[1:]}." if text else ""

"""The STAC item of a run: its layers with checksums, where they lie on Earth, and where they come from."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from shapely import MultiPolygon, Polygon, affinity, box, get_coordinates
from shapely.geometry import mapping
from shapely.geometry.polygon import orient

from pipeline.files import sha256, write_json
from pipeline.maps.layers import Layer
from pipeline.maps.surface import crs_of, plane

_EXTENSIONS = (
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
)
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
# Multihash: 0x12 says SHA-256, 0x20 says 32 bytes.
_SHA256_PREFIX = "1220"
# Points along each side of the grid's outline; a projected straight line is a curve in longitude and latitude.
_OUTLINE = 16


def write_item(
    maps: Path,
    layers: Sequence[Layer],
    *,
    run: Path,
    item_id: str,
    cube_dates: Sequence[datetime.date | None],
    created: str,
    properties: Mapping[str, Any] | None = None,
    kept: Collection[str] = (),
) -> Path:
    """Write ``item.json`` beside the layers.

    Parameters
    ----------
    maps : Path
        Folder of the finished layers.
    layers : sequence of Layer
        The layers, one ``<name>.tif`` each.
    run : Path
        The output folder, for links to the model and the job.
    item_id : str
        Name of the item.
    cube_dates : sequence of date or None
        Dates of the imagery.
    created : str
        When the model was made, ISO form; dates the item where the imagery has no date. Never the clock of this
        run: the same inputs give the same item.
    properties : dict, optional
        More properties, such as provenance.
    kept : collection of str
        Layers that lie there and are not made now: what the item that is there says of them stays.

    Returns
    -------
    Path
        The item.
    """
    with rasterio.open(maps / f"{layers[0].name}.tif") as source:
        geobox = GeoBox(source.shape, source.transform, source.crs.to_wkt())
        epsg = source.crs.to_epsg()
    footprint = footprint_of(geobox)
    item = pystac.Item(
        id=item_id,
        geometry=mapping(footprint),
        bbox=bbox_of(footprint),
        **_period(cube_dates, created),
        properties={
            "created": pystac.utils.datetime_to_str(_instant(created)),
            "proj:code": f"EPSG:{epsg}" if epsg else None,
            **({} if epsg else {"proj:wkt2": crs_of(geobox).to_wkt()}),
            "proj:shape": [int(n) for n in geobox.shape],
            "proj:transform": [float(v) for v in tuple(geobox.affine)[:6]],
            **_processing(layers),
            **dict(properties or {}),
        },
        stac_extensions=list(_EXTENSIONS),
    )
    for key, asset in _known(maps / "item.json").items():
        if key.split(".")[0] in kept:
            item.add_asset(key, pystac.Asset.from_dict(asset))
    for layer in layers:
        item.add_asset(layer.name, _asset(maps, layer))
        for suffix, media in ((".qml", "application/xml"), (".tif.aux.xml", "application/xml")):
            path = maps / f"{layer.name}{suffix}"
            if path.is_file():
                key = f"{layer.name}{suffix}"
                item.add_asset(
                    key,
                    pystac.Asset(href=f"./{path.name}", media_type=media, roles=["metadata"], extra_fields=_file(path)),
                )
    up = Path(os.path.relpath(run.resolve(), maps.resolve())).as_posix()
    if (run / "model" / "bundle.json").is_file():
        item.add_link(pystac.Link("derived_from", f"{up}/model/bundle.json", "application/json", "the trained model"))
    if (run / "job.yaml").is_file():
        item.add_link(pystac.Link("derived_from", f"{up}/job.yaml", "application/yaml", "the job"))
    path = maps / "item.json"
    write_json(path, item.to_dict(include_self_link=False, transform_hrefs=False))
    return path


def _known(item: Path) -> dict[str, Any]:
    return dict(json.loads(item.read_text(encoding="utf-8"))["assets"]) if item.is_file() else {}


def _period(dates: Sequence[datetime.date | None], created: str) -> dict[str, Any]:
    known = sorted(d for d in dates if d is not None)
    if not known:
        return {"datetime": _instant(created)}
    start, end = (_instant(d.isoformat()) for d in (known[0], known[-1]))
    return {"datetime": start} if start == end else {"datetime": None, "start_datetime": start, "end_datetime": end}


def _instant(text: str) -> datetime.datetime:
    moment = datetime.datetime.fromisoformat(text)
    return moment.replace(tzinfo=datetime.UTC) if moment.tzinfo is None else moment.astimezone(datetime.UTC)


def _processing(layers: Sequence[Layer]) -> dict[str, Any]:
    name, _, version = layers[0].tags.get("software", "").partition(" ")
    return {"processing:software": {name: version}} if version else {}


def _file(path: Path) -> dict[str, Any]:
    return {"file:size": path.stat().st_size, "file:checksum": _SHA256_PREFIX + sha256(path)}


def _asset(maps: Path, layer: Layer) -> pystac.Asset:
    path = maps / f"{layer.name}.tif"
    nodata: Any = "nan" if np.isnan(layer.nodata) else layer.nodata
    common = {"data_type": layer.dtype, "nodata": nodata}
    if layer.scale != 1:
        common["raster:scale"] = layer.scale
    bands: list[dict[str, Any]] = [{"name": name, **common} for name in layer.bands]
    if layer.legend is not None:
        bands[0]["classification:classes"] = [
            {
                "value": int(c.code),
                "name": f"class_{int(c.code)}",
                "title": str(c.name),
                "color_hint": str(c.color).removeprefix("#").upper(),
            }
            for c in layer.legend.classes
        ]
    return pystac.Asset(
        href=f"./{path.name}",
        title=layer.name.replace("_", " "),
        media_type=_COG,
        roles=["data"],
        extra_fields={**_file(path), "bands": bands},
    )


def footprint_of(geobox: GeoBox) -> Polygon | MultiPolygon:
    """Return the outline of a grid in longitude and latitude; cut in two where it crosses the antimeridian."""
    height, width = (int(n) for n in geobox.shape)
    along = np.linspace(0, 1, _OUTLINE, endpoint=False)
    still = np.zeros(_OUTLINE)
    x = np.concatenate([along, still + 1, 1 - along, still]) * width
    y = np.concatenate([still, along, still + 1, 1 - along]) * height
    to_earth = Transformer.from_crs(crs_of(geobox), 4326, always_xy=True)
    longitude, latitude = to_earth.transform(*plane(geobox, x, y))
    on_earth = np.isfinite(longitude) & np.isfinite(latitude)
    longitude, latitude = longitude[on_earth], latitude[on_earth]
    if len(latitude) < 3:
        return box(-180, -90, 180, 90)
    # Unrolled, so that neighbours lie side by side also across the antimeridian.
    unrolled = np.degrees(np.unwrap(np.radians(longitude)))
    turned = abs(unrolled[-1] - unrolled[0]) > 180  # the last point is next to the first
    if turned or np.ptp(unrolled) >= 360:
        # Around the globe: an outline that turns about a pole encloses it.
        north = 90 if turned and latitude.mean() > 0 else latitude.max()
        south = -90 if turned and latitude.mean() < 0 else latitude.min()
        return box(-180, float(south), 180, float(north))
    outline = orient(Polygon(np.round(np.column_stack([unrolled, latitude]), 7)))
    west, _, east, _ = outline.bounds
    if west >= -180 and east <= 180:
        return outline
    pieces = [
        affinity.translate(piece, -360 * turn)
        for turn in (-1, 0, 1)
        if not (piece := outline.intersection(box(360 * turn - 180, -90, 360 * turn + 180, 90))).is_empty
    ]
    return MultiPolygon([p for p in pieces if isinstance(p, Polygon)])


def bbox_of(footprint: Polygon | MultiPolygon) -> list[float]:
    """Return west, south, east, north; west is larger than east where the footprint crosses the antimeridian."""
    if isinstance(footprint, MultiPolygon):
        coordinates = [get_coordinates(p) for p in footprint.geoms]
        west = max(c[:, 0].min() for c in coordinates)
        east = min(c[:, 0].max() for c in coordinates)
    else:
        west, _, east, _ = footprint.bounds
    _, south, _, north = footprint.bounds
    return [float(west), float(south), float(east), float(north)]

"""What decided these very pixels: tables, a picture and a page about the points of a file."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import LabelError
from pipeline.files import sweep, write_text
from pipeline.samples.points import Point, read_points
from workflows.explainers import explainers_of
from workflows.ownpixel import PixelStory, story_of
from workflows.pointcharts import AGAINST, FOR, spoken, tells_places
from workflows.pointpicture import point_picture
from workflows.report import template
from workflows.scoring import load_scorer
from workflows.verdict import percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup
    from odc.geo.geobox import GeoBox

    from models.bundle import Bundle
    from workflows.context import Context
    from workflows.ownpixel import Parts, Reason

# A picture and a section of the page for each: more than somebody looks at.
_MOST = 200

_PLACE = ("point", "name", "period", "x", "y", "row", "column")


def explain_points(context: Context, bundle: Bundle, file: Path) -> list[tuple[str, Path]]:
    """Write what decided the pixels of the points of a file: tables, a picture per point, and a page with all of them.

    Where the map layers say what moves the map around a place, this says what decided one pixel: the methods of the job are
    asked for the target of that pixel alone. It is exact; the network sees all that the score of the pixel hangs on.

    In ``report/points`` of the output folder:

    - ``points.csv``: a row per point, mapped period and method: ``point`` (number in the file, from 1), ``name`` (its field
      ``id`` or ``name``), ``x``, ``y`` in the CRS of the map, ``row``, ``column`` from 0; ``class``, ``probability``,
      ``second``, ``second_probability``, or ``estimate`` of a regression; ``method``, ``target``, ``unit``, ``signed``;
      ``share_here``, which share of all attribution lies on the pixel itself and not on its surroundings; the ``band`` and
      the ``date`` that count most, with their shares.
    - ``parts.csv``: a row for each of their bands and dates: ``axis`` (band or date), ``part``, ``value``, the sum of its
      attributions over the window, with its sign where the method has one, and ``share``, its size among those of all.
    - ``point-001.svg``, ...: the pictures. ``index.html``: the page.

    Parameters
    ----------
    context : Context
        The job, trained.
    bundle : Bundle
        Its model.
    file : Path
        Vector file with points, or CSV with lon, lat; points that state no CRS have that of ``labels.crs``.

    Returns
    -------
    list of (str, Path)
        What was made.

    Raises
    ------
    RequestError
        If the job has no imagery; if the file holds no points, too many, or none on the map.
    """
    job = context.job
    explainers = explainers_of(job.saliency, bundle)
    geobox = context.cube.geobox
    points, left = read_points(file, job.labels.crs if job.labels else None, geobox, _MOST)
    scorer = load_scorer(context.output.model, bundle.checksum)
    maps = context.maps
    stories = []
    with context.console.progress("explaining points", len(points) * len(maps), "points") as tell:
        for period, _ in maps:
            cube, name = context.cube_of(period), str(period) if len(maps) > 1 and period else ""
            for point in points:
                story = story_of(scorer, bundle, explainers, cube, point, name)
                if story is None:
                    left.append(_unseen(point, name))
                else:
                    stories.append(story)
                tell(len(stories) + len(left), len(points) * len(maps))
    if not stories:
        raise LabelError(f"--at: no point of {file} can be explained\n  " + "\n  ".join(left[:5]))
    context.console.notes([f"left out: {text}" for text in left])
    stories.sort(key=lambda s: s.point.number)
    return _write(context, bundle, file, stories, left)


def _unseen(point: Point, period: str) -> str:
    when = f" in {period}" if period else ""
    return (
        f"{point} lies on a pixel without any valid value{when} (row {point.row}, column {point.column}): nodata, masked, or "
        "outside `area`; nothing is mapped there"
    )


def _write(
    context: Context, bundle: Bundle, file: Path, stories: Sequence[PixelStory], left: Sequence[str]
) -> list[tuple[str, Path]]:
    folder = context.output.report / "points"
    sweep(folder)
    # Of another file, perhaps.
    for old in folder.glob("point-*.svg"):
        old.unlink()
    _write_csv(folder / "points.csv", [row for story in stories for row in _rows(story)])
    _write_csv(folder / "parts.csv", [row for story in stories for row in _part_rows(story)])
    geobox = context.cube.geobox
    side, unit = _pixel(geobox)
    shown = []
    with context.console.progress("drawing points", len(stories), "points") as tell:
        for i, story in enumerate(stories, 1):
            picture = point_picture(story, bundle.bands, bundle.network.radius, side, unit)
            write_text(folder / _picture_name(story, stories), _standalone(picture))
            shown.append(
                {"story": story, "picture": picture, "said": [(spoken(r.method), _said(r)) for r in story.reasons]}
            )
            tell(i, len(stories))
    page = template("points.html.j2").render(
        name=context.job.name,
        file=file.name,
        shown=shown,
        left=left,
        classified=bundle.classifies,
        colors={c["name"]: c["color"] for c in bundle.legend},
        units=bundle.task.get("units", ""),
        around=not bundle.network.pixelwise,
        signed=any(r.signed for r in stories[0].reasons),
        crs=f"EPSG:{geobox.crs.epsg}" if geobox.crs is not None and geobox.crs.epsg else "CRS of the map",
        ink=(FOR, AGAINST),
    )
    write_text(folder / "index.html", page)
    return [
        ("points", folder / "index.html"),
        ("points.csv", folder / "points.csv"),
        ("parts.csv", folder / "parts.csv"),
    ]


def _pixel(geobox: GeoBox) -> tuple[float, str]:
    """Return the side of a pixel and its unit."""
    assert geobox.crs is not None
    unit = str(geobox.crs.proj.axis_info[0].unit_name)
    return abs(float(geobox.resolution.x)), {"metre": "m", "degree": "°"}.get(unit, unit)


def _picture_name(story: PixelStory, stories: Sequence[PixelStory]) -> str:
    """Return ``point-001.svg``, with the first day of the period where several are mapped."""
    digits = max(3, len(str(max(s.point.number for s in stories))))
    period = f"-{story.period.split()[0]}" if story.period else ""
    return f"point-{story.point.number:0{digits}d}{period}.svg"


def _standalone(picture: Markup) -> str:
    """Return a picture that is not on a page: with colours of its own."""
    return str(picture).replace("currentColor", "#1b2126").replace("<svg", '<svg style="background:#fff"', 1) + "\n"


def _rows(story: PixelStory) -> list[dict[str, Any]]:
    """Return the rows of a pixel in points.csv, one per method."""
    rows = []
    for reason in story.reasons:
        row = _place(story) | _answer(story)
        row |= {"method": reason.method, "target": reason.target, "unit": reason.unit}
        row |= {"signed": "yes" if reason.signed else "no", "share_here": f"{reason.here:.6g}"}
        for axis in ("band", "date"):
            parts = reason.parts.get(axis)
            most = None if parts is None else next(iter(parts.order), None)
            told = ("", "") if parts is None or most is None else (parts.names[most], f"{parts.share[most]:.6g}")
            row[axis], row[f"{axis}_share"] = told
        rows.append(row)
    return rows


def _answer(story: PixelStory) -> dict[str, str]:
    (name, value), *others = story.ranking
    if not others:
        return {"quantity": name, "estimate": f"{value:.6g}"}
    second = {"second": others[0][0], "second_probability": f"{others[0][1]:.6g}"}
    return {"class": name, "probability": f"{value:.6g}"} | second


def _part_rows(story: PixelStory) -> list[dict[str, Any]]:
    """Return the rows of a pixel in parts.csv."""
    return [
        {
            **{k: v for k, v in _place(story).items() if k in ("point", "name", "period")},
            "method": reason.method,
            "target": reason.target,
            "axis": axis,
            "part": name,
            "value": f"{value:.6g}",
            "unit": reason.unit,
            "share": f"{share:.6g}",
        }
        for reason in story.reasons
        for axis, parts in reason.parts.items()
        for name, share, value in zip(parts.names, parts.share.tolist(), parts.value.tolist(), strict=True)
    ]


def _place(story: PixelStory) -> dict[str, Any]:
    point = story.point
    values = (point.number, point.name, story.period, f"{point.x:.10g}", f"{point.y:.10g}", point.row, point.column)
    return dict(zip(_PLACE, values, strict=True))


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(rows[0]) if rows else list(_PLACE[:3]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, stream.getvalue())


def _said(reason: Reason) -> str:
    """Return in words what a method says of a pixel."""
    found = [
        f"{plural} {_first(parts, reason.signed)}"
        for axis, plural in (("band", "bands"), ("date", "dates"))
        if (parts := reason.parts.get(axis)) is not None and len(parts.names) > 1
    ]
    if tells_places(reason):
        found.append(f"{percent(reason.here)} of all that counts lies on the pixel itself")
    return "; ".join(found) or f"{reason.pixel[0, 0]:.3g} {reason.unit}"


def _first(parts: Parts, signed: bool) -> str:
    """Return the three parts that count most with their shares, and the sign of their values."""
    texts = []
    for i in parts.order[:3]:
        sign = "" if not signed else "+" if parts.value[i] >= 0 else "−"
        texts.append(f"{parts.names[i]} ({sign}{percent(parts.share[i])})")
    return ", ".join(texts) or "do not count at all"

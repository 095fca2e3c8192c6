"""The report of a run: one page that stands by itself, and the table of areas."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.files import write_text
from pipeline.maps.areas import AreaRow
from pipeline.maps.layers import LegendEntry
from workflows import charts
from workflows.curves import judge
from workflows.explained import about_layer, saliency_picture
from workflows.pictures import class_picture, ramp_picture
from workflows.quicklook import quicklook, terminal_picture
from workflows.sections import Section
from workflows.timecharts import Seasons, season_charts
from workflows.verdict import figure, hectares, percent, verdict

__all__ = ["ReportData", "quicklook", "terminal_picture", "write_report"]

_ABOUT = {
    "classes": "Class map with names, colours and overviews.",
    "confidence": "Calibrated probability of the class that was mapped.",
    "probabilities": "Calibrated probability of every class, a band each.",
    "value": "The estimated value, in the units of the labels.",
    "reconstruction_error": "What the network could not give back, in standard deviations of the bands.",
    "anomaly": "Share of the validation samples that were given back better.",
    "embedding": "The numbers into which the network puts what it sees: a band each.",
    "forecast": "What was to be expected, a band for each day and band of the imagery.",
    "surprise": "What came minus what was to be expected, in standard deviations of the validation error.",
    "change": "Root mean square of the surprise over days and bands.",
}

_NOTHING: Mapping[str, Any] = {"n": 0, "confusion": []}


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodMap:
    """The map of one of several periods: its name in words, its class map and its areas."""

    name: str
    classes: Path
    areas: Sequence[AreaRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodChange:
    """Hectares (K x K) that went from class (row) to class (column) between two periods."""

    before: str
    after: str
    hectares: Sequence[Sequence[float]]


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything that a report may show. What is missing or empty leaves its section out.

    Attributes
    ----------
    name : str
        Name of the job.
    settings : mapping
        The job as resolved, as plain values.
    software : mapping
        Name to version.
    run_id : str
        Short name of what the map was made from.
    legend : sequence
        Classes in order: objects with ``name``, ``code``, ``color``.
    accuracy : mapping or None
        Of a classification, as accuracy.json: ``n``, ``overall``, ``kappa``, ``macro_f1``, ``classes``, ``confusion``
        (rows = reference, columns = map). Figures that do not exist are None.
    forest : mapping or None
        The same for the random forest.
    evaluated : str
        What the accuracy was measured on, as a sentence.
    claim : mapping
        Of other tasks: ``figure``, ``headline`` and ``sentences``, as `verdict` makes them of a classification.
    sections : sequence of Section
        What such tasks show.
    reasons : sequence of Section
        What the network looked at, and whether that can be trusted; of any task.
    facts : mapping
        What is mapped and how, in a few words each: imagery, bands, dates, network, ...
    rounds : sequence of mapping
        Per fold ``{"network": accuracy, "forest": accuracy or None}``; shown where there are two or more.
    areas : sequence of AreaRow
        Counted and error-adjusted areas; of several periods, those of the last.
    periods : sequence of PeriodMap
        The maps of all periods, where several are mapped.
    changes : sequence of PeriodChange
        What became of what, from each of them to the next.
    seasons : Seasons or None
        What the classes look like over time; of a series of dates.
    histories : sequence of sequences of mappings
        Per training its epochs: ``train_loss``, ``val_loss``, ``val_macro_f1``, as far as they exist.
    range_tests : sequence of mapping
        Per training whose learning rate was found by a test: ``lr``, ``loss``, ``suggestion``.
    labels : sequence of mapping
        Rows of the label table; the keys of the first are the columns, the first column names the row.
    notes : sequence of str
        What was decided, what was left out and why.
    calibration : mapping or None
        ``n``, ``temperature``, ``error_before``, ``error_after`` and ``bins`` (``n``, ``confidence``, ``accuracy``).
    layers : mapping
        Name of a layer to its file; ``classes``, ``confidence`` and ``saliency`` are shown as pictures.
    created : str
        When the report was made, ISO form.
    """

    name: str
    settings: Mapping[str, Any]
    software: Mapping[str, str]
    run_id: str
    legend: Sequence[LegendEntry]
    accuracy: Mapping[str, Any] | None = None
    forest: Mapping[str, Any] | None = None
    evaluated: str = ""
    claim: Mapping[str, Any] = field(default_factory=dict)
    sections: Sequence[Section] = ()
    reasons: Sequence[Section] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    rounds: Sequence[Mapping[str, Any]] = ()
    areas: Sequence[AreaRow] = ()
    periods: Sequence[PeriodMap] = ()
    changes: Sequence[PeriodChange] = ()
    seasons: Seasons | None = None
    histories: charts.Histories = ()
    range_tests: Sequence[Mapping[str, Any]] = ()
    labels: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()
    calibration: Mapping[str, Any] | None = None
    layers: Mapping[str, Path] = field(default_factory=dict)
    created: str = ""


def write_report(output: Path, data: ReportData) -> Path:
    """Write the report page.

    The page holds its pictures and charts in itself, needs no network and runs no script.

    Parameters
    ----------
    output : Path
        The HTML file to write. The layers are linked relative to its folder.
    data : ReportData
        What to show. Nothing else is shown but what follows from it.

    Returns
    -------
    Path
        ``output``.
    """
    write_text(output, template("report.html.j2").render(**_view(data, output.parent)))
    return output


def _view(data: ReportData, folder: Path) -> dict[str, Any]:
    """Return what the template draws."""
    pictures = {}
    if "classes" in data.layers:
        pictures["classes"] = class_picture(data.layers["classes"], data.legend)
    if "confidence" in data.layers:
        pictures["confidence"] = ramp_picture(data.layers["confidence"], colors="viridis", span=(0.0, 1.0))
    if "saliency" in data.layers:
        pictures["saliency"] = saliency_picture(data.layers["saliency"])
    bins = data.calibration["bins"] if data.calibration else []
    return {
        "data": data,
        "pictures": pictures,
        "verdict": data.claim or verdict(data.accuracy or _NOTHING, data.forest, data.areas, data.evaluated),
        "colors": {c.name: c.color for c in data.legend},
        "matrix": _matrix((data.accuracy or _NOTHING)["confusion"]),
        "forest_f1": {c["code"]: c["f1"] for c in data.forest["classes"]} if data.forest else {},
        "areas": _area_rows(data.areas),
        "periods": [(p, class_picture(p.classes, data.legend)) for p in data.periods],
        "seasons": season_charts(data.seasons) if data.seasons is not None else [],
        "loss": charts.loss_chart(data.histories),
        "score": charts.score_chart(data.histories),
        "rate": charts.rate_chart(data.range_tests),
        "said_of_saliency": _of_saliency(data.layers),
        "judged": list(dict.fromkeys(judge(history)[1] for history in data.histories if history)),
        "reliability": charts.reliability_chart(bins) if bins else None,
        "layers": [(name, _about(name, path), _link(path, folder)) for name, path in data.layers.items()],
        "settings": yaml.safe_dump(dict(data.settings), sort_keys=False, allow_unicode=True),
    }


def _about(name: str, path: Path) -> str:
    """Return what a layer holds."""
    return _ABOUT[name] if name in _ABOUT else about_layer(path)


def _of_saliency(layers: Mapping[str, Path]) -> str:
    """Return what stands below the picture of the layer per pixel."""
    if "saliency" not in layers:
        return ""
    return f"{about_layer(layers['saliency'])} The colours span the 2nd to the 98th percentile of this picture."


def _matrix(confusion: Sequence[Sequence[int]]) -> list[list[tuple[int, float | None]]]:
    """Return for each cell its count and its share of the reference row (None in an empty row)."""
    return [[(n, n / sum(row) if sum(row) else None) for n in row] for row in confusion]


def _area_rows(rows: Sequence[AreaRow]) -> list[dict[str, Any]]:
    """Return the areas with the places of their marks on a common axis, in percent of its length."""
    reach = max([max(r.counted_ha, (r.adjusted_ha or 0) + (r.interval_ha or 0)) for r in rows], default=0) or 1.0
    found = []
    for row in rows:
        known = row.adjusted_ha is not None and row.interval_ha is not None
        low = max(0.0, (row.adjusted_ha or 0) - (row.interval_ha or 0))
        high = (row.adjusted_ha or 0) + (row.interval_ha or 0)
        found.append(
            {
                "row": row,
                "counted": 100 * row.counted_ha / reach,
                "adjusted": 100 * (row.adjusted_ha or 0) / reach if known else None,
                "low": 100 * low / reach,
                "width": 100 * (high - low) / reach,
            }
        )
    return found


def _link(path: Path, folder: Path) -> str:
    return quote(Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix())


def cell(value: Any) -> str:
    """Return the text of any value in a table."""
    if value is None:
        return "–"
    if isinstance(value, Markup):
        return value
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {cell(v)}" for k, v in value.items())
    return ", ".join(cell(v) for v in value)


@functools.cache
def template(name: str) -> Any:
    """Return a page's template; it shares its look and its filters with all others."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "figure": figure, "hectares": hectares, "cell": cell}
    return environment.get_template(name)

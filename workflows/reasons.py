"""What the network looked at, for the report: shares, what replacing costs, and pictures of what is dominant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from models.saliency.methods import BY_GRADIENT
from pipeline.imagery.paths import some
from workflows.explained import SPOKEN, dominant_figure
from workflows.sections import Section, Table
from workflows.shares import ALL
from workflows.timecharts import TimeLine, time_chart

if TYPE_CHECKING:
    from pipeline.maps.layers import LegendEntry

# Rows of a table, classes whose lines share a chart, and the fewest dates that make a line.
_ROWS, _TOGETHER, _DATES = 12, 3, 3
# A gradient speaks of something that matters not: so much of an even share, and so little lost.
_LARGE, _NOTHING = 0.75, 0.005

_TWO_MEANINGS = (
    "There are two questions. What moves the map around here: that is what gradients and occluded patches say. What decided this "
    "very pixel: that is what taking away a band or a date says. "
)
_SHARE = (
    "The share of a band or date is its part of all that counts at a pixel: the mean over the pixels of a class, and the range "
    "from the 10th to the 90th percentile. Beside it stands what is lost when a band or date of a test place is replaced by that "
    "of another place, drawn at random (mean and standard deviation over draws). Where bands tell the same, each loses little, "
    "for the others stand in for it."
)


def shown(found: Mapping[str, Any], legend: Sequence[LegendEntry], layers: Mapping[str, Path]) -> list[Section]:
    """Return the sections of the report: one for the first method, with what replacing costs, and one for each other.

    Parameters
    ----------
    found : mapping
        As `workflows.importance.summarise` returns it.
    legend : sequence of LegendEntry
        The classes; empty of a regression.
    layers : mapping
        Name of a layer to its file, as far as they are there.
    """
    last = found["shares"][-1]["period"] if found["shares"] else ""
    by_method: dict[str, list[Mapping[str, Any]]] = {}
    for row in found["shares"]:
        if row["period"] == last:
            by_method.setdefault(row["method"], []).append(row)
    dominant = [dominant_figure(name, path) for name, path in layers.items() if name.startswith("dominant_")]
    days = found["days"].get(last, {})
    counted = "pixels" if found["mapped"] else "samples"
    sections: list[Section] = []
    for method, rows in by_method.items() or [("", [])]:
        first = not sections
        bands = _share_table(method, "band", rows, legend, counted)
        # Dates without days, or too few of them, make no line.
        dated = len({days[r["name"]] for r in rows if r["axis"] == "date" and r["name"] in days}) >= _DATES
        dates = None if dated else _share_table(method, "date", rows, legend, counted)
        charts = _share_charts(rows, legend, days) if dated else []
        tables = [table for table in (bands, dates) if table is not None]
        if first:
            lost, more = _lost(found)
            tables, charts = [*tables, *lost], [*charts, *more]
        sections.append(
            Section(
                title="What the network looked at" if first else f"What it looked at, by {SPOKEN[method]}",
                text=_text(found, method) if first else f"The same, measured by {SPOKEN[method]}.",
                tables=tables,
                charts=charts,
                maps=[figure for of, figure in dominant if of == method or (first and not by_method)],
                notes=_warnings(method, rows, found) + (list(found["notes"]) if first else []),
            )
        )
    return [s for s in sections if s.tables or s.charts or s.maps]


def _text(found: Mapping[str, Any], method: str) -> str:
    same = "This network sees one pixel at a time: for it both are the same. " if found["pixelwise"] else ""
    of = (
        f"Shares are by {SPOKEN[method]}, over the map. "
        if found["mapped"] and method
        else f"Shares are by {SPOKEN[method]}, over samples of the test fold: what decided the class of each. "
        if method
        else ""
    )
    return _TWO_MEANINGS + same + of + _SHARE


def _share_table(
    method: str, axis: str, rows: Sequence[Mapping[str, Any]], legend: Sequence[LegendEntry], counted: str
) -> Table | None:
    """Return the shares on an axis, a row per band or date and a column per class, those that count most first."""
    cells = {(row["name"], row["of"]): row for row in rows if row["axis"] == axis}
    if not cells:
        return None
    classes = [name for name in _classes(legend) if any(of == name for _, of in cells)]
    pixels = {of: row["pixels"] for (_, of), row in cells.items()}
    names = list(dict.fromkeys(name for name, _ in cells))
    if axis == "band" or len(names) > _ROWS:
        names = sorted(names, key=lambda n: -sum(cells[n, c]["mean"] * pixels[c] for c in classes))
    more = "" if len(names) <= _ROWS else f" The {_ROWS} of {len(names)} that count most; all are in saliency.csv."
    return Table(
        caption=f"Share of each {axis} by {SPOKEN[method]}, below it the range of most places, in percent.{more}",
        columns=(axis.capitalize(), *classes),
        rows=[
            *((name, *(_share(cells[name, c]) for c in classes)) for name in names[:_ROWS]),
            (counted, *(pixels[c] for c in classes)),
        ],
    )


def _share(row: Mapping[str, Any]) -> Markup:
    mean, low, high = (f"{100 * row[key]:.0f}" for key in ("mean", "low", "high"))
    return Markup("{}<small>{} to {}</small>").format(mean, low, high)


def _share_charts(
    rows: Sequence[Mapping[str, Any]], legend: Sequence[LegendEntry], days: Mapping[str, float]
) -> list[Markup]:
    """Return the shares of the dates over the season: a line per class, or a chart where there are many."""
    of = {
        name: [r for r in rows if r["axis"] == "date" and r["of"] == name and r["name"] in days]
        for name in _classes(legend)
    }
    colors = {c.name: c.color for c in legend}
    lines = {
        name: TimeLine(
            color=colors.get(name, "#3d85c6"),
            days=[days[r["name"]] for r in dated],
            middle=[100 * r["mean"] for r in dated],
            low=[100 * r["low"] for r in dated],
            high=[100 * r["high"] for r in dated],
        )
        for name, dated in of.items()
        if dated
    }
    top = 1.05 * max(max(line.high) for line in lines.values())
    together = [list(lines)] if len(lines) <= _TOGETHER else [[name] for name in lines]
    return [
        _headed(
            [(lines[name].color, name) for name in names],
            time_chart([lines[name] for name in names], "share of the date, %", "Share of each date, by day", (0, top)),
        )
        for names in together
    ]


def _lost(found: Mapping[str, Any]) -> tuple[list[Table], list[Markup]]:
    """Return what replacing bands and dates costs: tables, and a chart of dates that have days."""
    tables, charts = [], []
    error = "rmse" in found["before"]
    for axis in ("band", "date"):
        rows = [row for row in found["lost"] if row["axis"] == axis]
        days = found["days"].get("", {})
        if not rows:
            continue
        key = "rmse" if error else "overall"
        dated = [r for r in rows if r["name"] in days]
        if axis == "date" and len({days[r["name"]] for r in dated}) >= _DATES:
            scale = 1 if error else 100
            mean = [scale * r["figures"][key][0] for r in dated]
            spread = [scale * r["figures"][key][1] for r in dated]
            line = TimeLine(
                color="#e0812f",
                days=[days[r["name"]] for r in dated],
                middle=mean,
                low=[m - s for m, s in zip(mean, spread, strict=True)],
                high=[m + s for m, s in zip(mean, spread, strict=True)],
            )
            what = "error added (RMSE)" if error else "overall accuracy lost, points"
            title = f"{'Error added' if error else 'Accuracy lost'} when a date is replaced"
            charts.append(_headed([("", title)], time_chart([line], what, f"{title}, by day", None)))
            continue
        rows = sorted(rows, key=lambda row: -row["figures"][key][0])
        more = "" if len(rows) <= _ROWS else f" The {_ROWS} of {len(rows)} that cost most; all are in permutation.csv."
        names = {"rmse": "Error added (RMSE)", "overall": "Overall accuracy lost, points", "macro_f1": "Macro-F1 lost"}
        before = ", ".join(_before(key, value) for key, value in found["before"].items())
        tables.append(
            Table(
                caption=f"What is lost when a {axis} is replaced on {found['places']:,} test places, which untouched have "
                f"{before}.{more}",
                columns=(f"{axis.capitalize()} replaced", *(names[k] for k in found["before"])),
                rows=[(r["name"], *(_cost(k, *r["figures"][k]) for k in found["before"])) for r in rows[:_ROWS]],
            )
        )
    return tables, charts


def _before(key: str, value: float) -> str:
    return {
        "rmse": f"an error of {value:.3g}",
        "overall": f"an overall accuracy of {100 * value:.1f} %",
        "macro_f1": f"a macro-F1 of {value:.3f}",
    }[key]


def _cost(key: str, mean: float, spread: float) -> str:
    if key == "overall":
        return f"{100 * mean:.1f} ± {100 * spread:.1f}"
    return f"{mean:.3g} ± {spread:.2g}" if key == "rmse" else f"{mean:.3f} ± {spread:.3f}"


def _warnings(method: str, rows: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> list[str]:
    """Return a sentence where a gradient speaks of bands or dates whose replacement costs nothing."""
    if method not in BY_GRADIENT or not found["before"]:
        return []
    key = next(iter(found["before"]))
    nothing = _NOTHING * (found["before"][key] if key == "rmse" else 1.0)
    costs = {(r["axis"], r["name"]): r["figures"][key] for r in found["lost"]}
    said = []
    for axis in ("band", "date"):
        of = [r for r in rows if r["axis"] == axis]
        total = sum(r["pixels"] for r in of) or 1
        share: dict[str, float] = {}
        for r in of:
            share[r["name"]] = share.get(r["name"], 0.0) + r["mean"] * r["pixels"]
        # Each pixel is counted once for each name.
        share = {name: v * len(share) / total for name, v in share.items()}
        idle = [
            (name, v)
            for name, v in sorted(share.items(), key=lambda pair: -pair[1])
            if v >= _LARGE / len(share) and (axis, name) in costs and costs[axis, name][0] <= nothing
        ]
        if idle:
            many = len(idle) > 1
            said.append(
                f"Not to be taken at its word: {SPOKEN[method]} gives "
                + some([f"{name} ({100 * v:.0f} %)" for name, v in idle])
                + f", yet replacing {'any of these' if many else 'this'} {axis}{'s' if many else ''} loses no accuracy. "
                f"Either {'they say' if many else 'it says'} nothing that the map needs, or others say the same."
            )
    return said


def _classes(legend: Sequence[LegendEntry]) -> list[str]:
    return [c.name for c in legend] or [ALL]


def _headed(named: Sequence[tuple[str, str]], chart: Markup) -> Markup:
    """Return a chart below a heading of names, each with its colour if it has one."""
    swatch = Markup('<i class="swatch" style="background:{}"></i>')
    heading = Markup(" &nbsp; ").join(
        Markup("{}{}").format(swatch.format(color) if color else "", name) for color, name in named
    )
    return Markup("<h3>{}</h3>{}").format(heading, chart)

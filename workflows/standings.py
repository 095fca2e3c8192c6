"""A comparison of networks as a table, as files and as a page."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.files import whole_file, write_json, write_text
from workflows import charts
from workflows.console import duration, quantity
from workflows.report import template

if TYPE_CHECKING:
    from workflows.contest import Contest, Standing
    from workflows.context import Context

_COLUMNS = ("network", "macro-F1", "spread", "overall", "behind", "+-", "training", "px/s", "parameters", "size")


def write_bench(context: Context, contest: Contest, folder: Path) -> list[tuple[str, Path]]:
    """Write ``bench.json``, ``bench.csv`` and ``index.html``, and print the table with its verdict."""
    rows = [_row(s) for s in contest.standings]
    notes = [
        f"Tested on the same {contest.pixels:,} pixels in {contest.patches:,} patches of touching pixels, with "
        f"{_seeds(contest)}. spread: standard deviation over the seeds. +-: standard error of the "
        "difference to the best, from the patches and the seeds; other training labels are not in it."
    ]
    if contest.left:
        notes.append(f"{contest.left:,} test pixels are left out, for not all networks have them.")
    notes.append(
        "Speed is that of the forward pass on one thread, or on the accelerator; training on what the machine has, the forest on "
        "one thread."
    )
    write_json(folder / "bench.json", _plain(contest) | {"notes": notes})
    _write_csv(folder / "bench.csv", contest)
    page = template("bench.html.j2").render(
        name=context.job.name,
        said=contest.verdict,
        notes=notes,
        columns=_COLUMNS,
        rows=rows,
        spread=charts.spread_chart(
            {s.name: [a.macro_f1 or 0.0 for a in s.accuracies] for s in contest.standings}, "macro-F1"
        ),
        classes=contest.classes,
        per_class=[(s.name, [_figure(v) for v in _f1(s)]) for s in contest.standings],
    )
    write_text(folder / "index.html", page)
    context.console.table("  networks on the test fold", _COLUMNS, rows)
    context.console.notes([*contest.verdict, *notes])
    return [("table", folder / "bench.csv"), ("figures", folder / "bench.json"), ("page", folder / "index.html")]


def _row(standing: Standing) -> tuple[str, ...]:
    parameters = standing.entrants[0].parameters
    return (
        standing.name,
        _figure(standing.macro_f1),
        _figure(standing.spread),
        _figure(standing.overall),
        _figure(standing.behind if standing.behind or standing.error is not None else None),
        _figure(standing.error),
        duration(standing.mean("seconds")),
        quantity(standing.mean("speed")).strip(),
        "-" if parameters is None else f"{parameters:,}",
        f"{quantity(standing.mean('size'))}B",
    )


def _seeds(contest: Contest) -> str:
    n = len(contest.standings[0].entrants)
    return f"{n} seeds" if n > 1 else "one seed"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _f1(standing: Standing) -> list[float | None]:
    """Return the mean F1 of each class over the seeds; None of one that neither map nor reference holds."""
    of_class = zip(*(a.f1 for a in standing.accuracies), strict=True)
    held = ([v for v in values if v is not None] for values in of_class)
    return [float(np.mean(v)) if v else None for v in held]


def _plain(contest: Contest) -> dict[str, Any]:
    return {
        "pixels": contest.pixels,
        "patches": contest.patches,
        "verdict": contest.verdict,
        "networks": [
            {
                "name": s.name,
                "macro_f1": s.macro_f1,
                "spread": s.spread,
                "overall": s.overall,
                "behind": s.behind,
                "standard_error": s.error,
                "f1": dict(zip(contest.classes, _f1(s), strict=True)),
                "runs": [
                    {
                        "seed": e.seed,
                        "n": a.n,
                        "overall": a.overall,
                        "macro_f1": a.macro_f1,
                        "confusion": a.confusion.tolist(),
                        "seconds": e.seconds,
                        "pixels_per_second": e.speed,
                        "parameters": e.parameters,
                        "bytes": e.size,
                    }
                    for e, a in zip(s.entrants, s.accuracies, strict=True)
                ],
            }
            for s in contest.standings
        ],
    }


def _write_csv(path: Path, contest: Contest) -> None:
    """Write a row per training; a figure that is not defined is left empty."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        figures = ["seconds", "pixels_per_second", "parameters", "bytes"]
        table.writerow(["network", "seed", "n", "overall", "macro_f1", *figures, *(f"f1 {c}" for c in contest.classes)])
        for s in contest.standings:
            for e, a in zip(s.entrants, s.accuracies, strict=True):
                row = [a.overall, a.macro_f1, e.seconds, e.speed, e.parameters, e.size, *a.f1]
                table.writerow([s.name, e.seed, a.n, *("" if v is None else f"{v:.6g}" for v in row)])

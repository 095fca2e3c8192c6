"""What a search found: the best job, the table of trials, a page, and advice in words."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.files import whole_file, write_text
from workflows import charts
from workflows.console import duration
from workflows.report import template
from workflows.space import Choices, Space
from workflows.trial import objective
from workflows.variant import changed

if TYPE_CHECKING:
    from workflows.context import Context
    from workflows.job import Job

# Rows of the table that is printed.
_SHOWN = 10
# A value so near to the end of its range, as a share of it, says that the range may be too narrow.
_EDGE = 0.05
_FIGURES = {"val_macro_f1": "macro-F1", "val_loss": "loss"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A trial that has ended: see `Outcome`; ``values`` are those of the job in trial 0."""

    number: int
    state: str
    value: float | None
    values: Mapping[str, Any]
    epochs: int
    best_epoch: int
    seconds: float
    error: str


def write_tuned(
    context: Context,
    space: Space,
    tried: Sequence[Tried],
    importances: Mapping[str, float],
    *,
    validation: int,
    seconds: float,
) -> list[tuple[str, Path]]:
    """Write ``best.yaml``, ``trials.csv`` and ``index.html``, and print the best trials with what follows from them.

    Parameters
    ----------
    context, space
        The job, and what was varied.
    tried : sequence of Tried
        All trials that have ended, one of them to its end at least.
    importances : mapping
        Share of the variation that each setting explains; may be empty.
    validation : int
        Labelled pixels by which trials were judged.
    seconds : float
        Time of this call.
    """
    job, folder = context.job, context.output.folder / "tune"
    order = ranked(job, tried)
    best = order[0]
    figure = _FIGURES[objective(job)[0]]
    said = advice(job, space, tried, validation)
    write_text(folder / "best.yaml", best_job(job, best, folder / "best").to_yaml())
    _write_csv(folder / "trials.csv", space, tried)
    short = {name: name.removeprefix("training.optimizer.").removeprefix("training.") for name in space}
    columns = ["trial", figure, "epochs", *short.values()]
    rows = [[_name(t), t.value, t.epochs, *(_cell(t.values.get(n)) for n in space)] for t in order]
    page = template("tune.html.j2").render(
        name=job.name,
        said=said,
        columns=columns,
        rows=[[f"{v:.4f}" if i == 1 else v for i, v in enumerate(row)] for row in rows],
        history=charts.search_chart([(t.number, t.state, t.value) for t in tried], figure, objective(job)[1]),
        importances=charts.importance_chart({short[n]: v for n, v in importances.items()}) if importances else None,
        settings=(folder / "best.yaml").read_text(encoding="utf-8"),
    )
    write_text(folder / "index.html", page)
    states = [t.state for t in tried]
    context.console.note(
        f"{len(tried)} trials in {duration(seconds)}: {states.count('done')} run to their end, {states.count('pruned')} given up "
        f"early, {states.count('failed')} failed"
    )
    # The job itself is shown, wherever it stands.
    shown = rows[:_SHOWN] + [row for row, t in zip(rows[_SHOWN:], order[_SHOWN:], strict=True) if not t.number]
    context.console.table(f"  trials by {figure} on the validation fold", columns, shown)
    context.console.notes(said)
    return [("best job", folder / "best.yaml"), ("trials", folder / "trials.csv"), ("page", folder / "index.html")]


def ranked(job: Job, tried: Sequence[Tried]) -> list[Tried]:
    """Return the trials that were run to their end, the best first; of two alike the earlier."""
    sign = -1 if objective(job)[1] == "maximize" else 1
    done = [(t, t.value) for t in tried if t.state == "done" and t.value is not None]
    return [t for t, _ in sorted(done, key=lambda pair: (sign * pair[1], pair[0].number))]


def best_job(job: Job, best: Tried, output: Path) -> Job:
    """Return the job with the values of a trial, and a folder of its own for what comes of it."""
    values = dict(best.values) if best.number else {}
    return changed(job, values | {"output": str(output), "tune": {}}, "the best job")


def advice(job: Job, space: Space, tried: Sequence[Tried], validation: int) -> list[str]:
    """Return what the trials amount to, as sentences."""
    order = ranked(job, tried)
    best, own = order[0], next((t for t in order if not t.number), None)
    figure = _FIGURES[objective(job)[0]]
    if own is best:
        said = [f"No trial was better than the job as it stands ({figure} {best.value:.3f}): keep it."]
    else:
        beside = (
            f"the job as it stands has {own.value:.3f}" if own else "the job as it stands was not trained to its end"
        )
        said = [f"Trial {best.number} is the best, with {figure} {best.value:.3f}; {beside}."]
    said.append(
        f"These are figures on {validation:,} validation pixels, and the best of {len(order)}: expect less on the test fold, "
        "which no trial has seen. `landweave run` on best.yaml measures it."
    )
    for name, one in space.items():
        value = best.values[name]
        if best is own or isinstance(one, Choices) or not one.log or not one.holds(value):
            continue
        place = one.place(value)
        if min(place, 1 - place) < _EDGE:
            end, wider = ("low", "lower") if place < 0.5 else ("high", "higher")
            said.append(
                f"The best {name} ({_cell(value)}) lies at the {end} end of its range: a {wider} end may be better still."
            )
    return said


def _name(trial: Tried) -> str:
    return str(trial.number) if trial.number else "0 (the job)"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value)


def _write_csv(path: Path, space: Space, tried: Sequence[Tried]) -> None:
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["trial", "state", "value", "epochs", "best_epoch", "seconds", *space, "error"])
        for t in tried:
            value = "" if t.value is None else repr(t.value)
            values = [v if isinstance(v, str) else json.dumps(v) for v in (t.values.get(n) for n in space)]
            table.writerow([t.number, t.state, value, t.epochs, t.best_epoch, f"{t.seconds:.2f}", *values, t.error])

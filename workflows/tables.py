"""Tables as files: those beside the report, and those that a command is asked for."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import RequestError
from pipeline.files import whole_file
from pipeline.maps.areas import AreaRow
from pipeline.maps.change import Change
from pipeline.maps.layers import LegendEntry

if TYPE_CHECKING:
    import pandas as pd

    from workflows.permutation import Lost
    from workflows.shares import Share


def check_table(path: Path) -> None:
    """Refuse a name that says no kind of table, before any work is done.

    Raises
    ------
    RequestError
        If it ends neither in .parquet nor in .csv.
    """
    if path.suffix.lower() not in (".parquet", ".csv"):
        raise RequestError(f"-o: expected a table as .parquet or .csv, found {path}")


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table, whole or not at all; of what kind, its name says."""
    with whole_file(path) as temporary:
        if path.suffix.lower() == ".parquet":
            table.to_parquet(temporary, index=False)
        else:
            table.to_csv(temporary, index=False, date_format="%Y-%m-%d")


def write_areas_csv(path: Path, maps: Mapping[str, Sequence[AreaRow]]) -> None:
    """Write the areas of the classes of each map; what is not known is left empty.

    Parameters
    ----------
    path : Path
        The file.
    maps : mapping
        Rows by the name of the period that is mapped; the column is left out for a single map, whose name is empty.
    """
    dated = any(maps)
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        columns = ["code", "class", "pixels", "counted_ha", "adjusted_ha", "interval_95_ha", "samples", "note"]
        table.writerow(["period", *columns] if dated else columns)
        for period, rows in maps.items():
            for row in rows:
                hectares = (row.counted_ha, row.adjusted_ha, row.interval_ha)
                figures = ["" if v is None else f"{v:.4f}" for v in hectares]
                line = [row.code, row.name, row.pixels, *figures, row.samples, row.note]
                table.writerow([period, *line] if dated else line)


def write_changes_csv(path: Path, changes: Mapping[tuple[str, str], Change], classes: Sequence[LegendEntry]) -> None:
    """Write what became of what between maps: a row per pair of periods and pair of classes that occurs."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["before", "after", "class_before", "class_after", "pixels", "hectares"])
        for (before, after), found in changes.items():
            for i, a in enumerate(classes):
                for j, b in enumerate(classes):
                    if found.pixels[i, j]:
                        figures = (int(found.pixels[i, j]), f"{found.hectares[i, j]:.4f}")
                        table.writerow([before, after, a.name, b.name, *figures])


def write_shares_csv(path: Path, shares: Sequence[Share]) -> None:
    """Write how much each band and date counts for each class; the column of periods is left out for a single map."""
    dated = any(row.period for row in shares)
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        columns = ["method", "class", "axis", "name", "share_mean", "share_low", "share_high", "value_mean", "pixels"]
        table.writerow(["period", *columns] if dated else columns)
        for row in shares:
            figures = [f"{v:.6f}" for v in (row.mean, row.low, row.high)]
            value = "" if row.value is None else f"{row.value:.6g}"
            line = [row.method, row.of, row.axis, row.name, *figures, value, row.pixels]
            table.writerow([row.period, *line] if dated else line)


def write_lost_csv(path: Path, lost: Sequence[Lost]) -> None:
    """Write what replacing each band and date costs: mean and standard deviation over draws."""
    named = {"overall": "lost_overall", "macro_f1": "lost_macro_f1", "rmse": "added_rmse"}
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        of = list(lost[0].figures) if lost else []
        table.writerow(["axis", "name", *(f"{named[key]}_{what}" for key in of for what in ("mean", "sd"))])
        for row in lost:
            table.writerow([row.axis, row.name, *(f"{v:.6g}" for key in of for v in row.figures[key])])

"""Tables of labelled series as they are on disk: their columns, checked."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline.errors import LabelError, nearest
from pipeline.imagery.paths import some
from pipeline.samples.legend import text_of
from pipeline.samples.vectors import COLUMNS
from pipeline.settings import LabelSettings


def read_table(path: str, what: str) -> pd.DataFrame:
    """Return a table, its rows numbered from 1; ``what`` names the setting in messages.

    Raises
    ------
    LabelError
        If there is no such file, or it is no table.
    """
    file = Path(path)
    if not file.is_file():
        beside = [p.name for p in file.parent.iterdir()] if file.parent.is_dir() else []
        raise LabelError(f"{what}: there is no file {path}{nearest(file.name, beside)}")
    suffix = file.suffix.lower()
    if suffix not in (".parquet", ".csv"):
        raise LabelError(f"{what}: expected a table as .parquet or .csv, found {path}")
    try:
        table: pd.DataFrame = pd.read_parquet(file) if suffix == ".parquet" else pd.read_csv(file)
    except (ValueError, OSError) as error:
        raise LabelError(f"{what}: {path} cannot be read as a table: {error}") from error
    table.columns = table.columns.map(str)
    table.index = pd.RangeIndex(1, len(table) + 1)
    return table


def need_column(table: pd.DataFrame, name: str, where: str, what: str) -> None:
    """Refuse a table without a column; names the nearest, and all there are.

    Raises
    ------
    LabelError
        If it is not there.
    """
    if name not in table.columns:
        there = list(table.columns)
        raise LabelError(f"{what}: {where} has no column '{name}'{nearest(name, there)} It has {', '.join(there)}")


def sample_rows(long: pd.DataFrame, settings: LabelSettings) -> pd.DataFrame:
    """Return the table with a row per sample.

    Raises
    ------
    LabelError
        If a column is missing, a sample has two rows, or two labels.
    """
    if settings.samples is not None:
        samples = read_table(settings.samples, "labels.samples")
        need_column(samples, settings.id, settings.samples, "labels.id")
        twice = samples[settings.id][samples[settings.id].duplicated()]
        if len(twice):
            raise LabelError(f"{settings.samples}: sample {twice.iloc[0]} stands there twice; each needs one row")
        return samples
    need_column(long, settings.id, str(settings.series), "labels.id")
    field = settings.field or "label"
    need_column(long, field, str(settings.series), "labels.field")
    several = long.groupby(settings.id, sort=False)[field].nunique(dropna=False)
    if (several > 1).any():
        raise LabelError(
            f"{settings.series}: sample {several[several > 1].index[0]} has two labels; one sample, one label"
        )
    return long.drop_duplicates(settings.id)


def labelled_rows(
    long: pd.DataFrame, samples: pd.DataFrame, settings: LabelSettings, field: str, named: str, notes: list[str]
) -> pd.DataFrame:
    """Return the samples that have a series; each series needs a label.

    Raises
    ------
    LabelError
        If one has none.
    """
    bare = samples[field].isna() | (samples[field].map(text_of) == "")
    known = set(samples[settings.id][~bare])
    found = long[settings.id].unique()
    lacking = [str(i) for i in found if i not in known]
    if lacking:
        raise LabelError(
            f"{settings.series}: {len(lacking)} samples have no label in {named} ({some(lacking)}); label them there, or "
            "take them out of the series"
        )
    has = samples[settings.id].isin(found)
    if not has.all():
        notes.append(f"{int((~has).sum())} of {len(samples)} samples have no series and are left out")
    return samples[has & ~bare]


def band_columns(long: pd.DataFrame, samples: pd.DataFrame, settings: LabelSettings, field: str) -> list[str]:
    """Return the columns that are bands: as set, else all columns of numbers that are nothing else.

    Raises
    ------
    LabelError
        If there is none, or one holds something that is no number.
    """
    where = str(settings.series)
    if settings.bands is not None:
        for name in settings.bands:
            need_column(long, name, where, "labels.bands")
        bands = settings.bands
    else:
        # What describes a sample is no band, also where both stand in one table.
        other = {settings.id, settings.date, field, settings.fold, settings.from_, settings.to}
        other |= {c for pair in COLUMNS for c in pair}
        other |= set(samples.columns) if settings.samples is not None else set()
        bands = [c for c in long.columns if c not in other and pd.api.types.is_numeric_dtype(long[c])]
    if not bands:
        raise LabelError(f"{where}: no column of numbers is left for a band; it has {', '.join(long.columns)}")
    for name in bands:
        if not pd.api.types.is_numeric_dtype(long[name]):
            wrong = long[name][pd.to_numeric(long[name], errors="coerce").isna() & long[name].notna()]
            raise LabelError(
                f"{where}: expected numbers in column '{name}', found {wrong.iloc[0]!r} in row {wrong.index[0]}"
            )
    return list(bands)

"""Dates in file names, in band names, in lists."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ImageryError

# No image from the air or from space is older.
_FIRST_YEAR = 1900

_PARTS = {
    "%Y": r"\d{4}",
    "%y": r"\d{2}",
    "%m": r"\d{2}",
    "%d": r"\d{2}",
    "%j": r"\d{3}",
    "%H": r"\d{2}",
    "%M": r"\d{2}",
    "%S": r"\d{2}",
}


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """A stretch of time, both ends included: an agricultural year, a season.

    Attributes
    ----------
    start, end : datetime.date
        First and last day.
    """

    start: datetime.date
    end: datetime.date

    def __post_init__(self) -> None:
        if self.end < self.start:
            raise ImageryError(f"a period ends before it starts: {self}")

    def __contains__(self, date: datetime.date | None) -> bool:
        return date is not None and self.start <= date <= self.end

    @property
    def name(self) -> str:
        """What folders are called that hold something of this period: ``2011-09-01_2012-08-31``."""
        return f"{self.start}_{self.end}"

    def __str__(self) -> str:
        return f"{self.start} to {self.end}"


def date_in(name: str, pattern: str) -> tuple[datetime.date, str]:
    """Find a date in a file's name.

    Parameters
    ----------
    name : str
        The stem of the file.
    pattern : str
        As for strptime (``%Y%m%d``, ``%Y%j``, ...), or a fixed date in ISO form.

    Returns
    -------
    date, rest
        The date, and the name without it.

    Raises
    ------
    ImageryError
        If the name holds no such date.
    """
    if "%" not in pattern:
        return iso(pattern, f"imagery.date: {pattern!r}"), name
    expression = re.escape(pattern)
    for directive, digits in _PARTS.items():
        expression = expression.replace(re.escape(directive), digits)
    for match in re.finditer(f"(?=({expression}))", name):
        try:
            found = datetime.datetime.strptime(match[1], pattern).date()
        except ValueError:
            continue
        # Digits of a path, row or tile stand side by side with those of a date: LE7 022 049 1999 322 also reads 7022-02-18.
        if _FIRST_YEAR <= found.year <= datetime.datetime.now(datetime.UTC).year + 1:
            return found, name[: match.start(1)] + name[match.end(1) :]
    raise ImageryError(
        f"{name}: no date like {pattern!r} in the file's name; %Y is a year of four digits, %m a month, %d a day of the "
        "month, %j a day of the year"
    )


def iso(text: str, where: str) -> datetime.date:
    """Return a date written as 2021-06-30 or 20210630.

    Raises
    ------
    ImageryError
        If it is none; names ``where`` it stands.
    """
    for form in ("%Y-%m-%d", "%Y%m%d", "%Y/%m/%d", "%Y_%m_%d"):
        try:
            return datetime.datetime.strptime(text.strip(), form).date()
        except ValueError:
            continue
    raise ImageryError(f"{where}: expected a date such as 2021-06-30, found {text.strip()!r}")


def listed(dates: str | list[str], band_names: list[str | None], path: str) -> list[datetime.date]:
    """Return the dates of the bands of one file.

    Parameters
    ----------
    dates : str or list of str
        The dates, a file with a date a line, or ``bands``: the band names are dates.
    band_names : list of str or None
        The file's band names.
    path : str
        The raster, for messages.

    Raises
    ------
    ImageryError
        If there are not as many dates as bands, or one of them is no date.
    """
    if dates == "bands":
        return [iso(_digits(name or ""), f"{path}: the name of band {i}") for i, name in enumerate(band_names, start=1)]
    if isinstance(dates, str):
        file = Path(dates)
        if not file.is_file():
            raise ImageryError(f"imagery.dates: there is no file {dates}; give a list, a file, or `bands`")
        lines = [line.strip().strip('"') for line in file.read_text(encoding="utf-8").split("\n")]
        found = [iso(line, f"{dates}, line {i}") for i, line in enumerate(lines, start=1) if line]
    else:
        found = [iso(text, f"imagery.dates, entry {i}") for i, text in enumerate(dates, start=1)]
    if len(found) != len(band_names):
        raise ImageryError(
            f"{path} has {len(band_names)} bands, and imagery.dates has {len(found)} dates: one each is needed"
        )
    return found


def _digits(name: str) -> str:
    match = re.search(r"\d{4}[-_/]?\d{2}[-_/]?\d{2}", name)
    return match[0] if match else name


def dates_in_names(names: Sequence[str | None]) -> list[datetime.date | None]:
    """Return the dates that band names hold, None for those that hold none."""
    found: list[datetime.date | None] = []
    for name in names:
        try:
            found.append(iso(_digits(name or ""), "band"))
        except ImageryError:
            found.append(None)
    return found


def holding(
    setting: float | Mapping[datetime.date, float] | None, date: datetime.date | None, own: float | None, where: str
) -> float | None:
    """Return what a setting says for a date: the value, or that of the last date from which on one holds; else ``own``.

    Raises
    ------
    ImageryError
        If it names dates, and the imagery has none; names ``where`` it stands.
    """
    if setting is None:
        return own
    if not isinstance(setting, Mapping):
        return setting
    if date is None:
        raise ImageryError(f"{where} gives values by date, and the imagery has no dates; give one value, or `date`")
    since = [d for d in setting if d <= date]
    return setting[max(since)] if since else own

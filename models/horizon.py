"""Which dates of a series are seen and which are forecast, and the forecast that needs no learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from models.network import ModelError, masked

_YEAR = 365  # days


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """Which dates of a series are seen, and which are forecast.

    Windows of ``history + steps`` dates slide over the series. The last ``steps`` dates of it are the test, those before
    them the validation; windows that train end before both.

    Attributes
    ----------
    dates : int
        Dates of the series, T.
    history, steps : int
        Dates that the network sees, and dates to come that it forecasts.
    bands : tuple of int
        Places of the bands that are forecast.
    shift : tuple of float
        Per first date of a window: what is added to the days of the series, so that they count from the first day of that
        date's year; (T,).
    naive : tuple of tuple of int
        Per first date of a window: the seen dates, by their places in the window, that are the naive forecast of each date
        to come; (T, S).
    """

    dates: int
    history: int
    steps: int
    bands: tuple[int, ...]
    shift: tuple[float, ...]
    naive: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if self.trained < 1:
            raise ModelError(
                f"a forecast of {self.steps} dates from {self.history} needs a series of {self.history + 3 * self.steps} "
                f"dates at least (two times the steps are kept to stop by and to test), found {self.dates}; set "
                "forecast.history or forecast.steps lower"
            )

    @property
    def trained(self) -> int:
        """How many windows train: they start at the first so many dates."""
        return self.validated - self.steps + 1

    @property
    def validated(self) -> int:
        """First date of the window that tells when to stop."""
        return self.tested - self.steps

    @property
    def tested(self) -> int:
        """First date of the window that is tested."""
        return self.dates - self.history - self.steps

    def window(self, batch: Mapping[str, Tensor], start: int) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor, Tensor]:
        """Return what a network sees of a batch of whole series from a date on, what it is to add, and where that is known.

        Returns
        -------
        tuple
            Cube, valid and time of ``history`` dates, as `Network.forward` takes them; the ``steps`` dates that came minus
            the naive forecast, (B, S * Cb, H, W); and whether they are known, (B, S * Cb, H, W) bool.
        """
        middle, end = start + self.history, start + self.history + self.steps
        seen = slice(start, middle)
        inputs = batch["cube"][:, seen], batch["valid"][:, seen], batch["time"][:, seen] + self.shift[start]
        came = batch["cube"][:, middle:end][:, :, list(self.bands)].flatten(1, 2)
        known = batch["valid"][:, middle:end].repeat_interleave(len(self.bands), dim=1)
        return inputs, came - naive(*inputs[:2], self.naive[start], self.bands), known


def naive(cube: Tensor, valid: Tensor, places: Sequence[int], bands: Sequence[int]) -> Tensor:
    """Return the naive forecast: the values of one seen date for each date to come, the mean (zero) where it is not valid.

    Networks learn what to add to it. To repeat the last season is easy, and where little is known it is best; a network
    that had to learn that first would need many more series.

    Parameters
    ----------
    cube, valid : Tensor
        What is seen; (B, T, C, H, W) float32, (B, T, H, W) bool.
    places : sequence of int
        A seen date for each date to come; (S,).
    bands : sequence of int
        Places of the bands that are forecast; (Cb,).

    Returns
    -------
    Tensor
        (B, S * Cb, H, W) float32.
    """
    return masked(cube, valid)[:, list(places)][:, :, list(bands)].flatten(1, 2)


def naive_places(seen: Sequence[float], to_come: Sequence[float]) -> list[int]:
    """Return for each day to come which of the days that are seen is its naive forecast, by its place.

    That is the one nearest to the same day of the year before, or of the last year that is seen; the last one, where the
    history does not reach back so far.

    Parameters
    ----------
    seen, to_come : sequence of float
        Days, rising.
    """
    # Half a step at most; a history that begins later does not know that season.
    earliest = seen[0] - (seen[-1] - seen[0]) / max(1, len(seen) - 1) / 2
    found = []
    for day in to_come:
        back = day - _YEAR
        while back > seen[-1]:
            back -= _YEAR
        away = [abs(d - back) for d in seen]
        found.append(len(seen) - 1 if back < earliest else away.index(min(away)))
    return found

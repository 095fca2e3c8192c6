"""Imagery of several periods, made alike: as many dates each, days counted from the first day of each."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.imagery.cube import Cube
from pipeline.imagery.dates import Period


def cubes_of(cube: Cube, periods: Sequence[Period | None]) -> tuple[tuple[Cube, ...], list[str]]:
    """Return the imagery of each period, all of as many dates as the longest, and sentences for the user.

    Parameters
    ----------
    cube : Cube
        All imagery.
    periods : sequence of Period or None
        None stands for all imagery.

    Raises
    ------
    ImageryError
        If there is no image in a period.
    """
    if tuple(periods) == (None,):
        return (cube,), []
    own = [cube if p is None else cube.during(p) for p in periods]
    counts = [len(c.dates) for c in own]
    most, least = max(counts), min(counts)
    notes = [
        f"labels hold for {len(own)} periods (first: {periods[0]}); a sample sees the images of its own, {most} dates"
    ]
    if least < most:
        notes.append(f"periods have {least} to {most} dates; masked dates follow the shorter ones")
    return tuple(c if p is None else cube.during(p, most) for c, p in zip(own, periods, strict=True)), notes

"""The tree of errors a user can meet.

::

    LandweaveError                 shown as one message, never as a traceback
    |-- RequestError               the request is wrong: exit status 2
    |   |-- JobError               the job file or a command line option
    |   |-- ImageryError           rasters, bands, dates, grids
    |   |-- LabelError             labels, legend, folds
    |   |-- BundleError            a trained model that does not fit, or cannot be read
    |   `-- StaleError             earlier results were made from other inputs
    |-- BusyError                  another run holds the output folder: exit status 2
    `-- RunError                   the work failed: exit status 1
        |-- ReadError              a raster that opened but could not be read
        `-- BlocksFailedError      some blocks failed after their retries
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LandweaveError(Exception):
    """Base of all errors that are the user's to mend; the message is complete by itself."""

    exit_status = 1


class RequestError(LandweaveError):
    """The request is wrong; nothing was started."""

    exit_status = 2


class JobError(RequestError):
    """The job file, or an option that overrides it, is wrong."""


class ImageryError(RequestError):
    """Rasters, bands, dates or grids do not fit."""


class LabelError(RequestError):
    """Labels, legend or folds do not fit."""


class BundleError(RequestError):
    """A trained model cannot be read, or does not fit the imagery."""


class StaleError(RequestError):
    """The output folder holds results made from other inputs."""


class BusyError(RequestError):
    """Another run holds the output folder."""


class RunError(LandweaveError):
    """The work was started and failed."""


class ReadError(RunError):
    """A raster that could be opened failed while it was read; names the file and the window."""


class BlocksFailedError(RunError):
    """Some blocks failed after their retries; the rest is done and kept."""


def nearest(found: str, allowed: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the allowed name most like ``found``, or ``""``."""
    choices = {str(a).lower(): str(a) for a in allowed}
    close = difflib.get_close_matches(found.lower(), list(choices), n=1, cutoff=0.5)
    return f"; did you mean '{choices[close[0]]}'?" if close else ""

"""Paths, lists and globs of the job file to files."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import ImageryError, nearest

# What lies beside rasters and is matched by the same globs.
_SIDECARS = (".aux.xml", ".msk", ".ovr", ".aux", ".tfw", ".prj", ".qml")


def expand(path: str | list[str], what: str = "imagery.path") -> list[str]:
    """Return the files of a path, a list or a glob, sorted within each glob; sidecar files are no rasters.

    Raises
    ------
    ImageryError
        If a glob matches nothing, or the list is empty.
    """
    files: list[str] = []
    for text in [path] if isinstance(path, str) else path:
        if any(c in text for c in "*?[") and not Path(text).exists():
            # Path.glob knows no absolute patterns.
            found = sorted(f for f in glob.glob(text, recursive=True) if not f.lower().endswith(_SIDECARS))  # noqa: PTH207
            if not found:
                folder = Path(text).parent
                beside = [p.name for p in folder.iterdir()] if folder.is_dir() else []
                raise ImageryError(f"{what}: {text} matches no file{nearest(Path(text).name, beside)}")
            files += found
        else:
            files.append(text)
    if not files:
        raise ImageryError(f"{what}: the list is empty; give a file, a list of files, or a glob")
    return files


def some(names: Sequence[str]) -> str:
    """Return the first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

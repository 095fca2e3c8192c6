"""Paths, addresses, lists and globs of the job file to files."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pipeline.errors import ImageryError, nearest

# What lies beside rasters and is matched by the same globs.
_SIDECARS = (".aux.xml", ".msk", ".ovr", ".aux", ".tfw", ".prj", ".qml")


def virtual(path: str) -> bool:
    """Return whether a path is an address, such as https://... or /vsis3/..., which GDAL opens and no file system knows."""
    return path.startswith("/vsi") or "://" in path


def shown(path: str) -> str:
    """Return a path as it is shown and recorded: an address without its query, which may hold a signature."""
    return path.partition("?")[0] if virtual(path) else path


def file_name(path: str) -> str:
    """Return the last part of a path or an address."""
    return PurePosixPath(shown(path)).name if virtual(path) else Path(path).name


def stem(path: str) -> str:
    """Return the last part of a path or an address without its suffix."""
    return Path(file_name(path)).stem


def expand(path: str | list[str], what: str = "imagery.path") -> list[str]:
    """Return the files of a path, a list or a glob, sorted within each glob; sidecar files are no rasters.

    Raises
    ------
    ImageryError
        If a glob matches nothing, or stands in an address, or the list is empty.
    """
    files: list[str] = []
    for text in [path] if isinstance(path, str) else path:
        if virtual(text):
            if "*" in shown(text):
                raise ImageryError(
                    f"{what}: {shown(text)} is an address with a glob, and what a server holds cannot be listed; give the "
                    "addresses as a list"
                )
            files.append(text)
        elif any(c in text for c in "*?[") and not Path(text).exists():
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

"""Files that are whole or absent: temporary name, flush, fsync, rename."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PIECE = 1 << 20
_WHOLE = 64 << 20
_WHOLE_FOLDER = 1 << 30


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success it is synced and renamed to ``path``.

    A process killed at any moment leaves either the old file, the new one, or none: never a part of one
    under the final name. On an exception the temporary file is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp{path.suffix}")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` (UTF-8) to ``path``, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON to ``path``, whole or not at all; NaN is refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sync(path: Path) -> None:
    """Force a file or a folder entry to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> int:
    """Remove temporary files and folders that killed processes left in ``folder``; return how many."""
    left = list(folder.glob(".*.tmp*")) if folder.is_dir() else []
    for path in left:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return len(left)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a whole file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(path: Path) -> dict[str, Any]:
    """Return what identifies an input file: its size and a checksum.

    Files up to 64 MiB are hashed whole (``sha256``). Larger ones are hashed at their start, middle and end and by
    their time of change (``sampled_sha256``): a scene of a terabyte must not be read twice to be recognised.
    """
    stat = path.stat()
    if stat.st_size <= _WHOLE:
        return {"path": str(path), "size": stat.st_size, "sha256": sha256(path)}
    digest = hashlib.sha256(f"{stat.st_size} {stat.st_mtime_ns}".encode())
    with path.open("rb") as stream:
        for start in (0, stat.st_size // 2, stat.st_size - _PIECE):
            stream.seek(start)
            digest.update(stream.read(_PIECE))
    return {"path": str(path), "size": stat.st_size, "sampled_sha256": digest.hexdigest()}


def fingerprint_folder(folder: Path) -> dict[str, Any]:
    """Return what identifies all files in a folder and the folders in it: their number, size, and a checksum of all.

    Names count, and contents; of files that are many and large, contents by size and time of change alone.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    size = sum(p.stat().st_size for p in files)
    digest = hashlib.sha256()
    for path in files:
        content = sha256(path) if size <= _WHOLE_FOLDER else f"{path.stat().st_size} {path.stat().st_mtime_ns}"
        digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    name = "sha256" if size <= _WHOLE_FOLDER else "sampled_sha256"
    return {"path": str(folder), "files": len(files), "size": size, name: digest.hexdigest()}


def digest_of(value: Any) -> str:
    """Return a SHA-256 of any JSON-like value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()

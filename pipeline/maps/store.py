"""The part store: what blocks wrote, checked and recorded, so that a killed run goes on where it was."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from odc.geo.geobox import GeoBox

from pipeline.errors import StaleError
from pipeline.files import sweep, write_text
from pipeline.grid import BlockGrid
from pipeline.maps.layers import Layer
from pipeline.maps.parts import Part, PartRecord, part_path

_MANIFEST = "manifest.jsonl"
_READ = 1 << 20


class PartStore:
    """Parts and their manifest. One process, the driver, holds it; workers only call `write_parts`.

    The first line of the manifest says from what the parts are made; then a line per block. Each line carries its
    own checksum, so a line that a killed process left unfinished is recognised.
    """

    def __init__(
        self, folder: Path, layers: Sequence[Layer], blocks: BlockGrid, records: dict[int, PartRecord], dropped: int
    ) -> None:
        self.folder = folder
        self.layers = tuple(layers)
        self.blocks = blocks
        self.records = records
        self.dropped = dropped

    @classmethod
    def open(
        cls,
        folder: Path,
        layers: Sequence[Layer],
        blocks: BlockGrid,
        key: Mapping[str, str],
        *,
        overwrite: bool = False,
    ) -> PartStore:
        """Open the store, going on with what is there.

        Parameters
        ----------
        folder : Path
            Where the parts lie.
        layers, blocks
            What is being made, and in which pieces.
        key : dict
            From what: checksums or versions under ``model``, ``job``, ``imagery`` and ``software``.
        overwrite : bool
            Throw away parts made from something else.

        Returns
        -------
        PartStore
            ``dropped`` counts blocks that were recorded but whose files are not intact; they are made again.

        Raises
        ------
        StaleError
            If the parts there were made from something else; says from what.
        """
        header = _header(layers, blocks.geobox, key, blocks.size)
        lines = _read_manifest(folder / _MANIFEST)
        if lines and lines[0] != header:
            if not overwrite:
                raise StaleError(_stale(folder, lines[0], header))
            lines = []
        if not lines:
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(parents=True)
            write_text(folder / _MANIFEST, _line(header))
            return cls(folder, layers, blocks, {}, 0)
        for place in (folder, *(folder / layer.name for layer in layers)):
            sweep(place)
        found = [_record(value) for value in lines[1:]]
        with ThreadPoolExecutor(max_workers=4) as pool:
            intact = list(pool.map(lambda r: _intact(folder, r), found))
        records = {r.block: r for r, good in zip(found, intact, strict=True) if good}
        write_text(folder / _MANIFEST, "".join([_line(header), *(_line(asdict(r)) for r in records.values())]))
        return cls(folder, layers, blocks, records, len(found) - len(records))

    @staticmethod
    def begun(folder: Path, layers: Sequence[Layer], geobox: GeoBox, key: Mapping[str, str]) -> int | None:
        """Return the size of the blocks that were begun here, of these layers and from all that is in ``key``, if any were."""
        lines = _read_manifest(folder / _MANIFEST)
        size: int | None = lines[0]["grid"]["block"] if lines else None
        return size if size is not None and lines[0] == _header(layers, geobox, key, size) else None

    def done(self) -> set[int]:
        """Return the blocks that need not be made again."""
        return set(self.records)

    def record(self, record: PartRecord) -> None:
        """Record a block as done; on the disk when this returns."""
        with (self.folder / _MANIFEST).open("ab") as stream:
            stream.write(_line(asdict(record)).encode())
            stream.flush()
            os.fsync(stream.fileno())
        self.records[record.block] = record

    def clear(self) -> None:
        """Remove the parts and the manifest."""
        shutil.rmtree(self.folder)


def _header(layers: Sequence[Layer], geobox: GeoBox, key: Mapping[str, str], size: int) -> dict[str, Any]:
    """Return what the first line of a manifest says."""
    return {
        **dict(key),
        "layers": [layer.describe() for layer in layers],
        "grid": {
            "crs": str(geobox.crs),
            "transform": list(geobox.affine)[:6],
            "shape": [int(n) for n in geobox.shape],
            "block": size,
        },
    }


def _line(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True)
    return f"{zlib.crc32(text.encode()):08x} {text}\n"


def _read_manifest(path: Path) -> list[dict[str, Any]]:
    """Return the lines that are whole; none if there is no manifest or its first line is broken."""
    if not path.is_file():
        return []
    values: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_bytes().splitlines()):
        checksum, _, text = line.partition(b" ")
        if checksum != f"{zlib.crc32(text):08x}".encode():
            if number == 0:
                return []
            continue
        values.append(json.loads(text))
    return values


def _record(value: Mapping[str, Any]) -> PartRecord:
    parts = {name: Part(**part) for name, part in value["parts"].items()}
    return PartRecord(block=value["block"], parts=parts, cuts=value["cuts"])


def _intact(folder: Path, record: PartRecord) -> bool:
    for name, part in record.parts.items():
        path = part_path(folder, name, record.block)
        if not path.is_file() or path.stat().st_size != part.size:
            return False
        found = 0
        with path.open("rb") as stream:
            while piece := stream.read(_READ):
                found = zlib.crc32(piece, found)
        if found != part.crc32:
            return False
    return True


def _stale(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    shown = "".join(
        f"\n  {name}: {json.dumps(old.get(name))} -> {json.dumps(new.get(name))}"
        for name in dict.fromkeys([*new, *old])
        if old.get(name) != new.get(name)
    )
    return (
        f"the parts in {folder} were made from something else:{shown}\n"
        "Give --overwrite to throw them away, or another `output`."
    )
